# One command per wish. Everything is installed into $(VENV); nothing else on the machine is touched.
#   make demo    the whole package at work on 188 molecules       make test    all tests
#   make check   tests, lint, types                               make bench   measured against the rivals
#   make docs    the documentation with its gallery, in out/docs
# Variables: PYTHON (an interpreter >= 3.11), PIP_ARGS (more arguments for pip, e.g. another index),
#            PYTEST_ARGS (default: two processes), DEMO_ARGS (e.g. "--limit 40").

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2
DEMO_ARGS ?=
BENCH_ARGS ?=
VENV ?= .venv
BENCH_VENV ?= .venv-bench
OLDEST_VENV ?= .venv-oldest
MINIMAL_VENV ?= .venv-minimal

PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-stamp
BENCH_STAMP := $(BENCH_VENV)/.setup-stamp
OLDEST_STAMP := $(OLDEST_VENV)/.setup-stamp
MINIMAL_STAMP := $(MINIMAL_VENV)/.setup-stamp
export MPLBACKEND := Agg

.PHONY: setup demo test bounds lint types check docs docs-quick bench bench-history classification package browser cuda oldest minimal clean
.DEFAULT_GOAL := check
# An environment is made once and kept, though only its stamp is a goal.
.PRECIOUS: %/bin/python

setup: $(STAMP)

# Debian's Python may lack ensurepip. Then: an empty environment, filled by the pip outside; failing that, virtualenv.
%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "markovot needs Python >= 3.11; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $* || { \
	  rm -rf $*; \
	  $(PYTHON) -m venv --without-pip $* && \
	  $(PYTHON) -m pip --python $*/bin/python install $(PIP_ARGS) pip; \
	} || { rm -rf $*; $(PYTHON) -m virtualenv $*; } || { \
	  rm -rf $*; \
	  echo "No way to make a virtual environment: install python3-venv, pip >= 22.3, or virtualenv." >&2; exit 1; }

# torch first and alone, so that its index, if PIP_ARGS names one, decides which build it is.
$(STAMP): pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet $(PIP_ARGS) "$$(grep '^torch==' constraints.txt)"
	$(PY) -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(PY) -m markovot.demo $(DEMO_ARGS)

# Processes that share the cores: with torch's threads in each, they wait for one another. Tests of threads ask for them.
test bounds oldest minimal: export OMP_NUM_THREADS ?= 1

test: $(STAMP)
	$(PY) -m pytest $(PYTEST_ARGS)

# The tests of solvers with kernels that check every index, as numba's arrays and our vector lanes both do. Slow.
BOUNDS_TESTS := $(patsubst %,tests/test_%.py,transport_cost discounted_wl exact pairwise neighbours bounds average horizons \
  gradients newton walks engines certificate debiasing)

bounds: $(STAMP)
	NUMBA_BOUNDSCHECK=1 $(PY) -m pytest $(PYTEST_ARGS) $(BOUNDS_TESTS)

lint: $(STAMP)
	$(PY) -m ruff check .

types: $(STAMP)
	$(PY) -m mypy

check: test lint types

SPHINX := $(PY) -m sphinx -W --keep-going -d out/docs-work

# The site, in out/docs: the gallery's scripts run, and so does the Python on the pages. Warnings are errors.
docs: $(STAMP)
	$(SPHINX) -b html docs out/docs
	$(SPHINX) -b doctest -D plot_gallery=0 docs out/docs-doctest

# The same in a minute or two: scripts of the gallery that have not run yet are shown without their pictures.
docs-quick: $(STAMP)
	$(SPHINX) -b html -D plot_gallery=0 docs out/docs
	$(SPHINX) -b doctest -D plot_gallery=0 docs out/docs-doctest

