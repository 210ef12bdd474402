# daskhpo: `make study` shows what it does, `make test` checks it. Both set up what they need.

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
SETUP := $(VENV)/.set-up
FOREIGN := .venv-foreign
ARGS :=
JOBS := 3  # processes that run tests: many of them wait

# Dragonfly needs numpy below 1.24, which needs a Python below 3.12.
FOREIGN_PYTHON := $(firstword $(foreach p,python3 python3.11 python3.10,\
	$(shell $(p) -c 'import sys; print("$(p)" if sys.version_info < (3, 12) else "")' 2>/dev/null)))

.PHONY: help study test test-fast foreign system check fuzz chaos docs docs-html docs-figures conda dist \
	release-check clean

help:  ## show this text
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

study: $(SETUP)  ## tune a crystal graph network for two minutes (ARGS="--time-budget 10m")
	$(PYTHON) -m experiments.adsorption.study $(ARGS)

test: $(SETUP) foreign system  ## run all tests (ARGS="-k asha")
	$(PYTHON) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(SETUP)  ## run the fast ones only: pure code and single processes
	$(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder --ignore tests/experiments \
		-m "not (slow or cluster or slurm)" --timeout 30 $(ARGS)

foreign: $(if $(FOREIGN_PYTHON),$(FOREIGN)/.set-up)  ## set up what only the tests of Dragonfly and SigOpt need
	@$(if $(FOREIGN_PYTHON),true,echo "There is no Python below 3.12: tests of Dragonfly are skipped.")

check: $(SETUP)  ## lint, format, types, spelling, wording, change fragments
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m codespell_lib
	$(PYTHON) tests/docs/words.py
	$(PYTHON) -m towncrier build --draft --version next >/dev/null
	@if git rev-parse --quiet --verify origin/main >/dev/null; then $(PYTHON) -m towncrier check; fi

fuzz: $(SETUP)  ## damage N studies (N=3000) and read each by all commands; FIRST= is the first seed
	FUZZ_INPUTS=$(or $(N),3000) FUZZ_FIRST=$(or $(FIRST),0) $(PYTHON) -m pytest -n auto -rP -q tests/fuzz $(ARGS)

chaos: $(SETUP)  ## disturb N studies on real processes (N=100), and check each; FIRST= is the first seed
	$(PYTHON) -m tests.chaos.runner $(or $(N),100) --first $(or $(FIRST),0)

docs: $(SETUP)  ## check that the code in README and docs runs
	$(PYTHON) -m pytest tests/docs

docs-html: $(SETUP)  ## build the documentation site in docs/_build/html; warnings are errors
	$(PYTHON) -m sphinx -c docs -b html --fail-on-warning --keep-going --quiet . docs/_build/html
	@echo "docs/_build/html/index.html"

docs-figures: $(SETUP)  ## make the figures of docs/explanation again, from simulated studies
	$(PYTHON) -m tools.docs.figures

conda: $(SETUP) system  ## build, test and install the conda package without a network (ARGS=conda-forge)
	$(PYTHON) -m tools.conda.check $(ARGS)

dist: $(SETUP)  ## build the wheel and the sdist in dist/, and try them in a bare environment
	$(PYTHON) -m tools.dist

release-check: $(SETUP)  ## check what a release needs (ARGS=--quick: without builds)
	$(PYTHON) -m tools.release $(ARGS)

system:  # programs that tests use and pip does not bring: Slurm, a database for its accounts, a browser
	@if which slurmctld munged slurmdbd mariadbd chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends \
			slurm-wlm munge slurmdbd mariadb-server-core chromium >/dev/null; \
	else echo "no Slurm or no Chromium here, and not root on Debian: their tests are skipped"; fi

clean:  ## remove the virtual environments and caches
	rm -rf $(VENV) $(FOREIGN) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(SETUP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): Python packages, about 1 GB with torch; this takes some minutes, once."
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PIP) install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[experiments,dev]'
	touch $@

$(FOREIGN)/.set-up: constraints-foreign.txt
	test -x $(FOREIGN)/bin/python || $(FOREIGN_PYTHON) -m venv $(FOREIGN)
	$(FOREIGN)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $< numpy scipy setuptools wheel
	$(FOREIGN)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $< --no-build-isolation \
		dragonfly-opt sigopt
	touch $@
