# `make demo` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := .ci/locks
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
WORKERS := $(or $(PYTEST_XDIST_AUTO_NUM_WORKERS),$(shell echo $$(($$(nproc) * 3 / 2))))# many tests wait for a process

# The tests start hundreds of processes: none is to compile all modules anew, whatever the image that they run in says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-keycloak demo-people demo-spire test gate trial test-all test-kubernetes test-release test-quick check fuzz mutate lint bench bench-quick bench-peers bench-report proto proto-check promises promises-check codes codes-check reference reference-check metrics metrics-check capacity dist image packages bundle artifacts release audit lock clean help

help:
	@awk -F':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ See it work
demo: $(VENV)/.agent ## install, then run the whole main job on real processes
	@$(BIN)/python deploy/demo/demo.py

demo-keycloak: $(VENV)/.agent ## a task's token at a real Keycloak, recalled at its end (needs Java 17; Maven to fetch Keycloak once)
	@$(BIN)/python deploy/demo/keycloak_demo.py

demo-spire: $(VENV)/.agent ## the main job on a node of a real SPIRE server, which goes away, comes back and bans it (needs Go, once, to build it)
	@$(BIN)/python deploy/demo/spire_demo.py

demo-people: $(VENV)/.frameworks ## alice and bob log in at a real Keycloak, an agent refunds for each of them, alice logs out (needs the same, and the frameworks)
	@$(BIN)/python deploy/demo/people_demo.py

##@ Test it
test: $(VENV)/.test ## install, then see that it works on this machine: under 10 minutes on two cores
	@SOJOURN_TEST_QUICK=1 SOJOURN_TEST_FORKS=agents,commands $(PYTEST) -n $(WORKERS) -m "not (full or forked or timing or go or rust or java)"

gate: ## what a change must pass to be built on: .ci/run, as root; 12 minutes on two cores at most
	@bash .ci/run

trial: ## everything, with real parts (SPIRE, Keycloak, engines, a bare Debian, benches in little); as root, an hour; PART="keycloak bench": these alone
	@$(PYTHON) .ci/trial.py $(PART)

test-all: $(VENV)/.test ## every test; those whose part (root, Docker, Go, ...) is not here are skipped
	@SOJOURN_TEST_FORKS=commands,"agents that may" $(PYTEST) -n $(WORKERS) -m "not release"

test-release: $(VENV)/.test $(VENV)/.packages ## the tests of what is built for other systems and processors, and twice (as root; 10 minutes)
	@$(PYTEST) -n 2 -m release tests/integration

test-kubernetes: $(VENV)/.test ## the tests with a real Kubernetes of one node (as root; builds it once with Go: 10 minutes)
	@bash .ci/spire
	@SOJOURN_TEST_KUBERNETES="$$(bash .ci/kubernetes)" $(PYTEST) tests/integration/test_real_kubernetes.py tests/integration/test_real_kubernetes_node.py

test-quick: $(VENV)/.test ## the everyday loop: the unit tests alone, with a tenth of the examples for properties; under 2 minutes
	@SOJOURN_TEST_QUICK=1 $(PYTEST) -n auto tests/unit

check: lint $(VENV)/.test ## what a change in ROOM concerns: lint, the order of the packages, its tests, and those that import it
	@SOJOURN_TEST_QUICK=1 $(BIN)/python .ci/check.py $(ROOM)

fuzz: $(VENV)/.test ## a million SPIFFE IDs beside go-spiffe (needs Go), a million broken messages, ten thousand impostors, a million questions to narrower types; about 45 minutes
	@PYTHONPATH=tests $(BIN)/python -m harness.id_grammar 1000000
	@SOJOURN_RACE_ROUNDS=10000 $(PYTEST) tests/security/test_programs.py
	@SOJOURN_FUZZ_CASES=1000000 $(PYTEST) tests/fuzz tests/security/test_openapi.py
	@SOJOURN_FUZZ_CASES=1000000 $(PYTEST) --timeout 1800 -k "nothing_more_is_allowed or nothing_is_granted" tests/unit/policy

mutate: $(VENV)/.mutation ## change the code of ROOM (spiffe, tasktoken, policy, oauth, tasks, quota, http2, door) in small ways, and see which changes no test notices; up to an hour
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
lint: $(VENV)/.lint $(VENV)/.frameworks ## ruff, mypy, which reads the frameworks that the SDK guards, and whether docs/reference is what the code says
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python .ci/reference.py --check

