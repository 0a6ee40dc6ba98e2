# Everything runs in .venv. Each target first creates it if it is missing or if the pinned versions have changed.

PYTHON ?= python3
RUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
UV := uv==0.13.9
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/ready-$(RUNTIME)

export BENTOML_DO_NOT_TRACK := true
export ORT_DISABLE_TELEMETRY := 1

VERSIONS := --constraint requirements.lock
INSTALL := $(BIN)/uv pip install --python $(BIN)/python $(VERSIONS) --editable

DIST ?= dist
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: help setup demo serve site test test-lowest test-newest test-all gpu-check gpu-bundle lint docs docs-serve container release lock
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(READY) ## install everything into .venv, in pinned versions (onnxruntime-gpu if there is an NVIDIA GPU)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "Python 3.11 to 3.14 is needed, " \
		+ "$(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.13")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet $(UV)
	$(INSTALL) '.[$(RUNTIME),serving,training,shards,dev]'
	@touch $@

demo: setup ## train, export and serve a small GAN and request a grid of digits, in four to five minutes; writes demo/
	@$(BIN)/python examples/demo.py

serve: setup ## serve MNIST_GAN_MODEL, or the newest model of the BentoML store, or the pretrained one, on port 3000
	$(BIN)/bentoml serve

site: setup ## write the playground with the pretrained model as static files to dist/site/; needs npm
	$(BIN)/export-site models/pretrained/mnist.onnx --out $(DIST)/site

test: setup ## run the tests except the slow ones; takes minutes
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile

test-lowest: ## run the same tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	rm -rf .venv-lowest
	$(MAKE) test VENV=.venv-lowest VERSIONS='--resolution lowest-direct --only-binary :all:'

test-newest: ## run the same tests with the newest versions that pyproject.toml allows, in .venv-newest
	rm -rf .venv-newest
	$(MAKE) test VENV=.venv-newest VERSIONS='--resolution highest --only-binary :all:'

test-all: test ## run all tests
	$(INSTALL) '.[ray,docs]'
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile

gpu-check: ## check correctness, speed and quality on a GPU, in nine minutes; writes gpu-check/
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu_check --out gpu-check

gpu-bundle: setup ## collect what gpu-check needs on a machine without a network, in gpu-bundle/
	$(BIN)/python -m benchmarks.gpu_check.bundle

lint: setup ## check formatting, code, types, imports between packages, and wording
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tools.check_wording

docs: setup ## build the documentation site in site/
	$(INSTALL) '.[docs]'
	$(BIN)/python -m tools.documentation build

docs-serve: setup ## show the documentation site on http://localhost:8000 and rebuild it at every change
	$(INSTALL) '.[docs]'
	$(BIN)/python -m tools.documentation serve

container: setup ## build the container image with docker or buildah, and try it
	@$(BIN)/python -m tools.container mnist-gan:$(VERSION)$(MNIST_GAN_IMAGE:%=-%)

release: setup ## write the Bento, the page without a server, the SBOMs of the images, and SHA256SUMS to dist/; needs npm
	export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		&& mkdir -p $(DIST) && $(BIN)/python deploy/release.py $(DIST) $(VERSION)
	cd $(DIST) && sha256sum *.bento *.tar.xz *.cdx.json > SHA256SUMS

COMPILE := $(BIN)/uv pip compile pyproject.toml --generate-hashes --no-annotate --no-header --no-emit-index-url

lock: setup ## pin the newest versions of all dependencies
	$(COMPILE) --all-extras --universal --python-version 3.11 --upgrade --output-file requirements.lock
	$(COMPILE) --extra cpu --extra serving --universal --python-version 3.13 --constraint requirements.lock \
		--output-file serving/http/requirements-cpu.txt
	$(COMPILE) --extra gpu --extra serving --universal --python-version 3.13 --constraint requirements.lock \
		--output-file serving/http/requirements-cuda.txt
