# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 -c '' 2>/dev/null && echo python3.12 || (command -v python3.11 >/dev/null 2>&1 && python3.11 -c '' 2>/dev/null && echo python3.11) || echo python3)
VENV ?= .venv
RUN = $(VENV)/bin/python
PIP = $(RUN) -m pip install --disable-pip-version-check --quiet
SEED ?= 0
# Test files run side by side: most wait for processes of their own, few fill a core.
TEST_WORKERS ?= 3
HOSTS ?= tests/hosts
# Parts of the nightly suite; all of them where none is named.
NIGHTLY ?=
# Benchmarks that `make smoke` runs.
BENCHMARKS ?= $(basename $(notdir $(filter-out benchmarks/figures.py,$(wildcard benchmarks/*.py))))

.DEFAULT_GOAL := help
.PHONY: help demo test nightly hosts kubelet browser chaos fuzz smoke gpu lock lint format typecheck clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else f"Python 3.11 or 3.12 is needed, {sys.executable} is {v[0]}.{v[1]}: run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing the pinned dependencies into $(VENV) (some minutes, once)"
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing the development dependencies"
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.run ## The whole story on a synthetic corpus: both stages, scores, an edited clip, a report (SEED=n changes every seed)
	$(RUN) recipes/demo.py --seed $(SEED)

test: $(VENV)/.dev ## Set up and run the tests, but the heavy ones
	$(RUN) -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

nightly: $(VENV)/.dev ## Everything that is heavy, an hour or two; writes docs/nightly.md (NIGHTLY="chaos hosts" for parts)
	$(RUN) tests/nightly.py $(NIGHTLY)

hosts: $(VENV)/.dev ## Train on two hosts made of network namespaces, and on S3 that fails (needs root and PostgreSQL)
	timeout --signal=INT --kill-after=60 30m $(RUN) -m pytest -m hosts $(HOSTS)

kubelet: $(VENV)/.dev ## Run the Helm chart's rendered manifests as pods made of namespaces (needs root, nftables and PostgreSQL)
	timeout --signal=INT --kill-after=60 10m $(RUN) -m pytest -m kubelet tests/kubelet

browser: $(VENV)/.dev ## Look at MLflow's pages and the demo's in Chromium (needs it: apt-get install chromium; PICTURES=1 writes docs/pictures)
	$(RUN) -m pytest -m browser tests/browser $(if $(PICTURES),--keep-pictures)

chaos: $(VENV)/.dev ## Kill workers, drivers and nodes in both stages at ZeRO 1 to 3; a table of what that changed (CHAOS=--help)
	$(RUN) tests/chaos $(CHAOS)

fuzz: $(VENV)/.dev ## A thousand commands, settings and files with something wrong in them: none may end in a traceback (FUZZ=--help)
	$(RUN) tests/fuzz $(FUZZ)

smoke: $(VENV)/.dev ## Every benchmark in small: does it run? (needs the shards of `make demo`)
	@set -e; for name in $(BENCHMARKS); do echo "benchmarks/$$name.py --smoke"; $(RUN) benchmarks/$$name.py --smoke; done

gpu: ## Every GPU test and a table of speed, on a machine with one GPU, in 8 minutes; reaches no registry (GPU=--help)
	$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) benchmarks/gpu.py $(GPU)

lock: $(VENV)/.dev ## Write cluster/locks, the packages of the images with their hashes, anew (after a change of constraints.txt)
	$(PIP) -c constraints.txt uv
	$(RUN) cluster/lock.py

lint: $(VENV)/.dev ## Check style, and that every import is declared
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m deptry .

format: $(VENV)/.dev ## Rewrite to style
	$(RUN) -m ruff check --fix . && $(RUN) -m ruff format .

typecheck: $(VENV)/.dev ## Check types
	$(RUN) -m mypy

clean: ## Remove what was built (not runs/ or shards/)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
