# Every target makes its own virtual environment and installs what it needs. PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTENSION := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

.NOTPARALLEL: # the stamps share one environment
.PHONY: help demo test lint clean

help:
	@echo "make demo    search SciFact's abstracts for 300 claims, and compare the bits of every backend (no torch)"
	@echo "make test    install torch, faiss and the rest, and run the tests"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove the environment and everything that was built"

demo: $(VENV)/demo.stamp
	$(BIN)/pyengine demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info pyengine/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

# An editable install builds the C++ extension, so a change to its sources installs again. (Its warning is not for us.)
$(VENV)/demo.stamp: $(VENV)/pip.stamp $(EXTENSION)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e ".[cli,eval]"
	touch $@

# The tests' build poisons its outputs, and runs the AMX kernel over software tiles on machines that have no AMX.
$(VENV)/test.stamp: $(VENV)/pip.stamp $(EXTENSION)
	$(BIN)/python -m pip install torch==2.13.0
	CMAKE_ARGS=-DPYENGINE_TESTING=ON $(BIN)/python -m pip install -e ".[faiss,eval,cli,bench,dev]"
	touch $(VENV)/demo.stamp $@
