# Targets with a comment after `##` are what `make help` shows.
PYTHON ?=
TORCH_INDEX ?=
# More arguments for `seal adapt` and `seal run` in `make demo`, for example ARGS='--set editor.k=2'.
ARGS ?=
# The seed that an earlier `make chaos` printed; repeats its faults.
SEED ?=
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
export PYTHON TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help secrets setup venv demo test test-deployment fuzz integration chaos chaos-short test-vllm e2e check lint types proto up down clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-16s %s\n", $$1, $$2}'

venv:
	@scripts/setup.sh

setup: venv ## Create .venv with all dependencies, and fetch the default model
	@$(BIN)/seal fetch

demo: setup ## Learn a text, then run one round of ReST^EM, on this machine, and show both results
	@scripts/demo.sh $(ARGS)

test: venv ## Tests of the code: unit, contract and security; no network, no GPU, no model
	$(BIN)/python -m pytest tests/unit tests/contract tests/security tests/gpu -m "not integration"

test-deployment: venv ## Tests of files: compose file, Kubernetes manifests, boards, alerts, documents
	$(BIN)/python -m pytest tests/deployment

fuzz: venv ## The fuzz tests with forty times as many examples, new ones each time, and coverage-guided (eight minutes)
	$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/pip install -q "atheris==3.0.0"
	SEAL_FUZZ_EXAMPLES=40 $(BIN)/python -m pytest tests/security -k fuzz
	for reader in answers self_edits; do $(BIN)/python -m tests.security.guided $$reader 60 || exit 1; done

integration: venv ## Tests with a real Valkey, real SQL and real gRPC between real processes
	$(BIN)/python -m pytest tests/integration tests/security tests/e2e -m integration

chaos-short: venv ## A run under every kind of fault, on SQLite, about three minutes: SEED=… repeats one
	SEAL_CHAOS_SEED=$(SEED) SEAL_CHAOS_TRIALS=150 SEAL_CHAOS_DECKS=1 $(BIN)/python -m pytest -s tests/integration/chaos -k "not postgresql"

chaos: venv ## The same, longer, on PostgreSQL too: 600 trials, every fault four times: SEED=… repeats one
	SEAL_CHAOS_SEED=$(SEED) SEAL_CHAOS_TRIALS=600 SEAL_CHAOS_DECKS=4 $(BIN)/python -m pytest -s tests/integration/chaos

test-vllm: setup ## Against a real vLLM on the CPU, in its own environment (3.5 GB, about ten minutes)
	@scripts/setup_vllm.sh
	$(BIN)/python -m pytest tests/integration/vllm -m vllm -s

e2e: setup ## The README's commands on the real model, and the stack in containers under every fault (ten minutes)
	$(BIN)/python -m pytest tests/e2e -m e2e

check: lint types ## Lint, types, import contracts, protos: all static checks
	@scripts/check_protos.sh

lint: venv ## ruff, its formatter and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: venv ## mypy, strict
	$(BIN)/mypy

proto: venv ## Generate gen/ from protos/
	$(BIN)/buf format -w --path protos/seal
	$(BIN)/python scripts/generate_protos.py

secrets: venv ## Create certificates and passwords of the stack in containers, once
	@scripts/secrets.sh

up: ## Start the stack in containers, with the profile for this machine
	@scripts/check_docker.sh
	@$(MAKE) --no-print-directory setup
	@scripts/up.sh $(ARGS)

down: ## Stop the embedded stack and the one in containers
	@[ ! -x $(BIN)/seal ] || $(BIN)/seal down
	@! docker compose version >/dev/null 2>&1 || docker compose --profile '*' down

clean: down ## Stop the stack, then remove the environment, the caches and the data folder
	rm -rf $(VENV) .venv-vllm .seal .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
