# The developer's commands; CI calls the same ones.
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
BIN := $(VENV)/bin
# Tests and Ray workers share the machine's cores.
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)
export TOKENIZERS_PARALLELISM := false
APT := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## the environment, with the versions of constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## the main job: mlflow run . -P task=closed_qa
	PATH="$(abspath $(BIN)):$$PATH" mlflow run . -P task=closed_qa

browser: ## headless Chromium for the tests of the report, from Debian's packages; nothing where there is one
	@command -v chromium chromium-browser google-chrome >/dev/null || $(APT) >/dev/null || \
		{ apt-get update -qq && $(APT) >/dev/null; }

test: setup ## unit, contract and integration tests, and a small alignment of the real model
	$(BIN)/python -m pytest tests

test-unit: setup ## the tests that need nothing
	$(BIN)/python -m pytest tests/unit

test-vllm: $(VENV_VLLM)/.ready ## vLLM's engines, in an environment of vLLM's own, on CPU
	LLAMADUO_REQUIRE=vllm $(VENV_VLLM)/bin/python -m pytest tests/contract/test_engines.py \
		tests/contract/test_writers.py

# What vLLM pins is installed as it wants it, and then transformers and peft are made ours: the template's way with
# hostile text is that of our version. The registry's builds of torchvision and its kin do not match the CPU's torch.
$(VENV_VLLM)/.ready: requirements-vllm.txt constraints.txt
	@test -x $(VENV_VLLM)/bin/python || $(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm.txt
	$(VENV_VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		$$(grep -E '^(transformers|peft)==' constraints.txt) -e .
	@touch $@

test-all: setup ## everything, the whole main job included
	LLAMADUO_TEST_ALL=1 $(BIN)/python -m pytest tests

lint: setup ## format, lint, types, import contracts, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir $(VENV)/site

docs: setup ## the documentation on 127.0.0.1:8001
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

reference: setup ## the parts of docs/reference/ that are made of the code
	$(BIN)/python -m tools.reference

bench: setup ## every benchmark, into benchmarks/results and the table of benchmarks/README.md
	$(BIN)/python -m benchmarks

clean: ## what can be made again; finished stages, paid replies and MLflow's files stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info

.PHONY: help setup demo browser test test-unit test-vllm test-all lint docs reference bench clean
