#!/usr/bin/env bash
# Checks deploy/ and helm/ by the tools that will read them. Arguments: which parts; none is all of them.
#
# Dashboards and alerts are held against a running node by dashboard.py; here they are only read.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/setup/deploy.sh
python=tests/.cache/deploy/venv/bin/python

image() {
    tests/.cache/deploy/venv/bin/hadolint deploy/Dockerfile
    echo "Dockerfile: nothing to complain about"
}

compose() {
    "$python" tests/deploy/compose.py
}

alerts() {
    promtool check config --lint=all --lint-fatal deploy/prometheus/prometheus.yml
    (cd deploy/prometheus && promtool test rules alerts.test.yml)
    "$python" tests/deploy/alerts.py
}

dashboard() {
    "$python" tests/deploy/dashboard.py
}

# With the node that TIDEGATE_BIN names, or the release build, if there is one.
chart() {
    local node=${TIDEGATE_BIN:-${CARGO_TARGET_DIR:-target}/release/tidegate}
    [ -x "$node" ] || node=
    "$python" tests/deploy/chart.py "$(tests/setup/helm.sh)" ${node:+"$node"}
}

[ $# -gt 0 ] || set -- image compose alerts dashboard chart
for part in "$@"; do
    case "$part" in
    image | compose | alerts | dashboard | chart) "$part" ;;
    *)
        echo "check.sh: '$part' is not a part; there are image, compose, alerts, dashboard, chart" >&2
        exit 64
        ;;
    esac
done
