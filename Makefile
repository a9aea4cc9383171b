# Two commands to know: `make demo` and `make test`. Every target is a thin call of the `lab` command or of pytest.
# uv is used where it is installed, plain pip elsewhere; either checks every package against requirements.lock.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY)  ## the environment alone: .venv with the `lab` command

$(READY): requirements.lock pyproject.toml hatch_build.py $(wildcard experiments/*/lab.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "setting up .venv (once: 130 packages, 330 MB)"
	@if command -v uv >/dev/null 2>&1; then \
	    uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv && \
	    uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock && \
	    uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . ; \
	else \
	    $(PYTHON) -m venv .venv && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . ; \
	fi
	@touch $@

demo: $(READY)  ## the tour: flagship experiments, a table of claims, the result page
	@$(BIN)/lab demo

labs: $(READY)  ## every experiment of every lab
	@$(BIN)/lab run --all && $(BIN)/lab report

test: $(READY)  ## the whole suite, against real servers that it starts itself
	@$(BIN)/pytest $(ARGS)

lab: $(READY)  ## one lab or experiment: make lab LAB=outbox-pattern [EXP=01]
	@$(BIN)/lab run $(LAB)$(if $(EXP),/$(EXP))

up: $(READY)  ## keep servers running: make up [LAB=outbox-pattern | SERVERS="postgres kafka"]
	@$(BIN)/lab up $(if $(LAB),--lab $(LAB)) $(SERVERS)

logs: $(READY)  ## the end of a server's log: make logs SERVER=kafka
	@$(BIN)/lab logs $(or $(SERVER),$(error say which: make logs SERVER=kafka))

down status check report evidence doctor clean: $(READY)
	@$(BIN)/lab $@

down:    ## stop what `make up` started
status:  ## which servers run
check:   ## ruff, mypy --strict, figures in documents, compose file
report:  ## make the result page again
evidence: ## run at full scale and renew docs/evidence with all figures
doctor:  ## what is missing on this machine
clean:   ## stop servers, remove data, runs and the result page

.PHONY: help setup demo labs test lab up logs down status check report evidence doctor clean
