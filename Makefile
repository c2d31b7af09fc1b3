# make demo | test | test-all | lint | format | docs | bench | setup | clean. The virtual environment is made
# when it is missing and renewed when pyproject.toml or constraints.txt change; otherwise these
# targets start at once.

PYTHON ?= python3
VENV ?= .venv
PYTEST ?=
BENCH ?=
# A process more than cores (tests/conftest.py), at most eight: each holds torch, and the tests that
# start Ray stay in one.
# Files in their order, in which the last ones are short (tests/side_by_side.py).
# What pytest makes of the tests is kept, whatever the environment says: each process takes ten
# seconds for it.
KEPT := PYTHONDONTWRITEBYTECODE=
WORKERS := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format docs bench setup clean
.DELETE_ON_ERROR:
.NOTPARALLEL:  # two pips in one environment harm each other

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed ## sweep the quickstart on real digits and write the leaderboard (a few minutes)
	@$(BIN)/backstop sweep quickstart --experiment quickstart --out leaderboard
	@echo
	@echo "The leaderboard: leaderboard/leaderboard.html (open it in a browser), .md, .csv and .json."
	@echo "Every run, curve and parameter: $(BIN)/backstop ui"

test: $(VENV)/.installed-test ## the tests (PYTEST='-k name -x' passes options on)
	@$(KEPT) $(BIN)/python -m pytest $(WORKERS) $(PYTEST)

test-all: $(VENV)/.installed-test ## the slow tests too
	@$(KEPT) $(BIN)/python -m pytest $(WORKERS) -m '' $(PYTEST)

lint: $(VENV)/.installed-lint ## ruff and mypy; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.installed-lint ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.installed-docs ## build the site of docs/ into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site: $(BIN)/mkdocs serve shows it; site/ holds it for any web server."

bench: $(VENV)/.installed ## measure rounds beside other projects, start-up, a sweep, the rules (BENCH='--before COMMIT')
	@$(BIN)/python benchmarks/run.py $(BENCH)
	@$(BIN)/python benchmarks/aggregators.py

setup: $(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-docs ## everything that the other targets install

clean: ## remove caches and builds; results, stores and $(VENV) stay
	@rm -rf build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find platform attacks defenses search_spaces tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for what a run needs and one for each extra: `make demo` does not wait for the linters.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Backstop into $(VENV) (several minutes and gigabytes the first time) …"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-docs: $(VENV)/.installed-%: $(VENV)/.installed
	@echo "Installing what $* needs …"
	@$(INSTALL) --editable '.[$*]'
	@touch $@

# A folder that venv left half-made is removed again, so that the next try starts afresh.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Backstop needs Python 3.11 to 3.13 and there is no $(PYTHON); try: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Backstop needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'); try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) has no venv module with pip; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
