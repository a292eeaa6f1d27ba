# `make run` and `make test` need Python 3.11 or newer, make and a C compiler; each makes .venv and installs what it needs.
#   make run ARGS="--quick"          pass arguments to `rapport run`
#   make run LLM=model.gguf          plan with another language model: a GGUF file, the URL of a server, or none
#   make test PYTHON=/usr/bin/python3.12   choose the interpreter
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

ARGS ?=
LLM ?=
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
VENV := .venv
PY := $(VENV)/bin/python

# What is installed is remembered by a stamp whose name changes with the folder, the metadata and the pinned versions.
KEY := $(shell { pwd; cat pyproject.toml constraints.txt; } | cksum | tr ' ' '-')
STAMP := $(VENV)/.stamp-$(KEY)
# A half-made or broken environment does not answer here and is made anew.
HEALTHY := $(shell $(PY) -c 'import pip, sys; print(sys.version_info >= (3, 11))' 2>/dev/null)
INSTALL = $(PY) -m pip install --disable-pip-version-check -c constraints.txt

# llama-cpp-python compiles for minutes: a run takes it unless a server plans, which needs the client alone, or nobody.
WANTED := $(strip $(LLM) $(if $(findstring --llm,$(ARGS)),$(ARGS)))
comma := ,
RUN_EXTRAS := report$(comma)stats$(if $(findstring ://,$(WANTED)),$(comma)openai,$(if $(findstring none,$(WANTED)),,$(comma)llm))
RUN_STAMP := $(STAMP)-$(subst $(comma),-,$(RUN_EXTRAS))
TEST_STAMP := $(STAMP)-test

LOWEST := .venv-lowest
# Tests that touch every dependency and take minutes together; llama-cpp-python and Ray are left out: they take longer to
# install than all of it.
LOWEST_TESTS := tests/datasets/custom tests/datasets/files tests/envs/session/engine tests/envs/session/test_env.py \
  tests/envs/session/test_golden.py tests/envs/session/test_arguments.py tests/envs/session/test_custom_log.py \
  tests/agents/test_sb3.py tests/agents/llm/test_transcript.py tests/agents/planning/test_no_repeat.py \
  tests/experiments/results tests/experiments/report tests/test_cli_imports.py

# The wrapper DictInfoToList of Gymnasium 1.1 does not read the infos of its own RecordEpisodeStatistics.
LOWEST_TESTS += --deselect tests/envs/session/test_env.py::test_gymnasiums_vector_wrappers_work

.PHONY: help run test lowest lint format clean new-venv

help: ## show the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: $(RUN_STAMP) ## train and evaluate LERL and its controls, print the table; ARGS="--quick", LLM=FILE.gguf|URL|none
	$(PY) -m rapport run $(if $(LLM),--llm "$(LLM)") $(ARGS)

test: $(TEST_STAMP) ## ruff, mypy and every test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest $(ARGS)

lowest: ## a part of the tests with the lowest versions that pyproject.toml allows, in an environment of its own
	@$(MAKE) --no-print-directory new-venv VENV=$(LOWEST) PYTHON="$(or $(PYTHON),python3.11 python3)"
	$(LOWEST)/bin/python .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check -q -c $(LOWEST)/constraints.txt \
	  -e ".[fast,openai,hub,lm,report,stats,search,offline]" pytest hypothesis
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(LOWEST_TESTS) $(ARGS)

lint: $(TEST_STAMP) ## ruff and mypy only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(TEST_STAMP) ## sort imports, mend what ruff can, format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## remove the environment, caches and build outputs; runs/ and downloaded data stay
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

ifneq ($(HEALTHY),True)
$(RUN_STAMP) $(TEST_STAMP): new-venv
endif

$(RUN_STAMP):
	$(INSTALL) -e ".[$(RUN_EXTRAS)]"
	@touch $@

$(TEST_STAMP):
	$(INSTALL) -e ".[fast,llm,report,stats,offline,rllib,search,ray,dev]"
	@touch $@

new-venv:
	@for python in $(CANDIDATES); do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  rm -rf $(VENV); \
	  exec "$$python" -m venv $(VENV); \
	done; \
	echo "No Python 3.11 or newer with the venv module was found (tried: $(CANDIDATES))." >&2; \
	echo "Install one (on Debian or Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
