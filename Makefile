# Each target does the whole set-up it needs: `make demo` and `make test` work on a fresh machine
# with make and Python >= 3.11. PYTHON=/path/to/python chooses the interpreter.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.twinheart-installed
CANDIDATES := $(PYTHON) python3 python3.12 python3.11 python3.13 python3.14
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help env demo test lint format clean

help:
	@echo "make demo    simulate the bundled heart; pictures and ECG in report/report.html"
	@echo "make test    lint, type check and run the tests"
	@echo "make env     create the environment in $(VENV) and nothing else"
	@echo "make lint    ruff, codespell and pyright;   make format: apply ruff's fixes"
	@echo "make clean   remove the environment and everything generated"

env: $(STAMP)

$(STAMP): pyproject.toml
	@set -e; \
	if [ ! -x $(BIN)/python ]; then \
	  for candidate in $(CANDIDATES); do \
	    if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo "make: no Python >= 3.11 with venv found (looked for: $(CANDIDATES));" \
	         "install one (Debian/Ubuntu: apt install python3 python3-venv)" \
	         "or call make PYTHON=/path/to/python" >&2; exit 1; \
	  fi; \
	  echo "creating $(VENV) with $$($$found --version)"; \
	  $$found -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: env
	$(BIN)/twinheart demo --out report
	@echo "open $(CURDIR)/report/report.html in a browser"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m pytest -n $(WORKERS)

clean:
	rm -rf $(VENV) build dist report .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
