# Targets with a comment after ## are what people call; `make help` lists them.
SHELL := /bin/sh
JOBS ?= 3
REQUIREMENTS ?= demo
TESTS ?= tests --ignore=tests/bench
BIN := .venv/bin

demo_options = $(if $(WORKSETS),--worksets $(WORKSETS)) \
	$(if $(filter 1 yes true,$(FAIL)),--fail) \
	$(if $(filter 1 yes true,$(KEEP)),--keep)

.DEFAULT_GOAL := help
.PHONY: help venv demo test sim soak mutate reliability check docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: ## Make .venv with the locked requirements (REQUIREMENTS=runtime, demo or dev; default demo)
	@scripts/venv.sh $(REQUIREMENTS)

demo: ## Run a sample workset from drop to results (WORKSETS=4 FAIL=1 KEEP=1, or ARGS=...)
	@scripts/venv.sh demo
	@$(BIN)/daylily-daemon demo $(strip $(demo_options) $(ARGS))

test: ## Do all set-up, then run the tests (ARGS="-k lease -n 0" goes to pytest, TESTS=tests/unit for some only)
	@scripts/system-packages.sh
	@scripts/venv.sh dev
	@$(BIN)/python -m tests.emulators
	@$(BIN)/python -m tests.promtool
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS) $(ARGS)

sim: ## Run the simulation with many storms (SEEDS=2500)
	@scripts/venv.sh dev
	@SEEDS=$(or $(SEEDS),2500) $(BIN)/python -m pytest -n $(JOBS) tests/sim $(ARGS)

soak: ## Run the simulation for long, every pair of crash points too (SEEDS=20000)
	@PAIRS=$(or $(PAIRS),1000000) $(MAKE) sim SEEDS=$(or $(SEEDS),20000)

mutate: ## Play mutants of domain and engine, from where the last run stopped (MINUTES=60, CHANGED=1, FRESH=1)
	@scripts/venv.sh dev
	@MINUTES=$(or $(MINUTES),60) CHANGED=$(CHANGED) FRESH=$(FRESH) $(BIN)/python -m tests.mutation $(ARGS)

reliability: ## Measure everything docs/reliability.md claims, and write it there
	@scripts/venv.sh dev
	@$(BIN)/python -m tests.reliability

check: ## Lint, formatting, types, and the rule of imports
	@scripts/venv.sh dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: ## Write the generated parts of the documentation anew
	@scripts/venv.sh dev
	@$(BIN)/python scripts/generate_docs.py
	@$(BIN)/python scripts/generate_dashboard.py
	@$(BIN)/python scripts/generate_man.py --write

lock: ## Write requirements/*.txt anew from pyproject.toml (UPGRADE=1: to the newest releases)
	@scripts/lock.sh

clean: ## Remove the environment, caches and build output
	rm -rf .venv .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
