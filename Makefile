# Everything from a bare machine with Python 3.11 or newer: `make quickstart` or `make test`.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

JOBS ?= 2
PARALLEL := --dist loadfile --no-loadscope-reorder
export PYTHONDONTWRITEBYTECODE :=  # a test run starts a hundred processes: each would compile the package anew

.PHONY: quickstart test test-quick test-cluster test-faults lint unit runtimes docs clean

quickstart: $(VENV)/installed
	$(RUN) -m attnsweep sweeps/quickstart.py
	$(RUN) analysis/pareto.py results
	$(RUN) analysis/table.py results

test: lint unit

test-quick: lint
	$(RUN) -m pytest $(PARALLEL) -n $(JOBS) -m 'not slow and not ray and not data and not cluster and not faults'

lint: $(VENV)/installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

unit: $(VENV)/installed-test  # two for each core: many tests wait for processes
	$(RUN) -m pytest $(PARALLEL) -n $$((2 * $(JOBS)))

test-cluster: $(VENV)/installed-test
	$(RUN) -m pytest -m cluster -rs

test-faults: $(VENV)/installed-test
	ATTNSWEEP_FAULTS_TABLE=docs/faults.md $(RUN) -m pytest -m faults

runtimes: $(VENV)/installed-test
	$(RUN) benchmarks/runtimes.py --write docs/runtimes.md

docs: $(VENV)/installed-docs
	$(RUN) -m mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(RUN) -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/bin/python pyproject.toml
	$(RUN) -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(VENV)/bin/python pyproject.toml
	$(RUN) -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) results runs figures site
