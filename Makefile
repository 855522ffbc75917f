# Every command that a person or CI needs. `make` alone lists them.

SHELL := /bin/sh
CARGO ?= cargo
DENY := 0.20.2
FUZZ := 0.13.2
LLVM_COV_VERSION := 0.9.1
MACHETE := 0.9.2
MDBOOK := 0.5.4
MDBOOK_MERMAID := 0.17.1

# Seconds that `make fuzz` spends on each target, and the targets; without a target: all of them.
TIME ?= 60
TARGETS ?=

# Options of `make bench`, such as BENCH='--only small --rounds 3'.
BENCH ?=

.PHONY: help setup setup-test run test check coverage cargo-deny advisories audit diagrams fuzz release bench attacks book
.DEFAULT_GOAL := help

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the C compiler, make, cmake and perl that the build needs, if they are missing
	@.ci/setup

setup-test: ## Install Pebble (an ACME server for tests) and Redis, if they are missing and apt has them
	@.ci/setup-test

run: setup ## Run the gateway; without a configuration, this is a demo with three origins
	$(CARGO) run

test: setup setup-test ## Run every test, also those that compare pages and exercises with the code
	$(CARGO) test --workspace --features solution --no-fail-fast

check: setup cargo-deny diagrams ## Check formatting, lints, dependencies, documentation and diagrams; a warning is an error
	$(CARGO) fmt --all --check
	rustfmt --edition 2024 --check docs/exercises/*/*/wrong/*.rs
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy --workspace --test check -- -D warnings
	$(CARGO) clippy -p gateway --bench '*' -- -D warnings
	@cargo-machete --version 2>/dev/null | grep -qx '$(MACHETE)' || \
		$(CARGO) install cargo-machete --version $(MACHETE) --locked
	$(CARGO) machete
	$(CARGO) deny check bans licenses sources
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

coverage: setup setup-test ## Measure the share of the gateway's lines that tests run, for README (needs LLVM's tools)
	@cargo-llvm-cov llvm-cov --version 2>/dev/null | grep -qx 'cargo-llvm-cov $(LLVM_COV_VERSION)' || \
		$(CARGO) install cargo-llvm-cov --version $(LLVM_COV_VERSION) --locked
	CARGO='$(CARGO)' .ci/coverage

cargo-deny:
	@cargo-deny --version 2>/dev/null | grep -qx 'cargo-deny $(DENY)' || \
		$(CARGO) install cargo-deny --version $(DENY) --locked

advisories: cargo-deny ## Look up every dependency in the RustSec database (needs github.com)
	@if $(CARGO) deny fetch db; then \
		$(CARGO) deny check --hide-inclusion-graph advisories; \
	else \
		echo "advisories: skipped, because the RustSec database cannot be fetched" >&2; [ -z "$$CI" ]; \
	fi

audit: advisories ## The same as `make advisories`

diagrams: ## Parse every diagram in README and book with mermaid itself (needs Node.js)
	@cd docs/check/mermaid && if command -v npm >/dev/null 2>&1; then \
		{ [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --ignore-scripts; } && \
		node parse.mjs; \
	else \
		echo "diagrams: skipped, because npm is missing; install Node.js and npm" >&2; [ -z "$$CI" ]; \
	fi

fuzz: setup ## Search for inputs that break a parser, for TIME=60 seconds on each of TARGETS (needs C++)
	@cargo-fuzz --version 2>/dev/null | grep -qx 'cargo-fuzz $(FUZZ)' || \
		$(CARGO) install cargo-fuzz --version $(FUZZ) --locked
	@gateway/fuzz/run $(TIME) $(TARGETS)

release: setup ## Build the gateway for speed: trained with the load of the benchmark (needs wrk, nginx, LLVM's tools)
	@CARGO='$(CARGO)' .ci/release

bench: setup ## Compare what the gateway, nginx, HAProxy and a plain forwarder cost (needs wrk, h2load, nginx, HAProxy, Python)
	$(CARGO) build --release -p gateway -p simple_proxy
	python3 -B gateway/benches/compare $(BENCH)

attacks: setup ## Measure what HTTP/2 attacks cost the gateway, nginx and HAProxy (needs nginx, HAProxy, Python)
	$(CARGO) build --release -p gateway
	gateway/benches/http2_attacks

book: ## Build the book into docs/book; install mdBook and mdbook-mermaid first, if they are missing
	@mdbook --version 2>/dev/null | grep -qx 'mdbook v$(MDBOOK)' || \
		$(CARGO) install mdbook --version $(MDBOOK) --locked
	@mdbook-mermaid --version 2>/dev/null | grep -qx 'mdbook-mermaid $(MDBOOK_MERMAID)' || \
		$(CARGO) install mdbook-mermaid --version $(MDBOOK_MERMAID) --locked
	@RUST_LOG=warn mdbook-mermaid install docs
	mdbook build docs
	@echo 'open docs/book/index.html'
