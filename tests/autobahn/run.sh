#!/usr/bin/env bash
# Runs the Autobahn fuzzing client against a WebSocket echo: every case but 12.* and 13.* (compression, which
# Tidegate does not negotiate). The suite exists for CPython 2.7 only; where there is none, nothing is run.
#
#   tests/autobahn/run.sh ws://127.0.0.1:8000/echo
#
# The echo must accept messages of 16 MiB and messages of 65,536 fragments (cases 9.*).
set -euo pipefail

url=${1:?"usage: $0 ws://HOST:PORT/PATH"}
here=$(cd "$(dirname "$0")" && pwd)
cache=$(dirname "$here")/.cache/autobahn
reports=$cache/reports
log=$cache/log

# Prints the interpreter itself, not a shim in front of it.
cpython27() {
    local candidate
    for candidate in python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
        "$candidate" -c 'import platform, sys
if platform.python_implementation() != "CPython" or sys.version_info[:2] != (2, 7): sys.exit(1)
print(sys.executable)' 2>/dev/null && return
    done
    return 1
}

if ! python=$(cpython27); then
    echo "skipped: the Autobahn suite needs CPython 2.7 (python2.7 on PATH, or 'pyenv install 2.7.18')"
    exit 0
fi

# What is installed is the requirements file itself, copied when all else is done.
if ! cmp -s "$here/requirements.txt" "$cache/installed"; then
    echo "installing the Autobahn suite in $cache"
    rm -rf "$cache"
    mkdir -p "$cache"
    if ! {
        python3 -m venv "$cache/tool" &&
            # The last line of virtualenv that makes environments for 2.7.
            "$cache/tool/bin/pip" install --quiet 'virtualenv<20.22' &&
            "$cache/tool/bin/python" -m virtualenv --quiet --python "$python" "$cache/env" &&
            "$cache/env/bin/pip" install --quiet --no-deps -r "$here/requirements.txt"
    } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "the Autobahn suite could not be installed; it needs python3-venv and PyPI (all output: $log)" >&2
        exit 1
    fi
    cp "$here/requirements.txt" "$cache/installed"
fi

rm -rf "$reports"
sed -e "s#@REPORTS@#$reports#" -e "s#@URL@#$url#" "$here/spec.json" >"$cache/spec.json"
# A run takes half a minute; a node that hangs must not hang this.
if ! (cd "$cache" && timeout 600 env/bin/wstest -m fuzzingclient -s spec.json) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "the Autobahn run against $url failed or took more than ten minutes (all output: $log)" >&2
    exit 1
fi
python3 "$here/check.py" "$reports"
