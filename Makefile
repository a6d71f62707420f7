# make train      set up .venv when missing, then train; ARGS="domain=vision model=vim scan=cross" for another run
# make test       lint and the test suite
# make test-all   the slow tests too
# make bench      measure speed and memory; writes experiments/results/
# make readme     write the tables of README.md and experiments/RESULTS.md from cards and results
# make gpu        on a machine with a card: check every kernel, then measure it; installs nothing where PyTorch and Triton are
PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 --version >/dev/null 2>&1 && echo python3.12 || echo python3)
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
ARGS ?=

.PHONY: setup train test test-all bench readme gpu lint format clean

setup: $(READY)

$(READY): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 13)))' || \
		{ echo "PolyMamba needs Python 3.11 or 3.12; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Type: make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip install --quiet --python $(PY) -c constraints.txt -e ".[dev]" || \
		$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(READY)

train: $(READY)
	$(PY) train.py $(ARGS)

# A worker a core, each with one thread: a file's tests stay together.
WORKERS := -n auto --dist loadfile

test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" $(WORKERS) $(ARGS)

test-all: lint
	$(PY) -m pytest $(ARGS)

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(READY)
	$(PY) -m uv pip install --quiet --python $(PY) -c constraints.txt -e ".[dev,bench]"
	$(PY) -m polymamba.benchmarks $(ARGS)

readme: $(READY)
	$(PY) docs/tables.py

# The interpreter asked for, else the first that has PyTorch and Triton: a machine with a card may have no network.
GPU_PYTHONS := $(if $(filter command line environment,$(origin PYTHON)),$(PYTHON)) $(PY) python3 $(PYTHON)
HAS_TORCH := import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, ("torch", "triton"))))

gpu:
	@for python in $(GPU_PYTHONS); do \
		if $$python -c '$(HAS_TORCH)' 2>/dev/null; then exec $$python benchmarks/gpu/run.py $(ARGS); fi; \
	done; \
	$(MAKE) setup && exec $(PY) benchmarks/gpu/run.py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info
