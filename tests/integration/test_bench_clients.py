"""The clients that put load on a Workload API for the bench: they count what was answered, and what was not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clients import CALLS, fetches, go_load
from harness.agent import AgentProcess, clean_environment
from peers import CLIENT

pytestmark = pytest.mark.full

PYTHON = Path(__file__).resolve().parent.parent / "bench" / "pyload.py"
GO = pytest.param("go", marks=pytest.mark.go)


@pytest.fixture(scope="module")
def agent():
    with AgentProcess() as agent:
        agent.register("/w", f"unix:uid:{os.getuid()}")
        yield agent


def command(client, agent, call, seconds):
    program = [str(CLIENT.there()[0])] if client == "go" else [sys.executable, str(PYTHON), "-library", client]
    return [*program, "-socket", agent.socket, "-call", call, "-clients", "2", "-seconds", str(seconds)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("client", [GO, "sojourn", "spiffe"])
def test_each_call(agent, client, call):
    """Every kind of call is answered, and told with latencies in milliseconds and the client's own CPU time."""
    argv = command(client, agent, call, 0.3)
    done = subprocess.run(argv, capture_output=True, text=True, env=clean_environment(), timeout=60)
    told = json.loads(done.stdout)
    assert {} == told["failed"], told
    assert told["calls"] > 0
    assert told["rate"] == pytest.approx(told["calls"] / told["seconds"])
    assert 0 < told["p50"] <= told["p99"] < 10_000
    assert 0 < told["client_cpu"] < 1


@pytest.mark.parametrize(
    ("client", "code"), [pytest.param("go", "PermissionDenied", marks=pytest.mark.go), ("sojourn", "NoIdentity")]
)
def test_failed_calls_are_counted(client, code):
    """Calls that are refused are no answers: they are counted apart, by code or by error."""
    with AgentProcess() as agent:
        entry = agent.register("/w", f"unix:uid:{os.getuid()}")
        argv = command(client, agent, "x509", 4)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=clean_environment()) as load:
            time.sleep(1.5)
            agent.run("entry", "delete", entry["id"])
            told = json.loads(load.communicate(timeout=60)[0])
    assert told["calls"] > 0
    assert [code] == list(told["failed"])
    assert told["failed"][code] > 0


@pytest.mark.go
def test_nobody_answers(tmp_path):
    """A load that can not even begin is no figure."""
    assert not fetches(go_load("x509", 1), str(tmp_path / "no.sock"))
