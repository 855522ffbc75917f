# Every command that a person or CI needs. `make` alone lists them.

SHELL := /bin/sh
CARGO ?= cargo
DENY := 0.20.2
FUZZ := 0.13.2
LLVM_COV_VERSION := 0.9.1
MACHETE := 0.9.2
MDBOOK := 0.5.4
MDBOOK_MERMAID := 0.17.1

# How long `make fuzz` looks at each target, in seconds, and at which; none named: at all.
TIME ?= 60
TARGETS ?=

.PHONY: help setup setup-test run test check coverage cargo-deny advisories audit diagrams fuzz bench attacks book
.DEFAULT_GOAL := help

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the C compiler, make, cmake and perl that the build needs, where they are missing
	@.ci/setup

setup-test: ## Install Pebble (an ACME server made for tests) and Redis, where they are missing and apt has them
	@.ci/setup-test

run: setup ## Run the gateway; with nothing configured, a demo over three origins of its own
	$(CARGO) run

test: setup setup-test ## Run every test, and hold pages and exercises to what they say
	$(CARGO) test --workspace --features solution --no-fail-fast

check: setup cargo-deny diagrams ## Formatting, lints, dependencies, documentation, diagrams: nothing may warn
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy --workspace --test check -- -D warnings
	$(CARGO) clippy -p gateway --bench '*' -- -D warnings
	@cargo-machete --version 2>/dev/null | grep -qx '$(MACHETE)' || \
		$(CARGO) install cargo-machete --version $(MACHETE) --locked
	$(CARGO) machete
	$(CARGO) deny check bans licenses sources
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

coverage: setup setup-test ## Which lines of the gateway its tests run, in percent: into README (needs LLVM's tools)
	@cargo-llvm-cov llvm-cov --version 2>/dev/null | grep -qx 'cargo-llvm-cov $(LLVM_COV_VERSION)' || \
		$(CARGO) install cargo-llvm-cov --version $(LLVM_COV_VERSION) --locked
	CARGO='$(CARGO)' .ci/coverage

cargo-deny:
	@cargo-deny --version 2>/dev/null | grep -qx 'cargo-deny $(DENY)' || \
		$(CARGO) install cargo-deny --version $(DENY) --locked

advisories: cargo-deny ## Ask the RustSec database about every dependency (needs github.com)
	@if $(CARGO) deny fetch db; then \
		$(CARGO) deny check --hide-inclusion-graph advisories; \
	else \
		echo "advisories: not asked, for want of the database" >&2; [ -z "$$CI" ]; \
	fi

audit: advisories ## The same as `make advisories`

diagrams: ## Parse every diagram in README and book with mermaid itself (needs Node.js)
	@cd docs/check/mermaid && if command -v npm >/dev/null 2>&1; then \
		{ [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --ignore-scripts; } && \
		node parse.mjs; \
	else \
		echo "diagrams: not parsed, for want of Node.js and npm" >&2; [ -z "$$CI" ]; \
	fi

fuzz: setup ## Look for inputs that break a parser, TIME=60 seconds at each of TARGETS (needs C++)
	@cargo-fuzz --version 2>/dev/null | grep -qx 'cargo-fuzz $(FUZZ)' || \
		$(CARGO) install cargo-fuzz --version $(FUZZ) --locked
	@gateway/fuzz/run $(TIME) $(TARGETS)

bench: setup ## CPU time a request: the gateway beside a bare forwarder, under the same load (needs wrk, nginx)
	gateway/benches/compare

attacks: setup ## What attacks over HTTP/2 cost the gateway, nginx and HAProxy, as a table (needs both, and Python)
	$(CARGO) build --release -p gateway
	gateway/benches/http2_attacks

book: ## Build the book into docs/book, and its two tools first where they are missing
	@mdbook --version 2>/dev/null | grep -qx 'mdbook v$(MDBOOK)' || \
		$(CARGO) install mdbook --version $(MDBOOK) --locked
	@mdbook-mermaid --version 2>/dev/null | grep -qx 'mdbook-mermaid $(MDBOOK_MERMAID)' || \
		$(CARGO) install mdbook-mermaid --version $(MDBOOK_MERMAID) --locked
	@RUST_LOG=warn mdbook-mermaid install docs
	mdbook build docs
	@echo 'open docs/book/index.html'
