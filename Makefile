# Every command that a person or CI needs. `make` alone lists them.

SHELL := /bin/sh
CARGO ?= cargo
MACHETE := 0.9.2

.PHONY: help setup run test check bench
.DEFAULT_GOAL := help

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the C compiler, make, cmake and perl that the build needs, where they are missing
	@.ci/setup

run: setup ## Run the gateway; with nothing configured, a demo over three origins of its own
	$(CARGO) run -p gateway

test: setup ## Run every test
	$(CARGO) test --workspace --no-fail-fast

check: setup ## Formatting, lints, unused dependencies, documentation: nothing may warn
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	@cargo-machete --version 2>/dev/null | grep -qx '$(MACHETE)' || \
		$(CARGO) install cargo-machete --version $(MACHETE) --locked
	$(CARGO) machete
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

bench: setup ## CPU time a request: the gateway beside a bare forwarder, under the same load (needs wrk, nginx)
	gateway/benches/compare
