# `make demo` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := .ci/locks
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest

# The tests start hundreds of processes: none is to compile all modules anew, whatever the image that they run in says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-keycloak test test-all test-kubernetes test-quick check fuzz mutate lint bench bench-quick bench-peers bench-report proto proto-check promises promises-check codes codes-check dist lock clean help

help:
	@awk -F':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ See it work
demo: $(VENV)/.agent ## install, then run the whole main job on real processes
	@$(BIN)/python deploy/demo/demo.py

demo-keycloak: $(VENV)/.agent ## a task's token at a real Keycloak, recalled at its end (needs Java 17; Maven to fetch Keycloak once)
	@$(BIN)/python deploy/demo/keycloak_demo.py

##@ Test it
test: $(VENV)/.test ## install, then see that it works on this machine: under 10 minutes on two cores
	@SOJOURN_TEST_QUICK=1 SOJOURN_TEST_FORKS=agents,commands $(PYTEST) -n auto -m "not full"

test-all: $(VENV)/.test ## every test, each agent a program of its own; those whose part (root, Docker, Go, ...) is not here are skipped
	@SOJOURN_TEST_FORKS=commands $(PYTEST) -n auto

test-kubernetes: $(VENV)/.test ## the tests with a real Kubernetes of one node (as root; builds it once with Go: 10 minutes)
	@SOJOURN_TEST_KUBERNETES="$$(bash .ci/kubernetes)" $(PYTEST) tests/integration/test_real_kubernetes.py

test-quick: $(VENV)/.test ## the everyday loop: the unit tests alone, with a tenth of the examples for properties; under 2 minutes
	@SOJOURN_TEST_QUICK=1 $(PYTEST) -n auto tests/unit

check: lint $(VENV)/.test ## what a change in ROOM concerns: lint, the order of the packages, its tests, and those that import it
	@SOJOURN_TEST_QUICK=1 $(BIN)/python .ci/check.py $(ROOM)

fuzz: $(VENV)/.test ## a million SPIFFE IDs beside go-spiffe (needs Go), a million broken messages, ten thousand impostors; about 30 minutes
	@PYTHONPATH=tests $(BIN)/python -m harness.id_grammar 1000000
	@SOJOURN_RACE_ROUNDS=10000 $(PYTEST) tests/security/test_programs.py
	@SOJOURN_FUZZ_CASES=1000000 $(PYTEST) tests/fuzz tests/security/test_openapi.py

mutate: $(VENV)/.mutation ## change the code of ROOM (spiffe, rules, quota, http2, door) in small ways, and see which changes no test notices; up to an hour
	@$(BIN)/python tests/mutation/mutate.py $(if $(SCRATCH),--scratch $(SCRATCH)) $(if $(EVERY),--every $(EVERY)) $(or $(ROOM),spiffe)

##@ Measure it
bench-peers: $(VENV)/.test ## build or fetch the peers of the bench: SPIRE, Keycloak, OPA, load clients (needs Go, Java, Maven; 5 minutes, once)
	@$(BIN)/python tests/bench/peers.py

bench: $(VENV)/.test ## measure Sojourn beside the peers that are here; about 35 minutes, figures to bench.json
	@$(BIN)/python tests/bench/bench.py

bench-report: $(VENV)/.test ## put bench.json into docs/performance.md
	@$(BIN)/python tests/bench/report.py

bench-quick: $(VENV)/.test ## a little of each measurement, to see that it runs; under 3 minutes
	@$(BIN)/python tests/bench/bench.py --quick

##@ Change it
lint: $(VENV)/.lint $(VENV)/.frameworks ## ruff and mypy, which reads the frameworks that the SDK guards
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

proto: $(VENV)/.lint ## generate agent/sojourn/_pb from proto/
	@$(BIN)/python .ci/stubs.py

proto-check: $(VENV)/.lint ## fail if the generated stubs are stale
	@$(BIN)/python .ci/stubs.py --check

promises: ## write build/promises.md from the tests' docstrings: every promise with the test that proves it
	@$(PYTHON) .ci/promises.py

promises-check: ## fail if a test says nothing, or is of no area
	@$(PYTHON) .ci/promises.py --check

codes: $(VENV)/.agent ## write docs/codes.md: every error code, audit event, reason and metric, from the code
	@$(BIN)/python .ci/codes.py

codes-check: $(VENV)/.agent ## fail if docs/codes.md is stale
	@$(BIN)/python .ci/codes.py --check

dist: $(VENV)/.agent ## build sdist and wheel into dist/, install each into a fresh environment, and run it
	@bash .ci/dist

lock: ## renew .ci/locks (needs uv)
	@bash .ci/lock

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.base:
	@command -v $(PYTHON) >/dev/null || { echo "sojourn needs Python 3.11 or newer: install python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sojourn needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1): set PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "this Python has no venv module: install it first (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.agent: $(VENV)/.base pyproject.toml $(LOCKS)/agent.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/agent.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.agent $(LOCKS)/test.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/test.txt
	@touch $@

# Real frameworks and clients, for the tests that are skipped without them.
$(VENV)/.frameworks: $(VENV)/.test $(LOCKS)/frameworks.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/frameworks.txt
	@touch $@

$(VENV)/.mutation: $(VENV)/.test $(LOCKS)/mutation.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/mutation.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.agent $(LOCKS)/lint.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/lint.txt
	@touch $@
