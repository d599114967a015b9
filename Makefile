# Two commands matter: `make demo` and `make test`. Each does all of its set-up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo up test lint types contract setup build chart clean

demo: build
	@$(BIN)/medserve demo

up: build
	@$(BIN)/medserve up

build: setup
	@$(BIN)/medserve models build litemedsam
	@$(BIN)/medserve models build synthetic-cxr

test: lint types contract build
	@$(BIN)/python -m pytest || { \
	  echo "medserve: what failed, once more: a test that passes only now is unsteady and wants mending"; \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures all; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contract: setup
	$(BIN)/lint-imports

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "medserve: setting up $(VENV) (about two minutes, once)"
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "medserve: $(PYTHON) is needed: install it, or say PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.0"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[serve,local,build,tensorrt-rtx,dev]"
	@touch $(STAMP)

chart: setup
	$(BIN)/python deploy/helm/write_schema.py
	$(BIN)/python deploy/helm/copy_observability.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
