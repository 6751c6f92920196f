# `make demo` and `make test` are all a fresh machine needs: each creates the virtual environment when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-long test-slow lint types format docs bench wheel lock screenshot clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/fyi-bench demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long and not slow and not gpu" $(ARGS)

# what `make test` leaves out and continuous integration runs right after it
test-long: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long and not slow and not gpu" $(ARGS)

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow" $(ARGS)

lint: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# the site, in build/site; a warning is an error
docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# the wheel in a bare environment
wheel: $(STAMP)
	VENV=$(VENV) .ci/wheel

# constraints.txt: the versions of a fresh environment, without the builds' names (+cpu), so that every machine finds them
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check ".[cluster,dashboard,dev,docs]"
	(echo '# made by `make lock`: the exact versions that were tested; pip install -e ".[dev]" -c constraints.txt'; \
	  build/lock/bin/pip freeze --exclude fyi-bench | sed 's/+[a-z0-9.]*$$//') > constraints.txt
	rm -rf build/lock

# ARGS="--quick", ARGS="growth", ARGS="--only dm dsa --budget 9m" …: docs/speed.md
bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

# the picture of a report in the docs, by headless Chromium; REPORT=…/report.html ARGS="--scheme dark --width 390"
REPORT ?= runs/reports/report.html
screenshot: $(STAMP)
	$(BIN)/python tests/screenshot.py $(REPORT) docs/report.png --height 2400 $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info
