# make demo   from nothing to crystals: install, train for two minutes, draw 200 crystals, make their structures;
#             then a small discovery, whose candidates are relaxed with CHGNet
# make test   install with the development tools, lint, check types, test
# make docs   build the documentation's site in build/site; it installs the site's tools alone, not the package
#
# TORCH_INDEX chooses where PyTorch comes from. On Linux its default wheels bring CUDA along; without a GPU say
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
OUT ?= runs/demo
# processes that share the tests
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test lint docs clean
.DELETE_ON_ERROR:

$(VENV)/torch.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "crystalgfn needs Python 3.11 or newer, but $(PYTHON) is " + sys.version.split()[0] + ": name another one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt setuptools
	$(PIP) install -q $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	touch $@

$(VENV)/run.stamp: $(VENV)/torch.stamp pyproject.toml
	$(PIP) install -q --no-build-isolation -c constraints.txt -e .
	touch $@

$(VENV)/demo.stamp: $(VENV)/run.stamp
	$(PIP) install -q --no-build-isolation -c constraints.txt -e ".[relax]"
	touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp pyproject.toml
	$(PIP) install -q --no-build-isolation -c constraints.txt -e ".[dev,docs,wandb,app]"
	touch $@ $(VENV)/run.stamp

# The site reads the package's sources and does not import torch, so the package is not installed.
$(VENV)/docs.stamp: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	touch $@

demo: $(VENV)/demo.stamp
	rm -rf $(OUT)
	$(BIN)/crystalgfn train trainer=demo out=$(OUT)
	$(BIN)/crystalgfn sample sampler=$(OUT)/sampler n=200 out=$(OUT)/crystals
	$(BIN)/crystalgfn discover chemsys=Sr-Ti-O reference=experiment budget=10 shortlist=15 out=$(OUT)/discovery

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Compiled modules are kept, or every process that a test starts would compile them anew.
test: lint
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache $(VENV)
