# make demo   the main job, end to end (on real data: make demo DATA=folder-of-posed-images)
# make test       the tests but for the long ones: minutes; on up to four cores
# make test-long  the long ones: whole jobs, end to end; test-all: both
# make lint   style and types, as CI checks them
# make docs   the API reference in build/docs, from the docstrings; docs/index.md lists the documents
# make tutorial   runs the tutorial's commands and puts figures and pictures of this version into the page (most of an hour on two busy cores)
# make soak   20 minutes of faults against the localizer, and 5000 fuzzed messages of each kind
# make sample   a small ready map, and a bag to try the node with: results/sample, and the archive for a release
# make bench-peers   this package beside what people use today, on the data sets of docs/benchmarks.md in data, or DATA=folder (hours; goes on where it was)
# make bench-check   has it become slower or worse than benchmarks/committed.json?
# All do their own set-up in .venv; it takes minutes the first time and a moment after that.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=

# Threads that spin while they wait for each other make a busy machine ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup test test-long test-all soak demo sample docs tutorial bench bench-peers bench-check lint clean clean-all help

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(MAKEFILE_LIST)

# Steps are skipped when the stamps in .venv say that nothing they depend on has changed.
setup:
	@$(PYTHON) .ci/setup.py

# A process for each core, four at most (each holds the encoder); one that has nothing left takes from the others.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 10

test: setup
	$(PYTEST) -m "not long"

test-long: setup
	$(PYTEST) -m long

test-all: setup
	$(PYTEST)

soak: setup
	DIMM_FUZZ_CASES=5000 $(BIN)/python -m pytest test/ros/test_fuzz.py --timeout 3000
	$(BIN)/python -m benchmarks.soak

demo: setup
	$(BIN)/dimm demo $(if $(DATA),--data $(DATA))

sample: setup
	$(BIN)/dimm sample results/sample

docs: setup
	$(BIN)/python docs/api.py

tutorial: setup
	$(BIN)/python -m benchmarks.tutorial

bench: setup
	$(BIN)/python -m benchmarks

# Installs what the peers need beside this package.
bench-peers:
	@$(PYTHON) .ci/setup.py peers
	$(BIN)/python -m benchmarks.peers $(or $(DATA),data)

bench-check: setup
	$(BIN)/python -m benchmarks.check

# Everything that is checked, and how, stands in pyproject.toml; CI runs this.
lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf build install log results .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

clean-all: clean
	rm -rf $(VENV)
