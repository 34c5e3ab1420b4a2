# Every target sets up what it needs: Python >= 3.11, make and a C++ compiler (without it rendering is slow) are all it takes.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A venv on PATH, since jobs are executable YAML whose first line asks for `python`.
RUN    := PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)"

.DEFAULT_GOAL := help
.PHONY: help install demo cluster-up cluster-down test test-slow test-all lint audit bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## .venv with everything for a laptop and for the tests

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@touch $@

demo: install  ## the whole story in minutes: label, pretrain, ground, finetune, report; through `ray job submit`
	@$(RUN) sh scripts/demo.sh

cluster-up: install  ## a Ray cluster of three nodes on this machine, for loopback and with a token
	@$(RUN) $(BIN)/python -m liftgs_platform.local_cluster up

cluster-down: install  ## stop it with all its jobs, and nothing else
	@$(RUN) $(BIN)/python -m liftgs_platform.local_cluster down

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## lint, types and every test but the slow ones
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install  ## only the slow tests: kills by the dozen, a real vLLM engine
	$(RUN) $(BIN)/python -m pytest -m slow

test-all: test test-slow  ## everything

audit:  ## known holes in the pinned packages, by pip-audit in an environment of its own
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/python -m pip install --quiet pip-audit
	.cache/audit/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip

bench: install  ## all benchmarks; each alone is `python -m benchmarks.NAME`
	$(RUN) $(BIN)/python -m benchmarks

clean:  ## remove the virtual environment and caches, keep corpora
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
