# The verbs of this project. `make run` and `make test` create .venv themselves.
# PYTHONDONTWRITEBYTECODE makes every start compile every import again, so it is not handed on.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PYTHON ?= python3
RECIPE ?= recipes/helpdesk.yaml
BIN := .venv/bin

.PHONY: help install run label-demo docs check format test test-fast audit conformance build clean

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.installed  ## create .venv with the exact versions of constraints.txt

# Every version is pinned, so nothing is left to resolve: without --no-deps pip's resolver takes many times as long.
# The last call adds what a platform's own builds ask for beyond the pins (torch's CUDA wheels do), if they do.
.venv/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version); wanted Python 3.11 to 3.13; run make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-deps -r constraints.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check || $(BIN)/python -m pip install --no-build-isolation -c constraints.txt -e '.[test]'
	@touch $@

run: install  ## align the helpdesk model on this machine (RECIPE=... for another recipe)
	$(BIN)/rlhf run $(RECIPE)

label-demo: install  ## rank answers yourself: the helpdesk world, the page, and a run that waits for you
	$(BIN)/python -m flows.label_demo

docs: install  ## the documentation as a site, in build/docs; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict

check: install docs  ## lint, format, who imports whom, types, links of the documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

format: install  ## put the code in its canonical form
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# A file's tests stay in one process: they share servers and finished runs. Each process computes on one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

test: install  ## every test; some drive real servers, a browser, and the whole pipeline
	$(PYTEST)

test-fast: install  ## the tests that take seconds
	$(PYTEST) -m "not integration and not e2e and not gpu"

# ADVISORIES: a file or folder of OSV's format, such as its dump of PyPI; the one that comes with the project is short.
ADVISORIES ?= infra/advisories.json
audit: install  ## known vulnerabilities of the pinned versions, licences, and an SBOM in build/
	PYTHONPATH=. $(BIN)/python infra/audit.py --advisories $(ADVISORIES) --sbom build/sbom.json

conformance: install  ## test this project and TRL for known mistakes, and rewrite the table in docs/conformance.md
	$(BIN)/python -m rlhf.conformance --into docs/conformance.md

build: install  ## a wheel and a source distribution in dist/
	$(BIN)/python -m hatchling build

clean:  ## forget the environment and everything that runs have left
	rm -rf .venv .rlhf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
