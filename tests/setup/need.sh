#!/usr/bin/env bash
# Says, one sentence each, what a verb needs and this machine lacks; status 2 if anything is missing.
# Changes nothing: it runs before the first thing that would.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/setup/packages.sh

missing=0
lacks() {
    echo "make: $1" >&2
    missing=1
}

for need in "$@"; do
    case "$need" in
    cargo)
        command -v cargo >/dev/null ||
            lacks "cargo is missing: install Rust as https://rustup.rs says, open a new shell and run make again."
        ;;
    cc)
        { command -v cc && command -v make; } >/dev/null ||
            lacks "a C compiler is missing: run 'apt-get install -y build-essential' as root and run make again."
        ;;
    node)
        # playwright-core needs 20.
        if ! { command -v node && command -v npm; } >/dev/null; then
            lacks "node or npm is missing: install Node.js 20 or later with npm (https://nodejs.org) and run make again."
        elif [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
            lacks "node $(node --version) is too old: install Node.js 20 or later (https://nodejs.org) and run make again."
        fi
        ;;
    python)
        if ! python3 --version >/dev/null 2>&1; then
            lacks "python3 is missing: run 'apt-get install -y python3 python3-venv' as root and run make again."
        elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
            lacks "$(python3 --version) is too old: install Python 3.10 or later and run make again."
        fi
        ;;
    packages)
        wanted=$(missing_packages)
        if [ -n "$wanted" ]; then
            if ! command -v apt-get >/dev/null; then
                lacks "$(missing_programs) missing and there is no apt-get: install them by your system's means and run make again."
            elif [ "$(id -u)" -ne 0 ]; then
                lacks "$(missing_programs) missing and installing needs root: run 'sudo apt-get install -y $wanted' and run make again."
            fi
        fi
        ;;
    mdbook)
        command -v mdbook >/dev/null ||
            lacks "mdbook is missing: run 'cargo install --locked mdbook' and run make again (the pages in docs/ read well without it)."
        ;;
    *)
        echo "need.sh: '$need' is not known" >&2
        exit 64
        ;;
    esac
done
[ "$missing" -eq 0 ] || exit 2
