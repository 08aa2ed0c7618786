"""The lines of a real agent's log: stable fields, the first line, what calls for somebody, and the page's commands."""

import json
import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import ROOT, AgentProcess
from harness.exchanges import http
from harness.lacking import lacking_program
from harness.looking import until
from harness.raw import Wire, refusal
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.runtime.log_events import LOG_EVENTS

PAGE = ROOT / "docs" / "operate" / "logs.md"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


def line_of(agent: AgentProcess, event: str, **fields: Any) -> dict[str, Any]:
    """The first line of an event with these fields, waited for."""
    return until(
        lambda: next(
            (line for line in agent.log_lines() if line["event"] == event and fields.items() <= line.items()),
            None,
        ),
        f"{event} is logged",
    )


def test_the_first_line(agent: AgentProcess) -> None:
    """The first line of a start names the agent's version, its node, Python and the kernel."""
    first = agent.log_lines()[0]
    assert "agent_starting" == first["event"]
    status = agent.json("status")
    assert (status["version"], status["node_id"]) == (first["version"], first["node"])
    assert (platform.python_version(), os.uname().release) == (first["python"], first["kernel"])


def test_a_refused_call(agent: AgentProcess) -> None:
    """A refused call has method, code, reason, door, duration, and whose it was; by either socket."""
    with Wire(agent.socket) as wire:
        assert refusal(lambda: wire.unary("/sojourn.v1.Tasks/ShowTask", pb.ShowTaskRequest(task_id="x"), pb.Task))
    line = line_of(agent, "call_refused", method="sojourn.v1.Tasks/ShowTask")
    assert ("info", "no_identity", "public", os.getuid(), os.getpid()) == (
        line["level"], line["code"], line["door"], line["uid"], line["pid"],
    )  # fmt: skip
    assert line["reason"]
    assert line["duration_ms"] >= 0
    assert "alert" not in line
    agent.run("task", "show", "nosuch", check=False)
    assert "GetTask" in line_of(agent, "call_refused", door="admin")["method"]


def test_a_refused_request(agent: AgentProcess) -> None:
    """The line of a refused HTTP request says whose it was, at which door, and why, by a code."""
    with http(agent.socket) as opened:
        assert 400 == opened.post("/token", data={"grant_type": "none"}).status_code
    line = line_of(agent, "http_refused", path="/token")
    assert ("public", os.getuid(), os.getpid()) == (line["door"], line["uid"], line["pid"])
    assert line["code"]
    assert line["duration_ms"] >= 0


@pytest.mark.root
def test_a_refused_caller(agent: AgentProcess) -> None:
    """A connection that is closed before any call says at which door that was."""
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({agent.admin_socket!r}); s.recv(1)"
    os.chmod(agent.admin_socket, 0o666)
    try:
        asked = ["setpriv", "--reuid=4396", "/usr/bin/python3", "-c", script]
        subprocess.run(asked, timeout=60, capture_output=True)
        assert "admin" == line_of(agent, "caller_refused", uid=4396)["door"]
    finally:
        os.chmod(agent.admin_socket, 0o600)


def test_what_calls_for_somebody() -> None:
    """An event that an operator must see has `alert`, and is on the page with its mark."""
    with AgentProcess(config='trust_domain = "example.org"\n') as other:
        other.config.write_text("trust_domain = ")
        os.kill(other.pid, signal.SIGHUP)
        line = line_of(other, "config_refused")
    assert (True, "error") == (line["alert"], line["level"])
    assert "| `config_refused` ! | error |" in PAGE.read_text()


def test_every_event_is_known(agent: AgentProcess) -> None:
    """What an agent has logged is in the table of events."""
    assert set() == {line["event"] for line in agent.log_lines()} - LOG_EVENTS.keys()


def test_the_pages_commands(agent: AgentProcess) -> None:
    """Each command of the page runs as it is printed, on a log."""
    lacking_program("jq")
    with http(agent.socket) as opened:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        opened.post("/token", data={"grant_type": "none"}, headers={"traceparent": trace})
    with Wire(agent.socket) as wire:
        assert refusal(lambda: wire.unary("/sojourn.v1.Tasks/ShowTask", pb.ShowTaskRequest(task_id="x"), pb.Task))
    line_of(agent, "http_refused", trace_id=trace[3:35])
    line_of(agent, "call_refused")
    commands = [line[4:] for line in PAGE.read_text().splitlines() if line.startswith("    jq ")]
    assert 3 == len(commands)
    printed = []
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=agent.folder, capture_output=True, text=True, timeout=60)
        assert (0, "") == (done.returncode, done.stderr), command
        printed.append([json.loads(line) for line in done.stdout.splitlines()])
    alerts, refused, traced = printed
    assert [] == [line for line in alerts if not line["alert"]]
    assert {"code", "method", "uid", "reason"} == set(refused[0])
    assert {"http_refused"} == {line["event"] for line in traced}
