#!/usr/bin/env bash
# Installs what the tests need: Debian packages, node packages, a Python environment. Quick when nothing is missing.
# `install.sh debian` installs the Debian packages only.
# need.sh has checked before that this can work.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/setup/packages.sh
cache=tests/.cache
mkdir -p "$cache"

# Runs `$3...` unless it has run before for the same content of the files `$2`.
once_per_content() {
    local stamp="$cache/$1.stamp" sum
    sum=$(cat $2 | sha256sum)
    shift 2
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then
        return 0
    fi
    "$@"
    echo "$sum" >"$stamp"
}

debian() {
    local wanted
    wanted=$(missing_packages)
    [ -n "$wanted" ] || return 0
    echo "installing $wanted"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # words on purpose
    apt-get install -y -qq --no-install-recommends $wanted >"$cache/apt.log" 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends $wanted; } >"$cache/apt.log" 2>&1 ||
        { tail -20 "$cache/apt.log" >&2; return 1; }
}

node_packages() {
    echo "installing node packages into tests/sdk/node_modules"
    (cd tests/sdk && npm ci --silent --ignore-scripts --no-audit --no-fund)
}

python_environment() {
    echo "installing a Python environment into $cache/venv"
    rm -rf "$cache/venv"
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/sdk/requirements.txt
}

debian
[ "${1:-}" != debian ] || exit 0
[ -d tests/sdk/node_modules ] || rm -f "$cache/node.stamp"
[ -x "$cache/venv/bin/python" ] || rm -f "$cache/python.stamp"
once_per_content node "tests/sdk/package.json tests/sdk/package-lock.json" node_packages
once_per_content python tests/sdk/requirements.txt python_environment
