"""Software that uses go-spiffe, the library of most SPIFFE software, works with the agent unchanged."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.program import Program, published
from harness.raw import Admin, module_agent

pytestmark = [pytest.mark.root, pytest.mark.go]
CLIENT, SERVER, SHORT, STRANGER = 4801, 4802, 4803, 4804
ID = "spiffe://example.org"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/client", f"unix:uid:{CLIENT}", hint="main")
        admin.register("/server", f"unix:uid:{SERVER}")
        admin.register("/short", f"unix:uid:{SHORT}", x509_svid_ttl=10)
        yield running


@pytest.fixture(scope="module")
def client(agent: AgentProcess, go_client: str) -> Path:
    return published(go_client, agent.folder, "client")


def run(agent: AgentProcess, uid: int, client: Path, *arguments: str) -> Program:
    return Program([str(client), *arguments], agent.environment, uid=uid)


def test_x509(agent: AgentProcess, client: Path) -> None:
    """It accepts the X.509-SVID: chain of leaf and issuer, key, hint."""
    with run(agent, CLIENT, client, "x509") as program:
        status, [svid] = program.finish()
    assert (0, f"{ID}/client", 2, "main") == (status, svid["spiffe_id"], svid["chain_len"], svid["hint"])


def test_jwt(agent: AgentProcess, client: Path) -> None:
    """It gets a JWT-SVID, which the agent and the bundle both find good."""
    with run(agent, CLIENT, client, "jwt", "-audience", "a", "-spiffe-id", f"{ID}/client") as program:
        status, [jwt, by_agent, by_bundle] = program.finish()
    assert (0, f"{ID}/client", "main") == (status, jwt["spiffe_id"], jwt["hint"])
    assert [("agent", f"{ID}/client"), ("bundle", f"{ID}/client")] == [
        (each["by"], each["spiffe_id"]) for each in (by_agent, by_bundle)
    ]


def test_a_stranger(agent: AgentProcess, client: Path) -> None:
    """Without an entry it hears PERMISSION_DENIED."""
    with run(agent, STRANGER, client, "jwt", "-audience", "a", "-timeout", "3s") as program:
        status, lines = program.finish()
    assert (1, "PERMISSION_DENIED") == (status, lines[-1]["code"])


def test_a_watch_over_a_rotation(agent: AgentProcess, client: Path) -> None:
    """A watch stays open over a rotation and hears of the new certificate, and of no error."""
    with run(agent, SHORT, client, "watch", "-updates", "2", "-timeout", "20s") as program:
        status, lines = program.finish()
    assert (0, ["update", "update"]) == (status, [line["event"] for line in lines])
    assert 2 == len({line["serials"][0] for line in lines})
    assert {(f"{ID}/short",)} == {tuple(line["spiffe_ids"]) for line in lines}


def test_mutual_tls(agent: AgentProcess, client: Path) -> None:
    """Two processes know each other by their SPIFFE IDs."""
    with run(agent, SERVER, client, "server", "-peer", f"{ID}/client") as server:
        address = server.hear()["addr"]
        dial = ("dial", "-addr", address, "-peer", f"{ID}/server")
        with run(agent, CLIENT, client, *dial) as dialler:
            status, [dialled] = dialler.finish()
        peer = server.hear()
    assert (0, "dialled") == (status, dialled["event"])
    assert ("peer", f"{ID}/client") == (peer["event"], peer["spiffe_id"])


def test_mutual_tls_with_another_server(agent: AgentProcess, client: Path) -> None:
    """A client refuses a server that has another SPIFFE ID than it expects."""
    with run(agent, SERVER, client, "server", "-peer", f"{ID}/client") as server:
        dial = ("dial", "-addr", server.hear()["addr"], "-peer", f"{ID}/other")
        with run(agent, CLIENT, client, *dial) as dialler:
            status, [error] = dialler.finish()
    assert (1, True) == (status, f'unexpected ID "{ID}/server"' in error["message"])


def test_mutual_tls_with_another_client(agent: AgentProcess, client: Path) -> None:
    """A server refuses a client that has another SPIFFE ID than it expects."""
    with run(agent, SERVER, client, "server", "-peer", f"{ID}/other") as server:
        dial = ("dial", "-addr", server.hear()["addr"], "-peer", f"{ID}/server")
        with run(agent, CLIENT, client, *dial) as dialler:
            status, _ = dialler.finish()
        refused = server.hear()
    assert (1, True) == (status, f'unexpected ID "{ID}/client"' in refused["message"])


def test_mutual_tls_over_a_rotation(agent: AgentProcess, client: Path) -> None:
    """Connections that are made again and again over a rotation at both ends all succeed."""
    with run(agent, SHORT, client, "server", "-peer", f"{ID}/short") as server:
        dial = ("dial", "-addr", server.hear()["addr"], "-peer", f"{ID}/short", "-times", "70", "-every", "100ms")
        with run(agent, SHORT, client, *dial) as dialler:
            status, lines = dialler.finish()
    assert (0, list(range(1, 71))) == (status, [line["n"] for line in lines])
    assert 2 <= len({line["peer_serial"] for line in lines})
