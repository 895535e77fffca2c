# Every target makes its own virtual environment and installs what it needs. PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HEAVY := .venv-integrations
SANITIZED := build/sanitize
SECONDS ?= 60
SEED ?= 0
EXTENSION := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

.NOTPARALLEL: # the stamps share one environment
.PHONY: help demo test test-integrations test-report ahead-of-time lint sanitize fuzz sanitize-fuzz clean

help:
	@echo "make demo    search SciFact's abstracts for 300 claims, dense, token by token and by words (BM25), and compare the"
	@echo "             bits of every backend (no torch); draws maxsim-alignment.png"
	@echo "make test    install torch, triton, faiss and the rest, and run the tests"
	@echo "make test-integrations   install LangChain, PyLate, MTEB and the other libraries that pyengine has faces for, and run"
	@echo "             the faces' tests, the libraries' own among them; writes pyengine/integrations/README.md"
	@echo "make test-report   the report of bench.report, looked at in Chromium (Debian: apt-get install chromium)"
	@echo "make ahead-of-time   compile every form of every Triton kernel for every chip, and write the table of it"
	@echo "make lint    ruff and mypy"
	@echo "make sanitize   the tests on an extension built with AddressSanitizer and UndefinedBehaviorSanitizer: all"
	@echo "                but those of torch, triton and faiss, which are not installed for it; TESTS=tests/test_index.py for some"
	@echo "make fuzz    hostile arrays and files, SECONDS=60 of them from SEED=0 on; make sanitize-fuzz: sanitized"
	@echo "make clean   remove the environment and everything that was built"

demo: $(VENV)/demo.stamp
	$(BIN)/pyengine demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --numprocesses=logical --dist=loadfile

test-integrations: $(HEAVY)/stamp
	$(HEAVY)/bin/python -m pytest tests/integrations tests/test_integration_*.py

test-report: $(VENV)/test.stamp
	@command -v chromium > /dev/null || { echo "make test-report needs Chromium: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pip install --quiet playwright matplotlib
	$(BIN)/python -m pytest tests/test_report.py tests/test_report_browser.py

ahead-of-time: $(VENV)/test.stamp
	$(BIN)/python -m bench.ahead_of_time --all

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

# Python is not built for the sanitizers, so their run-time comes first in every process (and libstdc++ with it, so
# that exceptions are intercepted). Leaks are not looked for: the interpreter leaves much to the end of the process. Nor is
# `free` of what `new` made, which pytrec_eval does.
# Without capture by file descriptor, so that the report of a process that dies is seen.
RUNTIME = $(foreach library,libasan.so libstdc++.so,$(shell $(CXX) -print-file-name=$(library)))
UNDER_SANITIZERS = cd $(SANITIZED)/tree && LD_PRELOAD="$(RUNTIME)" ASAN_OPTIONS=detect_leaks=0:alloc_dealloc_mismatch=0 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(CURDIR)/$(SANITIZED)/venv/bin/python -m

sanitize: $(SANITIZED)/tree
	$(SANITIZED)/cmake/check_kernels
	$(UNDER_SANITIZERS) pytest --capture=sys $(TESTS)

sanitize-fuzz: $(SANITIZED)/tree
	$(UNDER_SANITIZERS) tests.fuzz --seconds $(SECONDS) --seed $(SEED)

# A copy of the tree with that extension in it, so that the ordinary one stays where it is.
.PHONY: $(SANITIZED)/tree
$(SANITIZED)/tree: $(SANITIZED)/venv.stamp
	PATH="$(CURDIR)/$(SANITIZED)/venv/bin:$$PATH" cmake -S . -B $(SANITIZED)/cmake -G Ninja -DCMAKE_CXX_COMPILER=$(CXX) \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DPYENGINE_TESTING=ON -DPYENGINE_SANITIZE=ON -DPYENGINE_CUDA=OFF \
		-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/$(SANITIZED)/lib \
		-DPython_EXECUTABLE=$(CURDIR)/$(SANITIZED)/venv/bin/python \
		-Dpybind11_DIR=$$($(SANITIZED)/venv/bin/python -m pybind11 --cmakedir)
	$(SANITIZED)/venv/bin/cmake --build $(SANITIZED)/cmake
	rm -rf $@ && mkdir $@
	cp -a bench csrc kernels pyengine tests *.md *.toml $@
	rm -f $@/pyengine/*.so && cp $(SANITIZED)/lib/*.so $@/pyengine

# What the tests need, without torch, triton and faiss: their own libraries would be loaded under the sanitizers too.
$(SANITIZED)/venv.stamp: pyproject.toml
	$(PYTHON) -m venv $(SANITIZED)/venv
	$(SANITIZED)/venv/bin/python -m pip install --quiet numpy pytest pytest-benchmark hypothesis typer rich tqdm ir_measures \
		cmake ninja pybind11
	touch $@

clean:
	rm -rf $(VENV) $(HEAVY) build dist *.egg-info pyengine/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

# An editable install builds the C++ extension, so a change to its sources installs again. (Its warning is not for us.)
$(VENV)/demo.stamp: $(VENV)/pip.stamp $(EXTENSION)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e ".[cli,eval,plot,text]"
	touch $@

# The tests' build poisons its outputs, and runs the AMX kernel over software tiles on machines that have no AMX.
$(VENV)/test.stamp: $(VENV)/pip.stamp $(EXTENSION)
	$(BIN)/python -m pip install torch==2.13.0
	$(BIN)/python -m pip install --no-deps triton==3.9.0 # that of bench/results/ahead-of-time.md
	CMAKE_ARGS=-DPYENGINE_TESTING=ON $(BIN)/python -m pip install -e ".[faces,cli,text,bench,dev]"
	touch $(VENV)/demo.stamp $@

# The libraries must get along with the torch of the tests: a constraint keeps it, and what is left is checked.
$(HEAVY)/stamp: $(EXTENSION)
	$(PYTHON) -m venv $(HEAVY)
	$(HEAVY)/bin/python -m pip install --quiet --upgrade pip
	$(HEAVY)/bin/python -m pip install torch==2.13.0
	$(HEAVY)/bin/python -m pip install --no-deps triton==3.9.0
	$(HEAVY)/bin/python -m pip freeze | grep ^torch== > $(HEAVY)/torch.txt
	CMAKE_ARGS=-DPYENGINE_TESTING=ON $(HEAVY)/bin/python -m pip install -c $(HEAVY)/torch.txt -e ".[integrations]"
	$(HEAVY)/bin/python -m pip install --no-deps pylate colpali-engine late-interaction-kernels # see pyproject.toml
	$(HEAVY)/bin/python -m pip freeze | grep --line-regexp --file $(HEAVY)/torch.txt
	touch $@
