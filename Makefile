# isotrack: `make help` lists the targets. Everything else is built when needed.
SHELL := /bin/bash
PYTHON ?= python3
CACHE ?= $(or $(ISOTRACK_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/isotrack)
UV := $(CACHE)/uv/0.13.8/bin/uv
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DEV := $(BIN)/python -m isotrack_dev

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint faults fuzz bench generate verify image lock clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isotrack needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(CACHE)/uv/0.13.8
	@$(CACHE)/uv/0.13.8/bin/pip install -q --require-hashes -r requirements/uv.lock

$(STAMP): $(UV) requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) $(VENV)
	@$(UV) pip sync -q --python $(BIN)/python --require-hashes requirements/dev.lock
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP) ## Make .venv with the console scripts isotrack, isotrack-operator, isotrack-recorder

lock: $(UV) ## Resolve pyproject.toml again into requirements/*.lock (hashes, no index URLs)
	@for extra in recorder operator; do \
	  $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    --extra $$extra pyproject.toml -o requirements/$$extra.lock; done
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    --extra recorder --extra operator --extra dev pyproject.toml requirements/build.in -o requirements/dev.lock
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/build.in -o requirements/build.lock
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate requirements/fuzz.in -o requirements/fuzz.lock
	@echo 'uv==0.13.8' | $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate - -o requirements/uv.lock

demo: $(STAMP) ## Watch a real Kubernetes record a real LiveKit call of two people (KUBECONFIG=… uses your cluster)
	@$(DEV) demo $(ARGS)

# Real calls beside each other on a machine that others share: a processor withheld for a second fails a test. It is judged once more (twice where
# media are judged in real time), five or six in a run at most, and each failure is printed as well: see CONTRIBUTING.
AGAIN := --reruns 1 --max-suite-reruns 5 --rerun-show-tracebacks
AGAIN_IN_REAL_TIME := --reruns 2 --max-suite-reruns 6 --rerun-show-tracebacks

test: $(STAMP) ## Everything CI runs: lint, unit, integration, fault and cluster tests on real parts
	@$(MAKE) --no-print-directory lint
	@$(DEV) build
	# Most of these wait for others most of the time, so two share two processors with a cluster. Cluster tests, on one worker, take longest: first.
	$(BIN)/pytest tests/cluster tests/integration tests/unit -m 'not realtime' -n 2 --dist loadfile --no-loadscope-reorder $(AGAIN) $(ARGS)
	# One at a time: these judge real media in real time, and libwebrtc encodes it on the same processors.
	$(BIN)/pytest tests/integration tests/faults tests/cluster -m 'realtime and not faults' $(AGAIN_IN_REAL_TIME) $(ARGS)

lint: $(STAMP) ## Style, types, layer contracts, generated files
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(MAKE) --no-print-directory verify

faults: $(STAMP) ## Kill recordings hundreds of times, break a cluster, write docs/reliability.md; some 45 minutes, as root (ARGS=--help)
	@$(DEV) build
	@$(BIN)/python -m faults $(or $(ARGS),--cluster --report)

fuzz: $(STAMP) ## A million broken inputs for each parser, about an hour on two cores (ARGS="sdp --seconds 60", ARGS=--help)
	@$(UV) pip install -q --python $(BIN)/python --only-binary :all: --require-hashes -r requirements/fuzz.lock 2>/dev/null || true # no atheris here: own engine
	@$(BIN)/python -m fuzz $(ARGS)

generate: $(STAMP) ## Write crds/, the chart's copies and docs/reference/ anew from the models
	@$(BIN)/python -m isotrack_api.generate

verify: $(STAMP) ## Fail when generated files are not what the models say
	@$(BIN)/python -m isotrack_api.generate --check

bench: $(STAMP) ## Cost per participant beside a C floor, Pion and MediaRecorder; start-up times; ten minutes (ARGS=--help)
	@$(BIN)/python -m bench $(ARGS)

image: $(STAMP) ## Build the recorder's and the operator's image with buildah
	@$(DEV) images $(ARGS)

clean: ## Remove the virtual environment and build results of this checkout (caches stay)
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
