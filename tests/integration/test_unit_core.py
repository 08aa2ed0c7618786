"""The integration core once more, with the agent as the installed unit: tests of other files, run within a booted machine."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import forks
from harness.agent import ROOT, clean_environment
from harness.nspawn import Machine, booted
from harness.unitinstall import PATHS, PROGRAM, PYTHON, UnitAgent

pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.timeout(900)]
# Each file with the least number of its tests that must pass there, so that none is lost unseen.
CORE = {
    "test_smoke.py": 1,
    "test_workload_api.py": 100,
    "test_registration.py": 10,
    "test_rotation.py": 3,
    "test_tasks.py": 10,
    "test_tasks_holders.py": 12,
    "test_delegation.py": 15,
    "test_policy.py": 9,
    "test_facts.py": 12,
    "test_exchange.py": 20,
    "test_exchange_refused.py": 80,
    "test_audit.py": 16,
}
LEFT_OUT = (
    # What is about an agent that the tests start themselves, or signs with keys that are the agent's user's alone.
    "test_smoke.py::test_killed_tests_leave_no_agent",
    "test_workload_api.py::TestValidation",
    # What needs no agent.
    "test_policy.py::test_check_of_providers",
    "test_policy.py::test_check_warns",
    "test_policy.py::test_check_tells_place_and_fault",
    "test_policy.py::test_cases",
    "test_policy.py::test_the_samples_answer",
    # What is about the words of commands, or about a journal's file: the same wherever an agent runs, and long.
    "test_policy.py::test_explain",
    "test_facts.py::TestCommand",
    "test_audit.py::test_a_change_is_found",
    # What sets a limit of the agent's process, which root of that machine may not: it is another user's.
    "test_facts.py::TestDisk::test_that_takes_no_write[failing]",
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        UnitAgent(machine).install()
        yield machine


@pytest.mark.parametrize("name", CORE)
def test_core(machine: Machine, name: str) -> None:
    """What a file of tests promises of an agent holds of the installed unit."""
    environment = {**clean_environment(), "PYTHONPATH": f"{PATHS}:{ROOT / 'tests'}", "SOJOURN_TEST_UNIT": "1"}
    environment["SOJOURN_TEST_FORKS"] = (
        forks.COMMANDS
    )  # the agent is the unit's program; what asks it is not in question
    for name_of_here in ("CI", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        environment.pop(name_of_here, None)
    left_out = [f"--deselect=tests/integration/{each}" for each in LEFT_OUT]
    command = [PYTHON, "-B", "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-rs"]
    done = subprocess.run(
        machine.entered("env", f"--chdir={ROOT}", *command, *left_out, f"tests/integration/{name}"),
        capture_output=True,
        text=True,
        env={**environment, "PATH": f"{Path(PROGRAM).parent}:{os.defpath}"},
        timeout=850,
        check=False,
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert passed
    assert int(passed[1]) >= CORE[name], done.stdout[-4000:]
