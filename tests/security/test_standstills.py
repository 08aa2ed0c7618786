"""Who can have the agent's loop stand still, on this kernel and on an older one, and what the agent tells of it."""

import contextlib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess, clean_environment
from harness.lacking import lacking
from harness.looking import until
from harness.olderkernel import forget_passrights
from harness.ports import free_port

pytestmark = pytest.mark.full

ATTACKER = 4893
PLACES = 8
SO_PASSRIGHTS = 83


@contextlib.contextmanager
def lingering(agent: AgentProcess, *, held: int = 0, crowd: int = 300) -> Iterator["subprocess.Popen[str]"]:
    """An attacker who hands over sockets that linger, until the end."""
    script = str(Path(__file__).parent.parent / "harness" / "lingering.py")
    numbers = [str(ATTACKER), agent.socket, str(held), str(crowd)]
    attacker = subprocess.Popen(
        [sys.executable, "-I", script, *numbers], stdout=subprocess.PIPE, text=True, env=clean_environment()
    )
    try:
        yield attacker
    finally:
        attacker.kill()
        attacker.wait()
        assert attacker.stdout is not None
        attacker.stdout.close()


def told(agent: AgentProcess) -> list[dict[str, Any]]:
    return [line for line in agent.log_lines() if line["event"] == "loop_stood_still"]


@pytest.fixture(scope="module")
def metrics() -> int:
    return free_port()


@pytest.fixture(scope="module")
def older(metrics: int) -> Iterator[AgentProcess]:
    """An agent on a kernel that cannot refuse descriptors, with few places for each user."""
    config = f'[limits]\nconnections_per_uid = {PLACES}\n[metrics]\nlisten = "127.0.0.1:{metrics}"\n'
    agent = AgentProcess(config=config)
    forget_passrights(agent)
    with agent:
        yield agent


@pytest.fixture(scope="module")
def roomy() -> Iterator[AgentProcess]:
    """The same with places enough."""
    agent = AgentProcess()
    forget_passrights(agent)
    with agent:
        yield agent


@pytest.mark.root
def test_S1_descriptors_are_refused(agent: AgentProcess) -> None:
    """Where the kernel can, it refuses descriptors that are sent to the agent's socket, also before the agent has
    accepted; and plain bytes are answered.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS)
        except OSError:
            lacking("needs Linux 6.16")
    with lingering(agent) as attacker:
        assert attacker.stdout is not None
        assert "refused\n" == attacker.stdout.readline()
    assert "trust domain" in agent.run("status").stdout


@pytest.mark.root
def test_S1_a_socket_that_lingers(roomy: AgentProcess) -> None:
    """On older kernels a socket whose close waits for a day holds the agent up for a moment: the wait is broken off, and
    log and status name the process that has sent it.
    """
    with lingering(roomy) as attacker:
        assert attacker.stdout is not None
        assert "sent\n" == attacker.stdout.readline()

        def named() -> Any:
            """The standstill that is the attacker's, if that is the last."""
            found = roomy.json("status")["standstills"]
            return found if found and found["last_caller"].get("uid") == str(ATTACKER) else None

        found = until(named, "the attacker is named", seconds=60)
        assert str(attacker.pid) == found["last_caller"]["pid"]
        assert "the loop itself" in found["last_doing"]
        assert 1 <= found["count"]
        assert 0.1 <= found["last_seconds"] <= found["longest_seconds"]
        text = roomy.run("status").stdout
        assert "stood still" in text
        assert f"uid {ATTACKER}" in text
    assert ATTACKER in {line.get("uid") for line in told(roomy)}


@pytest.mark.root
def test_S1_at_a_connection_that_is_refused(older: AgentProcess, metrics: int) -> None:
    """What lingers on connections that the agent refuses, and closes unread, is broken off as well, and counted."""
    with lingering(older, held=PLACES) as attacker:
        assert attacker.stdout is not None
        for _ in range(5):
            assert "sent\n" == attacker.stdout.readline()
            assert "trust domain" in older.run("status").stdout
        found = until(lambda: older.json("status")["standstills"], "it stood still", seconds=60)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=15) as answer:
        text = answer.read().decode()
    counts = [line for line in text.splitlines() if line.startswith("sojourn_loop_standstill_seconds_count")]
    assert found["count"] <= sum(float(line.split()[1]) for line in counts if "no_processor" not in line)
