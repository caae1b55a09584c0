# Every target sets up .venv by itself (tools/setup.sh); nothing outside the checkout is changed,
# but for the Debian packages that setup names and, as root, installs.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: demo lint test test-e2e test-fresh test-clients fuzz bench chaos soak setup setup-lab

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt tools/setup.sh
	PYTHON=$(PYTHON) sh tools/setup.sh

setup-lab: .venv/.lab-ready

.venv/.lab-ready: pyproject.toml constraints.txt tools/setup.sh
	PYTHON=$(PYTHON) sh tools/setup.sh lab

demo: setup ## an origin and five peers on this machine, 256 MiB to all of them at once
	$(BIN)/peerd demo --peers 5 --size 256MiB

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

test: setup ## unit, property, conformance and one pass of the end-to-end tests
	$(PYTEST) -m "not slow" -n 2 --dist loadfile

test-e2e: setup ## real daemons, 20 times each
	$(PYTEST) tests/e2e --repeat 20

test-fresh: ## a bare Debian 12 in a chroot: make test and make demo from a fresh clone (root)
	sh tools/test_fresh.sh

fuzz: setup ## a million inputs for each decoder
	PEERD_FUZZ_EXAMPLES=1000000 $(PYTEST) tests/fuzz --timeout 0

bench: setup-lab ## the link, then a short swarm in the network lab (root); docs/lab.md has the long ones
	$(BIN)/python -m tools.bench link
	$(BIN)/python -m tools.bench swarm --peers 8 --rate 50mbit --size 64MiB --repeat 1 \
	    --against curl,libtorrent,aria2

chaos: setup-lab ## every scenario of docs/chaos.md in the network lab (root)
	$(BIN)/python -m tools.chaos run all

test-clients soak: ## not there yet: these come with the gateway
	@echo "make $@: not there yet, see docs/acceptance.md" >&2; exit 1
