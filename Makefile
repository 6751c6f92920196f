# `make demo` and `make test` are all a fresh machine needs: each creates the virtual environment when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint format bench screenshot clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/fyi-bench demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow" $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# ARGS="--quick", ARGS="growth", ARGS="--only dm dsa --budget 9m" …: docs/speed.md
bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

# the picture of a report in the docs, by headless Chromium; REPORT=…/report.html ARGS="--scheme dark --width 390"
REPORT ?= runs/reports/report.html
screenshot: $(STAMP)
	$(BIN)/python -m fyi_bench.present.report.screenshot $(REPORT) docs/report.png --height 2400 $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info
