# Each target sets up all it needs on a fresh machine (Python 3.11 or newer, with venv).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_VERBOSITY := error
# Tests and the demo use one thread a process and one process a core.
export OMP_NUM_THREADS := 1
# Installed modules are compiled when they are first imported, and kept so, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-all lint lint-types lint-style lint-contracts lint-workflow docs tiny clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/run.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# Of 20,000 modules that come along, few are ever imported: they are compiled when they are.
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/run.stamp $@

demo: $(VENV)/run.stamp  ## simulate a study, reconstruct, score, write reports (out/demo)
	$(BIN)/afterimage demo out/demo

lint: $(VENV)/dev.stamp  ## style, types, import contracts, workflow
	$(MAKE) --no-print-directory --jobs 2 --output-sync lint-types lint-style lint-contracts lint-workflow

lint-types:
	mypy

lint-style:
	ruff check .
	ruff format --check .

lint-contracts:
	lint-imports

lint-workflow:
	snakefmt --check Snakefile workflows
	mkdir -p build/lint
	snakemake --lint --directory build/lint --config bids_dir=$(CURDIR)/tests/data/minimal

test: lint  ## lint and the default test suite
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile

test-all: lint  ## everything, also what takes long or needs a GPU
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile -m "not network"

docs: $(VENV)/dev.stamp  ## build the documentation (docs/_build/html)
	sphinx-build -W -q docs docs/_build/html

tiny: $(VENV)/dev.stamp  ## train the small weights in data/tiny again, from nothing
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python data/tiny/train.py --out data/tiny

clean:  ## remove what was built
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache docs/_build docs/generated