# The rivals pin and pull in a lot, so they have an environment of their own, beside markovot. One that cannot be
# installed is named on the page, and the others are measured.
$(BENCH_STAMP): benchmarks/requirements.txt benchmarks/rivals.txt | $(BENCH_VENV)/bin/python
	$(BENCH_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) "$$(grep '^torch==' benchmarks/requirements.txt)"
	$(BENCH_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) -r benchmarks/requirements.txt
	$(BENCH_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) --no-deps -e .
	PYTHONPATH=benchmarks $(BENCH_VENV)/bin/python -m suite.packages benchmarks/rivals.txt \
	  benchmarks/requirements.txt $(PIP_ARGS)
	@touch $@

# Writes benchmarks/benchmarks.json and docs/benchmarks.md; goes on where it stopped. BENCH_ARGS: see run.py --help.
bench: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python benchmarks/run.py $(BENCH_ARGS)

# A handful of our own timings at this commit, for benchmarks/history.json and its picture on the page.
bench-history: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python benchmarks/history.py
	$(BENCH_VENV)/bin/python benchmarks/run.py --page

# The classification experiment of docs/classification.md: hours; it resumes. BENCH_ARGS: e.g. --data MUTAG PTC_MR.
classification: $(BENCH_STAMP)
	$(BENCH_VENV)/bin/python benchmarks/classification.py $(BENCH_ARGS)

# Build wheel and sdist, install the wheel into an empty environment elsewhere, and use it there.
package: $(STAMP)
	PIP_ARGS="$(PIP_ARGS)" $(PY) tools/check_package.py

# The page of `markovot report` in a real browser, and its picture in docs/. Needs chromium and chromedriver; on Debian:
# apt-get install chromium chromium-driver.
browser: $(STAMP)
	MARKOVOT_REPORT_PICTURE=docs/report.png $(PY) -m pytest tests/browser/check_report.py

# The torch engines on a CUDA device, beside the CPU: five minutes; ends with 2 where there is none.
cuda: $(STAMP)
	$(PY) tools/check_cuda.py

# What `oldest` and `minimal` need besides the package, to run tests.
TEST_TOOLS := pytest pytest-xdist hypothesis
# One file for each room, those first that lean on other libraries.
OLDEST_TESTS := $(patsubst %,tests/test_%.py,package chains solution datasets tudataset discounted_wl transport_cost \
  stationary pairwise executors interop_files interop_frames interop_graphs interop_hmm interop_deeptime interop_pyg \
  plot plot_items sklearn cli cli_graphs report demo)

$(OLDEST_STAMP): pyproject.toml constraints-oldest.txt | $(OLDEST_VENV)/bin/python
	$(OLDEST_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) "$$(grep '^torch==' constraints-oldest.txt)"
	$(OLDEST_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints-oldest.txt $(TEST_TOOLS) \
	  -e '.[all]'
	@touch $@

# The oldest versions that pyproject.toml promises to work with. Compiled code is kept apart: numba's versions differ.
oldest: $(OLDEST_STAMP)
	MARKOVOT_CACHE_DIR=$(abspath $(OLDEST_VENV))/compiled $(OLDEST_VENV)/bin/python -m pytest $(PYTEST_ARGS) $(OLDEST_TESTS)

$(MINIMAL_STAMP): pyproject.toml constraints.txt | $(MINIMAL_VENV)/bin/python
	$(MINIMAL_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) "$$(grep '^torch==' constraints.txt)"
	$(MINIMAL_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt $(TEST_TOOLS) -e .
	@touch $@

# Without any extra: what needs none works, and no test fails for want of one. The tests of engines and solvers, most of
# the time of `make test`, and of the benchmarks have nothing to do with extras of the package.
minimal: $(MINIMAL_STAMP)
	$(MINIMAL_VENV)/bin/python -m pytest $(PYTEST_ARGS) tests $(foreach room,average benchmarks bounds exact gradients horizons \
	  learning newton properties stationary engines walks,--ignore-glob='tests/test_$(room)*.py')

clean:
	rm -rf out build dist docs/gallery .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
