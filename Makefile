# Every target builds .venv from requirements.lock when it is missing or out of date.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
ENV := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slurm walk faults lint format bench clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

env: $(ENV)     ## build .venv, nothing else

$(ENV): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --requirement requirements.lock
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

demo: $(ENV)    ## train small language models and ViTs, measure them, write a report
	snakemake

test: $(ENV)    ## all tests this machine can run
	OMP_NUM_THREADS=1 pytest -n auto --dist loadfile

test-slurm: $(ENV)  ## start a two-node Slurm on this machine and run a study on it
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null && command -v munged >/dev/null && exit; \
	  if [ "$$BLOCKCOUPLING_SLURM" = 1 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends slurm-wlm munge; \
	  else \
	    echo "Slurm is not installed. BLOCKCOUPLING_SLURM=1 make test-slurm installs Debian's" \
	      "slurm-wlm and munge (as root) and goes on." >&2; exit 1; \
	  fi
	BLOCKCOUPLING_SLURM=1 pytest tests/slurm

walk: $(ENV)    ## 200 random walks of edits, kills and removals, each against a fresh run
	python tests/workflow/walk.py --walks 200

faults: $(ENV)  ## provoke the faults of machines and clusters, an hour; writes docs/faults.md
	python -m faults

lint: $(ENV)    ## style, types, the wings' contract, and the workflow's own linters
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	snakemake --lint
	lint-imports --no-logo
	mypy

format: $(ENV)  ## put the code into the shape that lint wants
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow

bench: $(ENV)   ## time the measurement beside the reference algorithm
	python -m benchmarks

clean:          ## remove caches and build leftovers; a study: rm -r results/STUDY and its catalog
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
