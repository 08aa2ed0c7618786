"""Software that uses `spiffe`, the Workload API library of PyPI, works with the agent unchanged."""

import os
import sys
from collections.abc import Iterator

import pytest
from harness.agent import ROOT, AgentProcess
from harness.program import Program
from harness.raw import Admin, module_agent

ID = "spiffe://example.org"
SCRIPT = str(ROOT / "tests" / "clients" / "python" / "spiffe_client.py")


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/first", f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}", x509_svid_ttl=10)
        admin.register("/second", f"unix:uid:{os.getuid()}")
        yield running


def run(agent: AgentProcess, *arguments: str) -> Program:
    return Program([sys.executable, SCRIPT, *arguments], agent.environment)


def test_x509(agent: AgentProcess) -> None:
    """`spiffe` accepts the X.509-SVID and takes the first one for its default."""
    with run(agent, "x509") as program:
        status, [svid] = program.finish()
    assert (0, f"{ID}/first", 2) == (status, svid["spiffe_id"], svid["chain_len"])


@pytest.mark.parametrize(("asked", "expected"), [((), "/first"), (("-spiffe-id", f"{ID}/second"), "/second")])
def test_jwt(agent: AgentProcess, asked: tuple[str, ...], expected: str) -> None:
    """`spiffe` gets the JWT-SVID that it asks for, which the agent and the bundle both find good."""
    with run(agent, "jwt", "-audience", "a", *asked) as program:
        status, [jwt, by_agent, by_bundle] = program.finish()
    assert (0, ID + expected) == (status, jwt["spiffe_id"])
    assert [("agent", ID + expected), ("bundle", ID + expected)] == [
        (each["by"], each["spiffe_id"]) for each in (by_agent, by_bundle)
    ]


def test_an_id_that_is_not_its_own(agent: AgentProcess) -> None:
    """For an ID that it has no entry for it hears PERMISSION_DENIED."""
    with run(agent, "jwt", "-audience", "a", "-spiffe-id", f"{ID}/third") as program:
        status, [error] = program.finish()
    assert (1, "PERMISSION_DENIED") == (status, error["code"])


@pytest.mark.forked
def test_a_watch_over_a_rotation(agent: AgentProcess) -> None:
    """A watch stays open over a rotation: the SVID that is due is new, the other stays."""
    with run(agent, "watch", "-updates", "2", "-timeout", "20s") as program:
        status, lines = program.finish()
    assert (0, ["update", "update"]) == (status, [line["event"] for line in lines])
    [first, second] = zip(*(line["serials"] for line in lines), strict=True)
    assert (2, 1) == (len(set(first)), len(set(second)))
    assert {(f"{ID}/first", f"{ID}/second")} == {tuple(line["spiffe_ids"]) for line in lines}
