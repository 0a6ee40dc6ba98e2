# Everything runs in .venv, which every target makes first if it is not there or its pins have changed.

PYTHON ?= python3
RUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
UV := uv==0.13.9
BIN := $(CURDIR)/.venv/bin
READY := .venv/ready-$(RUNTIME)

export BENTOML_DO_NOT_TRACK := true
export ORT_DISABLE_TELEMETRY := 1

DIST ?= dist
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: help setup demo serve test test-all gpu-check gpu-bundle lint container release lock
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(READY) ## install everything, pinned, into .venv (onnxruntime-gpu where there is an NVIDIA GPU)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " \
		+ sys.version.split()[0] + ": try make PYTHON=python3.13")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet $(UV)
	$(BIN)/uv pip install --python $(BIN)/python --constraint requirements.lock --editable '.[$(RUNTIME),serving,training,shards,dev]'
	@touch $@

demo: setup ## train, export, serve and ask for a sheet of digits, in four to five minutes; writes demo/
	@$(BIN)/python examples/demo.py

serve: setup ## serve MNIST_GAN_MODEL, else the newest model in the store, else the one that ships, on port 3000
	$(BIN)/bentoml serve

test: setup ## the tests, in minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile

test-all: test ## the tests, and the long ones
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[ray]'
	$(BIN)/pytest -m slow

gpu-check: ## what only a GPU can show, in nine minutes: correctness, speed, quality; writes gpu-check/
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu_check --out gpu-check

gpu-bundle: setup ## what gpu-check needs on a machine without a network, in gpu-bundle/
	$(BIN)/python -m benchmarks.gpu_check.bundle

lint: setup ## formatting, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

container: setup ## build the container image, with docker or buildah, and try it
	$(BIN)/pytest -m slow tests/deploy/test_container.py

release: setup ## the wheel, the Bento of the generator that ships, what the images hold, and their hashes, in dist/
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		&& $(BIN)/uv build --quiet --wheel --out-dir $(DIST) && $(BIN)/python deploy/release.py $(DIST) $(VERSION)
	cd $(DIST) && sha256sum *.whl *.bento *.cdx.json > SHA256SUMS

COMPILE := $(BIN)/uv pip compile pyproject.toml --generate-hashes --no-annotate --no-header --no-emit-index-url

lock: setup ## pin the newest versions of everything
	$(COMPILE) --all-extras --universal --python-version 3.11 --upgrade --output-file requirements.lock
	$(COMPILE) --extra cpu --extra serving --universal --python-version 3.13 --constraint requirements.lock \
		--output-file serving/http/requirements-cpu.txt
	$(COMPILE) --extra gpu --extra serving --universal --python-version 3.13 --constraint requirements.lock \
		--output-file serving/http/requirements-cuda.txt
