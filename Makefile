# demo: the main job on real data. test: the tests. check: the tests and everything a commit must pass.
# Each makes .venv on its first run and again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check static clean

demo: $(VENV)/package.stamp
	$(BIN)/llm4rec demo --out demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

check: static test

static: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .hypothesis

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "llm4rec needs Python 3.11 or newer, and '$(PYTHON)' is not one. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The build backend is pinned too, which pip does only through the environment.
$(VENV)/package.stamp: $(VENV)/python.stamp pyproject.toml constraints.txt
	PIP_CONSTRAINT=constraints.txt $(INSTALL) -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/package.stamp
	PIP_CONSTRAINT=constraints.txt $(INSTALL) -e '.[dev]'
	@touch $@
