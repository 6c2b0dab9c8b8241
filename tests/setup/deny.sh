#!/usr/bin/env bash
# Runs cargo-deny where it is installed. It is not installed for you: building it takes minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! cargo deny --version >/dev/null 2>&1; then
    echo "cargo-deny is not installed, so deny.toml was not checked ('cargo install --locked cargo-deny' brings it)"
    exit 0
fi
exec cargo deny --workspace check
