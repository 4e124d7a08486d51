# The work on Sortie, by name. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# One cargo at a time: each uses every core. What is run together is built together, because another choice of
# packages is another choice of features, and builds everything again.
.NOTPARALLEL:

# The toolchain and the servers that tests start lie where a bare PATH may not lead.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO_FLAGS := --locked

.PHONY: help demo test chaos bench pictures simulate fuzz lint fmt deb image

help: ## List what there is
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: ## Start a control plane, two agents and git servers, and show what they do; ONCE=1 ends afterwards
	@packaging/prerequisites.sh test
	cargo build $(CARGO_FLAGS) --release --workspace --bins --example demo
	ONCE=$(ONCE) $(TARGET)/release/examples/demo

test: ## Run every test
	@packaging/prerequisites.sh test
	cargo build $(CARGO_FLAGS) --workspace --bins
	cargo test $(CARGO_FLAGS) --workspace --doc
	if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run $(CARGO_FLAGS) --workspace --no-fail-fast; \
	else \
	    cargo test $(CARGO_FLAGS) --workspace --lib --bins --tests --no-fail-fast; \
	fi

chaos: ## Kill everything KILLS=1000 times while lines and disks fail, and see that nothing is lost; SEED=N repeats
	@packaging/prerequisites.sh test
	cargo build $(CARGO_FLAGS) --release --workspace --bins --example chaos
	KILLS=$(KILLS) SEED=$(SEED) $(TARGET)/release/examples/chaos

bench: ## Measure against git, and the daemon against its own limits
	@packaging/prerequisites.sh test
	cargo build $(CARGO_FLAGS) --release --workspace --bins
	cargo bench $(CARGO_FLAGS) --bench bench

simulate: ## Run both sides under simulated time, network and disks: SEEDS=N from FIRST=N, or one SEED=N with its logs
	cargo run $(CARGO_FLAGS) --release -p sortie-simulation --example simulate -- \
	    $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000) --first $(or $(FIRST),0))

fuzz: ## Feed each fuzz target for EACH=60 seconds with what a fuzzer thinks of
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz: cargo install --locked cargo-fuzz" >&2; exit 1; }
	for target in $$(sed -n 's/^name = "\([a-z_]*\)"$$/\1/p' fuzz/Cargo.toml); do \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target \
	        -- -max_total_time=$(or $(EACH),60) -max_len=4200 -timeout=10; \
	done

pictures: ## Draw the manual's pictures anew, from the real program on a terminal
	@packaging/prerequisites.sh test
	cargo build $(CARGO_FLAGS) --package sortie --bin sortie
	cargo run $(CARGO_FLAGS) --package sortie --example pictures

lint: ## Judge form, lints, documentation, dependencies and units
	@.ci/lint

fmt: ## Put the code into its form
	cargo fmt --all

deb: ## Build the agent's Debian package and check its contents
	@packaging/prerequisites.sh ci
	cargo build $(CARGO_FLAGS) --release --package sortie --bin sortie
	cargo deb $(CARGO_FLAGS) --no-build --no-strip --output $(TARGET)/debian/sortie.deb
	packaging/deb/check $(TARGET)/debian/sortie.deb

image: ## Build the agent's container image and start it as it is meant to run
	@packaging/prerequisites.sh build
	cargo build $(CARGO_FLAGS) --release --package sortie --bin sortie
	packaging/container/build $(TARGET)/release/sortie
