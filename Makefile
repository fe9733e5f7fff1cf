# Every target builds .venv from requirements.lock when it is missing or out of date.
PYTHON ?= python3
# Which PyTorch a new .venv gets: cpu, cu128, …; empty: the one of your package index.
TORCH ?=
UV := uv==0.13.9
export PATH := $(CURDIR)/.venv/bin:$(PATH)
ENV := .venv/installed
DOCS := .venv/docs
PIP := .venv/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help docs env demo test test-quick test-slurm walk faults lint format bench findings clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

env: $(ENV)     ## only build .venv; TORCH=cpu: without CUDA's libraries

# uv does not read pip's configuration: package locations and certificate are passed on to it.
$(ENV): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null || $(PIP) install --quiet $(UV) || true
	@configured=$$($(PIP) config list); \
	  from_pip() { echo "$$configured" | sed -n "s/^.*[.]$$1='\(.*\)'$$/\1/p" | head -n 1; }; \
	  pass_on() { [ -n "$$(printenv $$1)" ] || [ -z "$$2" ] || export "$$1=$$2"; }; \
	  pass_on UV_DEFAULT_INDEX "$$(from_pip index-url)"; \
	  pass_on UV_FIND_LINKS "$$(from_pip find-links | sed 's/\\n/ /g; s/^ *//; s/  */,/g')"; \
	  pass_on SSL_CERT_FILE "$$(from_pip cert)"; \
	  echo "Installing the packages into .venv, about a minute"; \
	  uv pip install --quiet --python .venv/bin/python --compile-bytecode $(TORCH:%=--torch-backend=%) \
	    --requirement requirements.lock --editable . \
	  || { echo "uv could not install the packages (see above); pip does, in a few minutes." >&2; \
	    $(TORCH:%=$(PIP) install --quiet $$(grep ^torch= requirements.lock) \
	      --index-url https://download.pytorch.org/whl/% &&) \
	    $(PIP) install --quiet --requirement requirements.lock --editable .; }
	@touch $@

demo: $(ENV)    ## train small language models and ViTs, measure them, write a report
	snakemake
	@blockcoupling clean config/config.yaml --yes  # training states, a quarter of its disk space

test: $(ENV)    ## all tests this machine can run
	OMP_NUM_THREADS=1 pytest -n auto --dist worksteal

test-quick: $(ENV)  ## the tests of two or three minutes: no workflow, real weights or long computations
	OMP_NUM_THREADS=1 pytest -n auto --dist worksteal -m "not (slow or workflow or real or slurm)"

test-slurm: $(ENV)  ## start a two-node Slurm on this machine and run a study on it
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null && command -v munged >/dev/null && exit; \
	  if [ "$$BLOCKCOUPLING_SLURM" = 1 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends slurm-wlm munge; \
	  else \
	    echo "Slurm is not installed. BLOCKCOUPLING_SLURM=1 make test-slurm installs Debian's" \
	      "slurm-wlm and munge (as root) and runs the tests." >&2; exit 1; \
	  fi
	BLOCKCOUPLING_SLURM=1 pytest tests/slurm

walk: $(ENV)    ## 200 random walks of edits, kills and removals, each compared with a fresh run
	python tests/workflow/walk.py --walks 200

faults: $(ENV)  ## provoke the faults of machines and clusters, an hour; writes docs/faults.md
	python -m faults

docs: $(DOCS)   ## the documentation, into build/docs; strict, and offline once its packages are installed
	OMP_NUM_THREADS=1 sphinx-build -W -n --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

$(DOCS): $(ENV) docs/requirements.lock
	@$(PIP) install --quiet --no-deps --requirement docs/requirements.lock
	@touch $@

lint: $(ENV)    ## style, types, import order of the packages, and the workflow's linters
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow
	snakemake --lint
	lint-imports --no-logo
	mypy

format: $(ENV)  ## format the code as lint requires
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow

bench: $(ENV)   ## time the measurement and the reference algorithm
	python -m benchmarks

findings: $(ENV) ## derive the numbers of docs/findings.md from the tables in docs/findings
	python -m docs.findings

clean:          ## remove caches and build files; to remove a study: rm -r results/STUDY and its catalog
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
