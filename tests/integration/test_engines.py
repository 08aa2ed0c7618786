"""The engines that tests use are real: what other tests build on."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.full


def test_containers(engine):
    """A container runs under its id, in namespaces of its own, and outlives the engine's service."""
    container = engine.run(flags=["--label", "team=blue"])
    lines = Path(f"/proc/{container.pid}/cgroup").read_text()
    assert container.id in lines
    assert (sum(container.id in line for line in lines.splitlines()) == 1) == engine.v2
    assert os.readlink(f"/proc/{container.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    assert (os.readlink(f"/proc/{container.pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")) == engine.v2
    engine.restart()
    assert container.pid == engine.pid_of(container.id)
    told = engine.ask(f"/containers/{container.id}/json")
    assert {"app": "web", "team": "blue"} == told["Config"]["Labels"]
    second = container.start_process("sleep", "100")
    assert sorted([container.pid, second]) == sorted(container.pids())


def test_callers_in_containers(engine, agent):
    """A workload that is a container's first process calls the agent."""
    agent.register("/x", "unix:uid:0")
    with engine.caller(agent.socket, flags=["--name", "caller"]) as caller:
        assert ["spiffe://example.org/x"] == [each["spiffe_id"] for each in caller.ask("x509")["svids"]]
        assert 1 == caller.pid
        assert "caller.py" in Path(f"/proc/{engine.pid_of('caller')}/cmdline").read_text()


def test_this_machine(engine):
    """An engine leaves the processes of this machine in the cgroups in which they are."""
    before = Path("/proc/self/cgroup").read_text()
    engine.run()
    engine.restart()
    assert before == Path("/proc/self/cgroup").read_text()
