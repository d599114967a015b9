# Two commands matter: `make demo` and `make test`. Each does all of its set-up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODELS := litemedsam synthetic-cxr
UNITS := tests/contract tests/unit
SERVERS := tests/golden tests/integration
OWN := tests/integration/models tests/integration/triton

.PHONY: demo up test servers units own lint types contract setup build $(MODELS) chart clean

demo: build
	@$(BIN)/medserve demo

up: build
	@$(BIN)/medserve up

build: $(MODELS)

$(MODELS): setup
	@$(BIN)/medserve models build $@

# Two at a time: the tests of real servers mostly wait, so the rest runs beside them: first the units, then what builds models or
# starts a Triton of its own. That is done before the last of the servers' tests, which wants the machine for itself.
test: setup
	@$(MAKE) --no-print-directory -j2 lint types contract servers units own

PYTEST := $(BIN)/python -m pytest --durations 15 --durations-min 5
AGAIN := echo "medserve: what failed, once more: a test that passes only now is unsteady and wants mending"
LAST := --last-failed --last-failed-no-failures all
beside = { $(PYTEST) $(CACHE) $(1) || { $(AGAIN); $(PYTEST) $(CACHE) $(1) $(LAST); }; } >.pytest-$@.log 2>&1; \
  passed=$$?; cat .pytest-$@.log; exit $$passed

servers: OTHERS := $(SERVERS) $(OWN:%=--ignore %)
servers: build
	@$(PYTEST) $(OTHERS) || { $(AGAIN); $(PYTEST) $(OTHERS) $(LAST); }

# What runs beside the servers' tests prints when it is done.
units own: CACHE = -o cache_dir=.pytest_cache/$@
units: build
	@$(call beside,$(UNITS))

own: build
	@$(call beside,$(OWN))

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
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .pytest-*.log *.egg-info
