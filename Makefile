PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

lock: ## resolve the packages and write them with their hashes
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra dev --extra sim pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		-c requirements/dev.txt pyproject.toml -o requirements/run.txt
