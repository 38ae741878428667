# What is done with this checkout: `make help` lists it. CI runs the same targets (.ci/run).
#
# PYTHON=python3.12   which Python the environment is made with (3.11 or newer)
# ARGS="-k names"     more arguments for demo, test, e2e, bench and soak
# JOBS=1              over how many processes test and e2e are spread, a file at a time (3: most of them wait)

PYTHON ?= python3
ARGS ?=
JOBS ?= 3
SPREAD := -n $(JOBS) --dist loadfile
VENV := .venv
BIN := $(VENV)/bin

# The environment is made once for each state of what it is made from.
STATE := $(shell { cat requirements/dev.txt pyproject.toml tools/setup.sh; $(PYTHON) -V; } 2>&1 | cksum | cut -d ' ' -f 1)
READY := $(VENV)/ready-$(STATE)

.DEFAULT_GOAL := help
.PHONY: help setup demo test e2e e2e-kubernetes coverage lint fmt bench soak lock proto clean packages

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY) ## make the environment, .venv, with the packages of requirements/dev.txt

$(READY):
	@sh tools/setup.sh $(PYTHON) $(VENV)
	@rm -f $(VENV)/ready-*
	@touch $@

demo: setup ## a cluster of five agents on this machine: pulls an image from peers while one of them dies
	@$(BIN)/p2pmirror demo $(ARGS)

test: setup packages ## run the tests; what needs root and real parts is left out, by name, where these are missing
	@$(BIN)/pytest $(SPREAD) $(ARGS)

e2e: setup packages ## run the long tests too: repeats, many kills, every version of containerd
	@$(BIN)/pytest --long $(SPREAD) $(ARGS)

e2e-kubernetes: setup packages ## install the chart on a real Kubernetes of three nodes, made here (builds it once: some ten minutes)
	@sh tests/kubernetes/packages.sh
	@$(BIN)/python -m tests.kubernetes.builds
	@$(BIN)/pytest --kubernetes -s tests/kubernetes $(ARGS)

coverage: setup ## hold the modules that only think to every branch
	@$(BIN)/python -m tests.thinking

lint: setup ## check style, types and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: setup ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup packages ## measure side by side with nginx and docker-registry
	@$(BIN)/python -m benchmarks $(ARGS)

soak: setup ## eight agents under random pulls and faults for ten minutes (CI: one), then a look at what is left behind
	@$(BIN)/python -m soak --seconds $(if $(filter true,$(CI)),60,600) $(ARGS)

lock: setup ## resolve the packages and write them with their hashes
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev --extra sim pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		-c requirements/dev.txt pyproject.toml -o requirements/run.txt

proto: setup ## generate the code for containerd's messages
	$(BIN)/python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. p2pmirror/store/containerd/api/containerd.proto

clean: ## remove what the tools keep between runs; the environment stays
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov build dist

# Where they cannot be installed the tests that need them say so: left out here, failed in CI.
packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh tests/lab/packages.sh || true; fi
