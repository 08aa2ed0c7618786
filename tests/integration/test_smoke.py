"""The shortest way through the whole agent."""

import os
import select
import signal
import subprocess
import sys

import pytest
from harness.agent import ROOT, AgentProcess
from harness.callers import Caller


def test_a_registered_process_gets_what_its_entry_says(agent: AgentProcess) -> None:
    """A caller with a matching entry gets an X.509-SVID and a JWT-SVID of exactly that entry."""
    agent.register("/work", f"unix:uid:{os.getuid()}")
    with Caller(agent.socket) as caller:
        assert ["spiffe://example.org/work"] == [each["spiffe_id"] for each in caller.ask("x509")["svids"]]
        assert "spiffe://example.org/work" == caller.ask("jwt", audience="a")["spiffe_id"]


def test_an_unregistered_process_gets_nothing(agent: AgentProcess) -> None:
    """A caller without an entry is told that no identity is issued."""
    with Caller(agent.socket) as caller:
        assert "no_identity" == caller.ask("x509")["code"]


def test_killed_tests_leave_no_agent() -> None:
    """An agent ends with the tests that started it, also where these are killed, and whichever thread started it."""
    program = """
import threading
from harness.agent import AgentProcess

agent = AgentProcess()
thread = threading.Thread(target=agent.start)
thread.start()
thread.join()
print(agent.pid, flush=True)
threading.Event().wait()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        agent = os.pidfd_open(int(tests.stdout.readline()))
        try:
            assert [] == select.select([agent], [], [], 0.2)[0]
            tests.send_signal(signal.SIGKILL)
            assert [agent] == select.select([agent], [], [], 10)[0]
        finally:
            os.close(agent)


def test_a_failed_test_waits_for_no_process() -> None:
    """A test that fails, also by its deadline, ends what it started instead of waiting for its end for ever."""
    with pytest.raises(ZeroDivisionError), subprocess.Popen(["sleep", "600"]) as slept:
        raise ZeroDivisionError
    assert -signal.SIGKILL == slept.returncode
