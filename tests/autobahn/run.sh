#!/usr/bin/env bash
# Runs the Autobahn fuzzing client against a WebSocket echo: every case but 12.* and 13.* (compression, which
# Tidegate does not negotiate). The suite exists for CPython 2.7 only; where there is none, nothing is run.
#
#   tests/autobahn/run.sh                                  builds a node that echoes, starts it, tests it, stops it
#   tests/autobahn/run.sh ws://127.0.0.1:8000/echo         tests an echo that runs already
#
# The echo must accept messages of 16 MiB, and of 65,537 fragments (cases 9.*).
set -euo pipefail

url=${1:-}
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
cache=$root/tests/.cache/autobahn
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

# A node of our own, built for debugging: its checks are on, and no release ever has the echo.
if [ -z "$url" ]; then
    (cd "$root" && cargo build --quiet -p tidegate-gateway --features echo)
    read -r public internal < <(python3 -c 'import socket
free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(found.getsockname()[1] for found in free))')
    "${CARGO_TARGET_DIR:-$root/target}/debug/tidegate" --dev \
        --set "listen.public=127.0.0.1:$public" --set "listen.internal=127.0.0.1:$internal" \
        --set limits.max_message_bytes=16MiB --set limits.max_fragments=65537 --set limits.message_timeout=60s \
        --set outbox.max_bytes=64MiB >"$cache/node.log" 2>&1 &
    node=$!
    trap 'kill "$node" 2>/dev/null; wait "$node" || true' EXIT
    url=ws://127.0.0.1:$public/echo
    if ! python3 "$here/listening.py" "$public"; then
        tail -n 20 "$cache/node.log" >&2
        echo "the node did not start (all output: $cache/node.log)" >&2
        exit 1
    fi
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
