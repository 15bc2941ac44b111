# Targets for people; `make help` lists them. Everything lives in .venv; nothing else is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two OpenMP threads beside a busy core spin against each other: one per process, unless told otherwise.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo results defences defences-quick sparse-connectivity sparse-connectivity-quick test test-long test-wandb test-slurm test-ray sync check format bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-25s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv with the pinned dependencies (once)

$(READY): requirements.lock pyproject.toml scripts/check_machine.py
	@$(PYTHON) scripts/check_machine.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

JOBS ?= 2
SWEEP := $(BIN)/snnrobust train launcher=parallel launcher.jobs=$(JOBS)

demo: setup ## train, attack and compare: a table here, figures on a page (under 3 minutes on 2 cores)
	$(SWEEP) +sweeps=demo
	$(BIN)/snnrobust report runs/demo --out report/demo --title "snnrobust demo: gradient sparsity on handwritten digits"

results: setup ## repeat the sweeps of docs/results.md (most of an hour on 2 cores)
	for name in digits digits_events suites; do $(SWEEP) +sweeps=$$name || exit 1; done
	for name in digits digits_events suites; do $(BIN)/snnrobust report runs/$$name --out docs/results/$$name; done
	$(BIN)/python -m benchmarks.flips

# Resumable: what is on record under runs/defences is not run again.
defences: setup ## compare all defences on two datasets; writes sweeps/defences.md (hours; JOBS=2 processes)
	$(BIN)/python -m sweeps.compare sweeps/defences.yaml --jobs $(JOBS)

defences-quick: setup ## the same under PGD-10 alone
	$(BIN)/python -m sweeps.compare sweeps/defences.yaml --jobs $(JOBS) --quick

SPARSE := $(BIN)/python -m sweeps.sparse sweeps/sparse_connectivity.yaml --jobs $(JOBS)
sparse-connectivity: setup ## compare sparse networks, converted and trained end to end (hours; JOBS=2 processes)
	$(SPARSE)

sparse-connectivity-quick: setup ## the same on the digits, for one seed
	$(SPARSE) --datasets digits --seeds 0

test: setup ## the test suite (about 20 minutes)
	$(BIN)/python -m pytest -m "not long"

test-long: setup ## the slow tests too: kills of whole sweeps, browser, packaging (about 25 minutes)
	$(BIN)/python -m pytest

test-slurm: setup ## launcher=slurm on a Slurm of one node, installed and started for it (Debian, root; about 7 minutes)
	scripts/test_slurm.sh

test-ray: setup ## launcher=ray on two raylets, with Ray in .venv-ray (about 7 minutes)
	scripts/test_ray.sh

test-wandb: setup ## tracking and uploads against a W&B-compatible server on 127.0.0.1 (about 7 minutes)
	$(BIN)/python -m scripts.test_wandb

RUNS ?= runs
sync: setup ## upload what was tracked offline under RUNS=runs (JOBS=2 at a time)
	$(BIN)/snnrobust sync $(RUNS) jobs=$(JOBS)

check: setup ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## time training and attack steps; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks.run

lock: setup ## renew requirements.lock from pyproject.toml
	$(BIN)/python scripts/lock.py

clean: ## remove caches (runs, data and .venv stay)
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
