#!/usr/bin/env bash
# Installs what tests/deploy needs: a Python environment in tests/.cache/deploy, and helm. Quick when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests/setup/helm.sh >/dev/null

cache=tests/.cache/deploy
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
wanted=$(cat tests/deploy/requirements.txt "$0" | sha256sum)
if [ "$(cat "$cache/stamp" 2>/dev/null)" != "$wanted" ] || [ ! -x "$cache/venv/bin/python" ]; then
    echo "installing a Python environment into $cache/venv" >&2
    rm -rf "$cache/venv"
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/deploy/requirements.txt
    # Only for the schema of compose files that it carries; what it would depend on is old and not needed.
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps docker-compose==1.29.2
    echo "$wanted" >"$cache/stamp"
fi

if ! { command -v promtool && command -v prometheus; } >/dev/null; then
    echo "prometheus is missing: run 'apt-get install -y prometheus' as root and try again" >&2
    exit 1
fi
