# `make demo` and `make test` work from a fresh clone: each first builds .venv, and builds it again
# only when pyproject.toml has changed.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test lint types format clean

help:
	@echo "make demo    fit two hierarchical models to real data"
	@echo "make test    run every test, doctest and tutorial (WORKERS=$(WORKERS) processes)"
	@echo "make lint    check style; make format repairs it"
	@echo "make types   check types"
	@echo "make clean   remove $(VENV) and caches"

demo: $(INSTALLED)
	$(BIN)/ppcore demo --out demo_output

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 10

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("ppcore needs Python 3.11 or later: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis demo_output
