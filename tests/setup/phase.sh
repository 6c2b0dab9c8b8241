#!/usr/bin/env bash
# Runs a command under a heading and says how long it took.
set -uo pipefail
name=$1
shift
echo "== $name"
SECONDS=0
"$@"
status=$?
if [ "$status" -eq 0 ]; then
    echo "== $name: ${SECONDS} s"
else
    echo "== $name: FAILED after ${SECONDS} s (status $status)" >&2
fi
exit "$status"
