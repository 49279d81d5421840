# Every target does its own set-up: a fresh machine needs python3 (>= 3.11) with venv, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a process: two pytest workers on two cores oversubscribe otherwise (spinning OpenMP made training 6x slower).
ONE := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MKL_NUM_THREADS=1

.PHONY: install lint pytest test test-slow demo clean

install: $(STAMP)

# Modules are compiled when they are first imported: most of those of torch never are.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile "torch>=2.9" "torchvision>=0.24"
	$(BIN)/python -m pip install --quiet --no-compile -e ".[test]"
	touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Beside each other: mypy is one process, and some tests wait for others.
test: $(STAMP)
	$(MAKE) -j 2 lint pytest

pytest: $(STAMP)
	$(ONE) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(STAMP)
	$(ONE) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

demo: $(STAMP)
	$(BIN)/citlr demo --out demo

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
