# `make` lists the targets.

PYTHON ?= python3
PORT ?= 3000
HOST ?= 127.0.0.1
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint format clean
.PHONY: bento image image-test sbom
.PHONY: bench-solo bench-mix bench-style bench-front bench-gpu bench-klein bench-train bench-accounts soak gpu-soak gpu-profile gpu-test
.PHONY: mini-vae mini-text mini-data mini-train mini-refine mini-styles mini-eval mini-release

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## Install everything into .venv (the other targets do it by themselves)

$(INSTALLED): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages; the first time takes minutes."
	$(BIN)/pip install --editable '.[dev]'
	@touch $@

serve: $(INSTALLED) ## Run the service on the embedded model (PORT=3000, HOST=127.0.0.1)
	@exec $(BIN)/bentoml serve service:EpithreIris --host $(HOST) --port $(PORT)

# What starts servers has the machine to itself; the rest shares two cores. A waiting thread that
# spins would take one of them from the one it waits for.
JOBS ?= 2
PYTEST = OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 $(BIN)/pytest

test: lint ## Lint, check types and run the tests (JOBS=2 at once)
	$(PYTEST) -n $(JOBS) --dist worksteal --ignore tests/serve
	$(PYTEST) tests/serve

lint: $(INSTALLED) ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What is shipped. BACKEND is what builds and runs images: docker, podman, ... A CONTAINERIZE command,
# called as COMMAND BENTO:TAG IMAGE:TAG, takes the place of `bentoml containerize`; it may leave an
# image.env with the variables that later calls of BACKEND need.
IMAGE ?= epithre-iris:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' iris/__init__.py)
CONTAINERIZE ?=
BACKEND ?= $(if $(CONTAINERIZE),podman,docker)
# uv, which locks the packages of a bento, does not read what pip is told
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
SHIP = PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=.

bento: $(INSTALLED) ## Build a bento: code, locked packages, exact models
	$(SHIP) bentoml build

image: $(INSTALLED) ## Build a bento and its image (IMAGE=name:tag, BACKEND=docker)
	$(SHIP) python deploy/image/build_image.py --image $(IMAGE) --backend $(BACKEND) \
		--containerize '$(CONTAINERIZE)'

image-test: image ## Build the image, start it the hardened way and drive it
	IMAGE=$(IMAGE) BACKEND=$(BACKEND) $(BIN)/pytest -m image tests/image

sbom: $(INSTALLED) ## Write what a bento is made of to build/sbom.json (CycloneDX)
	$(SHIP) python deploy/image/sbom.py --out build/sbom.json $(BENTO)

# How the embedded model is made; the steps in this order. Each goes on where it was stopped, and what
# has not been run here is taken from the model that is served. Work lies in models/iris-mini/runs;
# mini-release alone changes what is served.
MINI := models/iris-mini
MINUTES ?= 150
DECAY ?= 40
# minutes in which what the noise decides is taught loud; 30 where training starts from nothing
LOUD ?= 0
STYLE_MINUTES ?= 27
# a waiting thread that spins takes the core from the one it waits for
MINI_RUN = cd $(MINI) && OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 PYTHONPATH=.:../.. \
	../../$(BIN)/python -m

mini-vae: $(INSTALLED) ## iris-mini: fit the autoencoder's encoder, train its decoder
	$(MINI_RUN) training.train_decoder

mini-text: $(INSTALLED) ## iris-mini: train the text encoder to read captions
	$(MINI_RUN) training.train_text

mini-data: $(INSTALLED) ## iris-mini: render the training set
	$(MINI_RUN) training.prepare_examples
	$(MINI_RUN) training.prepare_examples --style dark --count 6000
	$(MINI_RUN) training.prepare_examples --style anime --count 30000

mini-train: $(INSTALLED) ## iris-mini: train the transformer (MINUTES=150, the last DECAY=40 slowing down)
	$(MINI_RUN) training.train_transformer --minutes $(MINUTES) --decay $(DECAY) --loud $(LOUD)
	$(MINI_RUN) training.export

mini-refine: $(INSTALLED) ## iris-mini: train the decoder on what the trained transformer makes
	$(MINI_RUN) training.refine_decoder
	$(MINI_RUN) training.export

mini-styles: $(INSTALLED) ## iris-mini: train the styles on the trained base (STYLE_MINUTES=27 each)
	$(MINI_RUN) training.train_style dark --minutes $(STYLE_MINUTES)
	$(MINI_RUN) training.train_style anime --minutes $(STYLE_MINUTES)

mini-eval: $(INSTALLED) ## iris-mini: measure it (results.json) and draw the contact sheet
	$(MINI_RUN) evaluation.evaluate --model runs/next
	$(MINI_RUN) evaluation.sheet --model runs/next

mini-release: $(INSTALLED) ## iris-mini: put the next version in the place of the one that is served
	$(MINI_RUN) training.release

# Comparisons, each with both sides in one run; results in bench/results.
BENCH = PYTHONPATH=. $(BIN)/python bench

bench-solo: $(INSTALLED) ## the engine beside the stock pipeline, one picture at a time
	$(BENCH)/solo.py

bench-mix: $(INSTALLED) ## unlike pictures at once over HTTP, beside a pipeline behind a lock
	$(BENCH)/mix.py

bench-style: $(INSTALLED) ## what styles cost a step
	$(BENCH)/style.py

bench-gpu: $(INSTALLED) ## FLUX.2-klein-4B with random weights on a GPU, beside the stock pipeline
	$(BENCH)/gpu.py

bench-klein: $(INSTALLED) ## every way to fit klein-4B into a GPU's memory, with random weights
	$(BENCH)/klein.py

bench-train: $(INSTALLED) ## train a style on klein-4B's architecture with random weights, on a GPU
	$(BENCH)/train.py

bench-front: $(INSTALLED) ## what the front adds to a picture
	$(BENCH)/front.py

bench-accounts: $(INSTALLED) ## what money costs: a hold and its capture, paid requests a second
	$(BENCH)/accounts.py

KILLS ?= 1000
soak: $(INSTALLED) ## kill the service at random moments (KILLS=1000) and check the money
	$(BENCH)/soak.py --kills $(KILLS)

gpu-profile: $(INSTALLED) ## Where a GPU's time goes in one picture
	$(BENCH)/gpu_profile.py

gpu-test: $(INSTALLED) ## Test what is done on a GPU alone
	$(BIN)/pytest -m gpu tests/engine

SOAK_MINUTES ?= 10
gpu-soak: $(INSTALLED) ## mixed work for SOAK_MINUTES=10 on a GPU, memory watched
	$(BENCH)/gpu_soak.py --minutes $(SOAK_MINUTES)

clean: ## Remove the virtual environment, the caches and what was built
	rm -rf $(VENV) build image.env .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
