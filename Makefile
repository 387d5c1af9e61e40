# `make` lists what there is. Needs only make and the Rust toolchain: each
# target installs what it uses (Debian's packages, with sudo when not root).

# Where `make up` keeps the cluster, and what else it passes to `trivet up`.
DATA ?= ./data
ARGS ?=
# The folder with the guest kit: build, run, scripts/.
GUEST ?= ../shared/guest
CARGO ?= cargo
# Where `make install` puts things, and below what, for who makes a package.
PREFIX ?= /usr/local
DESTDIR ?=
# The simulator: the first seed, and how many.
SEED ?= 1
N ?= 300

E2E = RUST_BACKTRACE=0 TRIVET_BIN=$(CURDIR)/target/release/trivet $(CARGO) test -q -p trivet-e2e --lib --test e2e -- --test-threads=2 --show-output

.PHONY: help up build install test check unit sim mutants e2e bench guest long

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: build ## build and run a cluster on this machine (DATA=./data ARGS='--nbd 127.0.0.1:10810')
	target/release/trivet up --data $(DATA) $(ARGS)

build: ## the release binary, target/release/trivet
	@tests/install build
	$(CARGO) build --release -p trivet

install: ## the binary and systemd's units, once they are built (PREFIX=/usr/local DESTDIR=)
	@deploy/install "$(PREFIX)" "$(DESTDIR)"

test: ## everything that CI runs: check, unit, sim, e2e; ends with "N passed, N failed"
	@tests/run check unit sim e2e

check: ## formatting, clippy, the rules of the house
	@tests/install build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test -q -p trivet-tidy

unit: ## unit, golden, crash and fuzz tests, and what talks to a real etcd
	@tests/install test
	$(CARGO) test -q --workspace --exclude trivet-e2e --exclude trivet-tidy

sim: ## the whole cluster under faults, from seeds (N=300 SEED=1)
	$(CARGO) build -q --profile sim -p trivet-sim
	target/sim/trivet-sim run --seed $(SEED) --count $(N) $(ARGS)

mutants: ## every deliberate bug has to be caught: the store's by its crash tests, the others by the simulator within 1,000 seeds
	$(CARGO) test -q --release -p trivet-store --test crash every_seeded_bug -- --nocapture
	$(CARGO) build -q --profile sim -p trivet-sim --features mutants
	target/sim/trivet-sim mutants $(ARGS)

e2e: build ## the real binary against clients that others wrote
	@tests/install test
	$(E2E) $(ONLY)

bench: build ## IOPS, latency and CPU per protocol beside the raw disk and nbdkit (DATA=/dev/shm/trivet-bench)
	@tests/install test
	tests/bench/run --data $(if $(filter file,$(origin DATA)),target/bench-data,$(DATA)) $(ARGS)

guest: build ## kernel clients in a virtual machine against `trivet up`; needs a kit that is not in here (GUEST=../shared/guest)
	GUEST="$(GUEST)" tests/guest/run

long: build ## the e2e tests in their long form: 1 GiB verified, 20 + 50 kills, 20 minutes of chaos, more fuzz
	@tests/install test
	TRIVET_LONG=1 $(E2E) $(ONLY)
