# daskhpo: `make study` shows what it does, `make test` checks it. Both set up what they need.

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
SETUP := $(VENV)/.set-up
ARGS :=

.PHONY: help study test check docs clean system

help:  ## show this text
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

study: $(SETUP)  ## tune a crystal graph network for two minutes (ARGS="--time-budget 10m")
	$(PYTHON) -m experiments.adsorption.study $(ARGS)

test: $(SETUP) system  ## run all tests (ARGS="-k asha")
	$(PYTHON) -m pytest $(ARGS)

check: $(SETUP)  ## lint, format and type checks, as CI runs them
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

docs: $(SETUP)  ## check that the code in README and docs runs
	$(PYTHON) -m pytest tests/docs

system:  # programs that tests use and pip does not bring: a Slurm, and a database for its accounts
	@if which slurmctld munged slurmdbd mariadbd >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends \
			slurm-wlm munge slurmdbd mariadb-server-core >/dev/null; \
	else echo "no Slurm here, and not root on Debian: tests/slurm will be skipped"; fi

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(SETUP): pyproject.toml constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PIP) install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[experiments,dev]'
	touch $@