proto: $(VENV)/.lint ## generate agent/sojourn/_pb from proto/
	@$(BIN)/python .ci/stubs.py

proto-check: $(VENV)/.lint ## fail if the generated stubs are stale
	@$(BIN)/python .ci/stubs.py --check

promises: ## write build/promises.md from the tests' docstrings: every promise with the test that proves it
	@$(PYTHON) .ci/promises.py

promises-check: ## fail if a test says nothing, or is of no area
	@$(PYTHON) .ci/promises.py --check

codes: $(VENV)/.agent ## write docs/codes.md and docs/operate/logs.md: codes, audit events, reasons, metrics, log events
	@$(BIN)/python .ci/codes.py
	@$(BIN)/python .ci/log_page.py

codes-check: $(VENV)/.agent ## fail if docs/codes.md or docs/operate/logs.md is stale
	@$(BIN)/python .ci/codes.py --check
	@$(BIN)/python .ci/log_page.py --check

metrics: $(VENV)/.agent ## write docs/operate/metrics.md and the dashboard, from the code
	@$(BIN)/python .ci/metrics.py

metrics-check: $(VENV)/.agent ## fail if one of them, or docs/operate/capacity.md, is stale
	@$(BIN)/python .ci/metrics.py --check
	@$(BIN)/python .ci/capacity.py --check

capacity: $(VENV)/.agent ## write docs/operate/capacity.md from the figures of docs/performance.md
	@$(BIN)/python .ci/capacity.py

reference: $(VENV)/.agent ## write the pages of docs/reference/ that come from the code: commands, configuration, gRPC, HTTP, selectors
	@$(BIN)/python .ci/reference.py

reference-check: $(VENV)/.agent ## fail if one of them is stale
	@$(BIN)/python .ci/reference.py --check

dist: $(VENV)/.agent ## build sdist and wheel into dist/, install each into a fresh environment, and run it
	@bash .ci/dist

image: $(VENV)/.agent ## build the container image of the agent into build/image/ (on Debian or Ubuntu; no engine, no root; ARCH=arm64)
	@$(BIN)/python deploy/image/build.py $(if $(ARCH),--arch $(ARCH))

packages: $(VENV)/.packages ## build debs for Debian and Ubuntu and rpms into dist/ (ONLY="bookworm trixie", ARCH=arm64)
	@$(BIN)/python deploy/packages/build.py $(ONLY) $(if $(ARCH),--arch $(ARCH))

bundle: $(VENV)/.agent ## build what `sojourn agent install` needs without a network into dist/ (FOR=3.11: that Python; ARCH=arm64)
	@$(BIN)/python deploy/packages/bundle.py $(FOR) $(if $(ARCH),--arch $(ARCH))

artifacts: $(VENV)/.packages $(VENV)/.release ## build all files of a release into dist/, here
	@$(BIN)/python deploy/release/artifacts.py $(if $(IMAGE_PACKAGES),--image-packages $(IMAGE_PACKAGES))

release: ## build a release twice, in two Debians made for it, into dist/release; fail unless all bytes are the same (needs root, debootstrap)
	@IMAGE_PACKAGES=$(IMAGE_PACKAGES) bash .ci/release

audit: $(VENV)/.release ## ask the index which known faults the libraries have (a report: it fails nothing)
	@$(BIN)/pip-audit --requirement agent/sojourn/installing/requirements.txt --no-deps --disable-pip || true

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

# Real peers that pip has, for the tests that are skipped without them.
$(VENV)/.peers: $(VENV)/.test $(LOCKS)/peers.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/peers.txt
	@touch $@

$(VENV)/.mutation: $(VENV)/.test $(LOCKS)/mutation.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/mutation.txt
	@touch $@

$(VENV)/.packages: $(VENV)/.agent $(LOCKS)/packages.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/packages.txt
	@touch $@

$(VENV)/.release: $(VENV)/.agent $(LOCKS)/release.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/release.txt
	@touch $@

$(VENV)/.lint: $(VENV)/.agent $(LOCKS)/lint.txt
	@$(PIP) install --require-hashes --no-deps -r $(LOCKS)/lint.txt
	@touch $@
