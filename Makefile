# `make demo` shows the cache at work, `make test` runs the tests.  Both make their own environment in .venv.

PYTHON ?= python3
VENV ?= .venv
# Absolute: the demo runs in another directory.
BIN := $(abspath $(VENV))/bin

C_WARNINGS := -std=c11 -O2 -Wall -Wextra -Wpedantic -Wshadow -Werror

# rustup's `cargo` is a proxy that looks for its toolchains under $HOME, where a fresh HOME has none.  They lie
# beside the proxy: CARGO_HOME/bin/cargo, CARGO_HOME/../.rustup.
ifndef RUSTUP_HOME
TOOLCHAINS := $(abspath $(dir $(shell command -v cargo 2>/dev/null))../../.rustup)
ifneq ($(wildcard $(TOOLCHAINS)/toolchains),)
export RUSTUP_HOME := $(TOOLCHAINS)
endif
endif

# Tests and cargo run makes of their own, which must not find this one's settings.
unexport MAKEFLAGS MFLAGS

.PHONY: demo test lint native bundle bench projects dev clean

demo: $(BIN)/python
	rm -rf build
	$(BIN)/pip install --quiet .
	demo/run.sh $(BIN)

test: dev
	$(BIN)/python -P -m pytest

# ruff, mypy, and the C sources under two compilers without a warning.
lint: dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	set -e; for cc in gcc clang; do for file in client/native/*.c; do \
	    echo "$$cc $$file"; $$cc $(C_WARNINGS) -DSCCACHE_VERSION='"lint"' -fPIC -c "$$file" -o /dev/null; \
	done; done

# The two native programs alone, in build/native.
native:
	$(PYTHON) packaging/native_build.py build/native

# A folder that runs without Python, in dist/sccache-py.
bundle:
	PYTHON=$(PYTHON) packaging/build_bundle.sh dist

# Us and the peers, on the same work in the same run: an hour or two, on a quiet machine.  make bench BENCH="hit demo --runs 3"
bench: dev
	$(BIN)/python benchmarks/run.py $(or $(BENCH),--publish)

# Real C and C++ projects, built plain, cold and warm: everything must come out alike.  make projects PROJECTS="zlib nginx --compiler gcc"
projects: dev
	$(BIN)/python benchmarks/c_check.py $(PROJECTS)

dev: $(BIN)/python
	$(BIN)/pip install --quiet -e '.[dev]'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

clean:
	rm -rf build dist .demo $(VENV) *.egg-info
