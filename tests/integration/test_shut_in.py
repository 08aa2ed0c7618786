"""An agent that a unit of systemd shuts in, as a user of its own with two capabilities: it proves what root's does.

The systemd is a real one, in namespaces of its own (harness/nspawn.py).
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import ROOT
from harness.looking import until
from harness.nspawn import PYTHON, Machine, booted

pytestmark = [pytest.mark.full, pytest.mark.root]
UID = 990
CODE = f"PYTHONPATH={ROOT}/agent:{ROOT}/attestors"
SOJOURN = ("env", CODE, PYTHON, "-m", "sojourn")
CAPABILITIES = "CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"
SHUT_IN = {
    "AmbientCapabilities": CAPABILITIES,
    "CapabilityBoundingSet": CAPABILITIES,
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "TemporaryFileSystem": "/srv",
    "BindReadOnlyPaths": str(ROOT),  # it may lie below /tmp
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RuntimeDirectory": "sojourn",
    "StateDirectory": "sojourn",
    "StateDirectoryMode": "0700",
    "Environment": CODE,
}
CONFIG = """trust_domain = "example.org"
data_dir = "/var/lib/sojourn"
socket = "/run/sojourn/agent.sock"
admin_socket = "/run/sojourn/admin.sock"
[attestors.unix]
[attestors.systemd]
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        yield machine


@pytest.fixture(scope="module", autouse=True)
def agent(machine: Machine) -> None:
    """An agent of user 990, whom systemd gives a mount namespace of its own."""
    machine.account(UID)
    machine.write("/etc/sojourn/agent.toml", CONFIG)
    run = (PYTHON, "-m", "sojourn", "agent", "run", "--config", "/etc/sojourn/agent.toml")
    # The interpreter may lie in a folder of root's own, which the two capabilities let this user read.
    machine.unit("sojourn", *run, user=f"u{UID}", **SHUT_IN)
    until(lambda: "ready" in machine.run("journalctl", "--unit=sojourn", "--output=cat"), "the agent is ready")


def told(machine: Machine, *arguments: str) -> Any:
    return json.loads(
        machine.run(*SOJOURN, *arguments, "--admin-socket", "/run/sojourn/admin.sock", "--output", "json")
    )


def explained(machine: Machine, pid: int) -> Any:
    """What is found once each attestor has answered: the machine's systemd may be busy for longer than it is waited for."""
    return until(
        lambda: not (found := told(machine, "explain", "--pid", str(pid)))["failed_attestors"] and found,
        "each attestor answers",
        seconds=60,
    )


def reasons(found: Any) -> dict[str, str]:
    return {each["what"]: each["reason"] for each in found["withheld"]}


class TestPrograms:
    def test_of_units(self, machine: Machine) -> None:
        """A service's program has its path and digest, and the service its unit, also where systemd shuts the agent in
        and its user is not root.
        """
        pid = machine.unit("plain", user="daemon")
        found = set(explained(machine, pid)["selectors"])
        sleep = os.path.realpath("/usr/bin/sleep")
        assert {f"unix:path:{sleep}", "unix:user:daemon", "systemd:id:plain.service", "systemd:manager:system"} <= found
        assert [] != [each for each in found if each.startswith("unix:sha256:")]

    def test_of_units_that_are_shut_in(self, machine: Machine) -> None:
        """A service that is itself in a mount namespace of its own has its unit and no path: there it could be forged."""
        found = explained(machine, machine.unit("inside", PrivateTmp="yes"))
        assert "systemd:id:inside.service" in found["selectors"]
        assert "another mount namespace, where paths can be forged" in reasons(found)["unix:path"]

    def test_that_are_mounted_over(self, machine: Machine) -> None:
        """Another program that a unit mounts over the path of a trusted one is not that one."""
        forged = {"BindReadOnlyPaths": "/usr/bin/sleep:/usr/bin/tail"}
        pid = machine.unit("forged", "/usr/bin/tail", "1000", **forged)
        found = explained(machine, pid)
        assert [] == [each for each in found["selectors"] if each.startswith("unix:path:")]

    def test_below_folders_that_the_agent_does_not_see(self, machine: Machine) -> None:
        """A program in a folder that the agent's unit hides from it, and that is not its user's to enter, has its path."""
        machine.run("sh", "-c", "mkdir -m 700 -p /srv/own && cp /usr/bin/sleep /srv/own/mine")
        pid = machine.unit("own", "/srv/own/mine", "1000")
        assert "unix:path:/srv/own/mine" in explained(machine, pid)["selectors"]


def test_no_limitation(machine: Machine) -> None:
    """With the two capabilities nothing is lost, and status tells of no limitation."""
    assert [] == told(machine, "status")["limitations"]


def test_without_the_capability(machine: Machine) -> None:
    """Without the capability to look into processes the agent tells what it cannot prove, and why."""
    machine.write(
        "/etc/sojourn/humble.toml", CONFIG.replace("sojourn/a", "humble/a").replace("lib/sojourn", "lib/humble")
    )
    shut_in = {**SHUT_IN, "RuntimeDirectory": "humble", "StateDirectory": "humble"}
    shut_in["AmbientCapabilities"] = shut_in["CapabilityBoundingSet"] = "CAP_DAC_READ_SEARCH"
    run = (PYTHON, "-m", "sojourn", "agent", "run", "--config", "/etc/sojourn/humble.toml")
    machine.unit("humble", *run, user=f"u{UID}", **shut_in)
    until(lambda: "ready" in machine.run("journalctl", "--unit=humble", "--output=cat"), "the agent is ready")
    status = json.loads(machine.run(*SOJOURN, "status", "--admin-socket", "/run/humble/admin.sock", "--output", "json"))
    found = {each["what"]: each["reason"] for each in status["limitations"]}
    assert "CAP_SYS_PTRACE" in found["unix:path and unix:sha256 of other users' processes"]
    assert "CAP_SYS_PTRACE" in found["unix:path of processes outside of the agent's own mount namespace"]
