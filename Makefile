# Every command that a person or CI needs. `make` alone lists them.

SHELL := /bin/sh
CARGO ?= cargo
# What tests of the real thing need besides Rust; `make setup-test` brings it.
TEST_TOOLS := apache2-utils

.PHONY: help setup setup-test run test check bench

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the C compiler, cmake, perl and make that the build needs, where they are missing
	@.ci/setup

run: setup ## Run the gateway: with nothing configured, a demo over three origins of its own
	$(CARGO) run -p gateway

test: setup ## Run every test
	$(CARGO) test --workspace --no-fail-fast

check: setup ## Formatting, lints, unused dependencies, documentation: nothing may warn
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	@command -v cargo-machete >/dev/null || $(CARGO) install cargo-machete --version $(MACHETE) --locked
	$(CARGO) machete
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
