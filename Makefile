# SPDX-License-Identifier: GPL-2.0-only
# `make` lists the targets.  Everything is installed into .venv, once.

# The Python to use, 3.11 or newer; without a value one is looked for.
PYTHON ?=
export PYTHON

VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint explorer coverage mutants bench bench-designs twins zoo nightly kernels conform workloads slab-agreement pages lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: $(VENV)/.run ## set up, then run the demonstration (under a minute)
	@$(BIN)/rmaplab demo

test: lint $(VENV)/.explorer $(VENV)/.engine ## set up, then run the linters and all tests
	@$(NPM) run --silent check
	@$(NPM) test --silent
	$(BIN)/pytest -m alone tests/conformance
	$(BIN)/pytest -m 'not alone' -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev ## set up, then run ruff, mypy and the import linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

explorer: $(VENV)/.explorer ## set up, then build the explorer page from its TypeScript
	@$(NPM) run --silent build

coverage: $(VENV)/.dev ## set up, then run all tests and list the branches of kernel/ and series/ not taken
	$(BIN)/coverage run -m pytest -q
	@$(BIN)/coverage report --include='src/rmaplab/kernel/*,src/rmaplab/series/*'
	@$(BIN)/python tools/branches.py --least 97

mutants: $(VENV)/.mutation ## set up, then print the mutation score of a sample (MUTANTS='--sample 0 --jobs 2': all)
	@$(BIN)/python tools/mutants.py $(MUTANTS)

bench: $(VENV)/.dev $(VENV)/.engine ## set up, then measure speed (BENCH=engine: rows that begin so)
	@$(BIN)/python -m benchmarks $(BENCH)

bench-designs: $(VENV)/.dev ## replay all workloads on all designs, and write docs/measured.md (minutes)
	@$(BIN)/rmaplab experiment benchmarks/designs.toml --results build/designs --again --output build/designs.txt
	@$(BIN)/python -m benchmarks.designs build/designs/results.json

twins: $(VENV)/.dev $(VENV)/.engine ## set up, then hold the engine against the specification (minutes; TWINS=1000000: so many events)
	@$(BIN)/python tests/quality/twins.py $(TWINS)

zoo: $(VENV)/.dev ## set up, then look for every known bug blindly, and print what found it (minutes)
	@$(BIN)/python tests/quality/hunting.py

nightly: $(VENV)/.dev ## set up, then 10 million random calls on v7.0 and on v6.18 (hours)
	@$(BIN)/python tools/nightly.py

kernels: $(VENV)/.dev ## set up, then fetch and build kernels for guests into a cache (KERNELS='um-7.3 deb-6.1': these alone)
	@$(BIN)/python -m rmaplab.realkernel.guest.kernels $(KERNELS)

conform: $(VENV)/.dev ## set up, then hold the model against all kernels there are (a quarter of an hour; CONFORM=--host: this one, too)
	@$(BIN)/python tools/conformance.py $(CONFORM)

workloads: $(VENV)/.dev ## record the shipped workloads anew (WORKLOADS='redis make': these alone)
	@$(BIN)/python tools/record_workloads.py $(WORKLOADS)

slab-agreement: $(VENV)/.dev ## hold predicted objects against this machine's slab counters and graph (root; two minutes)
	@$(BIN)/python -m tools.slab_agreement $(SLAB)

pages: $(VENV)/.dev ## renew the pages and pictures of docs/ that are made from the code
	@$(BIN)/python -m rmaplab.report.series_page >docs/series.md
	@$(BIN)/rmaplab export examples/z01.rmap --series v6.18+9 --to svg --output docs/z01.svg

# The locks hold for every Python from 3.11 on and every platform: the resolver
# of uv looks at all of them, pip-compile's only at the one it runs on.
lock: $(VENV)/.made ## renew requirements/*.lock from pyproject.toml with the newest releases
	@$(PIP) install --quiet 'uv>=0.9'
	@$(COMPILE) --group build pyproject.toml --output-file requirements/run.lock
	@$(COMPILE) --group dev --constraint requirements/run.lock pyproject.toml --output-file requirements/dev.lock
	@$(COMPILE) --group mutation --constraint requirements/dev.lock pyproject.toml --output-file requirements/mutation.lock

clean: ## remove .venv and everything that tools have left
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .ruff_cache .import_linter_cache .coverage
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

NPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm --prefix explorer
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --upgrade \
	--generate-hashes --no-header --no-annotate

# An environment that was left half-made, that lost its Python, or that was made
# for another folder (its scripts name the folder) is made anew.
$(shell { test -x $(BIN)/python && test ! -e $(VENV)/.unfinished && grep -qxF '$(CURDIR)' $(VENV)/.made; } \
	2>/dev/null || rm -f $(VENV)/.made)

$(VENV)/.made: tools/venv.sh
	@sh tools/venv.sh $(VENV)
	@echo '$(CURDIR)' >$@

# What `make demo` needs: the project and its run-time dependencies.
$(VENV)/.run: $(VENV)/.made requirements/run.lock pyproject.toml
	$(call install,requirements/run.lock)
	@touch $@

# What developing needs; holds everything that .run has.
$(VENV)/.dev: $(VENV)/.made requirements/dev.lock pyproject.toml
	$(call install,requirements/dev.lock)
	@touch $(VENV)/.run $@

# What the explorer page is built and tested with: Node is among the packages of .dev.
$(VENV)/.explorer: $(VENV)/.dev explorer/package-lock.json
	@echo 'rmaplab: installing explorer/package-lock.json' >&2
	@$(NPM) ci --silent --no-audit --no-fund || { \
		echo 'rmaplab: the packages named in explorer/package-lock.json could not be installed.' >&2; \
		echo 'rmaplab: if npm was not reached: check the network; for a mirror set npm_config_registry; then run make again.' >&2; \
		exit 1; }
	@touch $@

# The fast engine as machine code, beside its sources.
$(VENV)/.engine: $(VENV)/.dev $(wildcard src/rmaplab/engine/*.py src/rmaplab/engine/search/*.py) src/rmaplab/kernel/flags.py
	@$(BIN)/rmaplab doctor --compile
	@touch $@

# What mutation testing needs; it stays out of .dev, which every test run sets up.
$(VENV)/.mutation: $(VENV)/.dev requirements/mutation.lock
	$(call install,requirements/mutation.lock)
	@touch $(VENV)/.run $(VENV)/.dev $@

define install
@touch $(VENV)/.unfinished
@echo 'rmaplab: installing $1' >&2
@$(PIP) install --quiet --require-hashes --requirement $1 || { \
	echo 'rmaplab: the packages named in $1 could not be installed.' >&2; \
	echo 'rmaplab: if PyPI was not reached: check the network (and on Debian that ca-certificates is installed);' >&2; \
	echo 'rmaplab: behind a proxy set HTTPS_PROXY, for a mirror set PIP_INDEX_URL; then run make again.' >&2; \
	exit 1; }
@$(PIP) install --quiet --no-build-isolation --no-deps --editable .
@rm $(VENV)/.unfinished
endef
