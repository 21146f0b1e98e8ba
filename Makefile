# Each target also works pasted line by line; CI calls the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2
export OMP_WAIT_POLICY ?= passive
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help setup prometheus controlplane demo check test lock bench-forecast bench-recipe bench-peaks bench-speed bench-controller bench-window bench-scaling bench-oversubscription bench-packing bench-nodes bench-knee bench-vertical docs package slim clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## virtual environment with everything, from the lock file

$(VENV)/.installed: pyproject.toml requirements.lock tools/setup.sh
	bash tools/setup.sh $(VENV)
	@touch $@

prometheus: ## a Prometheus for the demo and the tests, in the cache folder
	@bash tools/prometheus.sh

controlplane: ## a Kubernetes control plane for the tests, in the cache folder (the first time takes ten minutes)
	@bash tools/controlplane/build.sh

demo: setup ## the whole path on a made-up cluster: train, simulate, report
	@bash tools/prometheus.sh >/dev/null || echo "no Prometheus to be had: the demo reads Parquet instead"
	$(BIN)/foresize demo

check: setup ## format, lint, imports, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: check prometheus controlplane ## everything, the end-to-end tests on a real control plane included
	$(BIN)/pytest -n 2 --dist loadgroup

lock: setup ## resolve the dependencies anew
	$(BIN)/uv pip compile pyproject.toml --extra pipelines --extra dask --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --upgrade --output-file requirements.lock

# Tasks with a stored result are skipped unless AGAIN=1; ONLY="name …" are those whose names begin so.
WHICH = $(addprefix --only ,$(ONLY)) $(if $(AGAIN),--again)

bench-forecast: setup ## accuracy on public traces: make bench-forecast TRACES=folder [ONLY="nasa crane"] [AGAIN=1]
	$(BIN)/python -m benchmarks.forecast $(TRACES) $(WHICH)

bench-recipe: setup ## an earlier prototype's recipe on the same tasks: make bench-recipe TRACES=folder
	$(BIN)/python -m benchmarks.recipe $(TRACES) $(WHICH)

bench-peaks: setup ## peaks on public traces, beside the highest usage ever seen: make bench-peaks TRACES=folder
	$(BIN)/python -m benchmarks.peaks $(TRACES) $(WHICH)

bench-speed: setup ## speed of forecasts and training on made-up fleets: make bench-speed SIZES="1000 10000"
	$(BIN)/python -m benchmarks.forecast_speed $(or $(SIZES),1000)

bench-controller: setup controlplane ## the controller's tick in memory, and a fleet on a real control plane
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.controller_tick $(or $(SIZES),1000 10000 50000)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.controller_tick 10000 --serving
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.controller_tick 10000 --steady $(or $(TICKS),1000)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.controller_cluster $(or $(OBJECTS),1000)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.hpa_cluster $(or $(OBJECTS),1000) --hpa-alone

bench-window: setup prometheus ## reading a fleet's usage, whole and appended to: make bench-window SIZES="500 1000"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.window $(or $(SIZES),500 1000)

bench-scaling: setup ## foresize, its peers and the oracle replayed on public traces: make bench-scaling TRACES=folder
	$(BIN)/python -m benchmarks.scaling $(TRACES) $(WHICH)

bench-oversubscription: setup ## what may be oversold of nodes, and how often it was too much: make bench-oversubscription TRACES=folder
	$(BIN)/python -m benchmarks.oversubscription $(TRACES) $(WHICH)

bench-packing: setup ## what could be hosted where placement goes by each method: make bench-packing TRACES=folder
	$(BIN)/python -m benchmarks.packing $(TRACES) $(WHICH)

bench-nodes: setup ## how long it takes to tell the peaks of 1,000 nodes, and to score a candidate
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.nodes

bench-knee: setup ## how near the learned knee of throttling comes to a made-up one
	$(BIN)/python -m benchmarks.knee

bench-vertical: setup ## requests of containers beside the VPA and Autopilot on public traces: make bench-vertical TRACES=folder
	$(BIN)/python -m benchmarks.vertical $(TRACES) $(WHICH)

docs: setup ## regenerate docs/settings.md and docs/api-reference.md
	$(BIN)/python -m tools.settings_page > docs/settings.md
	$(BIN)/python -m tools.crd_page > docs/api-reference.md

slim: ## what the controller's profile costs: install size, import time, memory
	bash tools/slim.sh

package: setup ## sdist and wheel in dist/
	$(BIN)/uv build

clean: ## remove what the demo and the tests left in the tree
	rm -rf .foresize dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
