# An index of verbs: `make` alone prints them. What a verb does in more than a line lives in tests/setup.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

need  := @tests/setup/need.sh
phase := @tests/setup/phase.sh
# The promises that must hold whatever carries WebSocket.
sessions := --no-fail-fast --test session --test frames --test slow

.PHONY: help run test lint fmt bench bench-check check-delivery demo-cluster autobahn docs clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start a node in dev mode on 127.0.0.1:8000 (ARGS='--set ...' for more)
	$(need) cargo cc
	@exec cargo run --quiet --release -p tidegate-gateway -- --dev $(ARGS)

test: ## Install what the tests need, build the release node, run every test
	$(need) cargo cc node python packages
	$(phase) "set up the tools" tests/setup/install.sh
	$(phase) "set up the deployment tools" tests/setup/deploy.sh
	$(phase) "build the node" cargo build --release -p tidegate-gateway
	$(phase) "build the tests" cargo test --workspace --no-run
	$(phase) "run the tests" cargo test --workspace --no-fail-fast
	$(phase) "sessions over wss" env TIDEGATE_TESTS_TLS=rustls cargo test -p tidegate-tests $(sessions)
	$(phase) "sessions over wss, compact" env TIDEGATE_TESTS_TLS=compact cargo test -p tidegate-tests $(sessions)
	$(phase) "the Autobahn suite" tests/autobahn/run.sh

lint: ## Check formatting, clippy without warnings, the licences and sources of dependencies
	$(need) cargo cc
	$(phase) "rustfmt" cargo fmt --all -- --check
	$(phase) "clippy" cargo clippy --workspace --all-targets -- -D warnings
	$(phase) "clippy, with the echo" cargo clippy -p tidegate-gateway --all-targets --features echo -- -D warnings
	$(phase) "clippy, sabotaged" cargo clippy -p tidegate-hub -p tidegate-relay -p tidegate-gateway --features tidegate-gateway/sabotage -- -D warnings
	$(phase) "cargo-deny" tests/setup/deny.sh

fmt: ## Format all Rust code
	$(need) cargo
	@cargo fmt --all

bench: ## What connections cost, beside plain actix-ws: ten minutes, writes docs/benchmarks.md (needs redis-server, openssl)
	$(need) cargo cc
	@cargo build --quiet --release -p tidegate-gateway -p tidegate-bench
	@target/release/tidegate-bench suite --data docs/benchmarks.json --docs docs \
		--coefficients crates/bench/src/scenario/coefficients.json $(ARGS)

bench-check: ## Whether anything got slower: instructions, heap and bytes against crates/bench/check.json (ARGS=--update)
	$(need) cargo cc packages
	@tests/setup/install.sh debian
	$(phase) "build the node" cargo build --quiet --release -p tidegate-gateway
	$(phase) "build the bench" cargo build --quiet --release -p tidegate-bench
	$(phase) "count" target/release/tidegate-bench check $(ARGS)

check-delivery: ## Faults by a seed, and whether anything was lost, twice, or late without a word (SEED=... MINUTES=... TOPOLOGY=...)
	$(need) cargo cc node python packages
	@tests/setup/install.sh
	$(phase) "build the node" cargo build --quiet --release -p tidegate-gateway
	@cargo run --quiet -p tidegate-tests --bin check-delivery -- \
		$(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(TOPOLOGY),--topology $(TOPOLOGY)) $(ARGS)

demo-cluster: ## Two nodes on one Redis, SDKs and raw sockets on both, one PUBLISH: what arrives where
	$(need) cargo cc node python packages
	@tests/setup/install.sh
	@cargo build --quiet --release -p tidegate-gateway
	@cargo run --quiet -p tidegate-tests --bin demo-cluster

autobahn: ## The Autobahn suite's fuzzing client against the edge
	$(need) cargo cc python
	@tests/autobahn/run.sh

docs: ## Build the book into docs/book
	$(need) mdbook
	@mdbook build docs

clean: ## Remove everything that was built or installed by these verbs
	@rm -rf tests/.cache tests/sdk/node_modules docs/book
	@if command -v cargo >/dev/null; then cargo clean; fi
