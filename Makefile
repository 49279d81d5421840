# Every target does its own set-up: a fresh machine needs python3 (>= 3.11) with venv, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
# One thread a process: two pytest workers on two cores oversubscribe otherwise (spinning OpenMP made training 6x slower).
# Compiled modules are kept, also where the environment says otherwise: hundreds of tests start a process that imports torch.
ONE := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MKL_NUM_THREADS=1

.PHONY: help install lint pytest test test-slow demo docs package clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## the virtual environment .venv

# Modules are compiled when they are first imported: most of those of torch never are.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile "torch>=2.9" "torchvision>=0.24"
	$(BIN)/python -m pip install --quiet --no-compile -e ".[test]"
	touch $(STAMP)

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Beside each other: mypy is one process, and some tests wait for others.
test: $(STAMP) ## everything that a change has to pass
	$(MAKE) -j 2 lint pytest

# A worker for each of two cores: tests that start processes fill what others leave, and a third worker collects once more.
pytest: $(STAMP) ## the tests without the linters
	$(ONE) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(STAMP) ## tests of more than a minute
	$(ONE) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

demo: $(STAMP) ## two classifiers of an embedded world audited, in some minutes
	$(BIN)/citlr demo --out demo

# The site has needs of its own, which no test has.
$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-compile -e ".[docs]"
	touch $(DOCS)

docs: $(DOCS) ## the site, in site/: tutorials run, links checked
	PYTHONPATH=tools $(ONE) $(BIN)/python -m docsite

package: $(DOCS) ## wheel and sdist in dist/, the wheel tried in an environment of its own
	$(ONE) $(BIN)/python tools/package.py --python $(PYTHON)
	$(BIN)/hadolint Dockerfile

clean: ## take away what was made here
	rm -rf $(VENV) demo site build dist .pytest_cache .mypy_cache .ruff_cache
