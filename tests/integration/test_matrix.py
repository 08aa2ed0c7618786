"""Mutual TLS between the languages: each one's client with each one's server, on the identities that the agent gave."""

from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.languages import Language, languages
from harness.raw import Admin, module_agent

pytestmark = [pytest.mark.root]
CLIENT, SERVER, OTHER = 4811, 4812, 4813
ID = "spiffe://example.org"
ALL = languages("go", "rust", "java", "python", "sojourn")


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/client", f"unix:uid:{CLIENT}")
        admin.register("/server", f"unix:uid:{SERVER}")
        admin.register("/other", f"unix:uid:{OTHER}")
        yield running


@pytest.fixture(params=ALL)
def server(request: pytest.FixtureRequest, agent: AgentProcess) -> Language:
    return Language(request.param, agent)


@pytest.fixture(params=ALL)
def client(request: pytest.FixtureRequest, agent: AgentProcess) -> Language:
    return Language(request.param, agent)


def test_they_know_each_other(client: Language, server: Language) -> None:
    """Each end verifies the other's SPIFFE ID, and a line comes back."""
    with server.run(SERVER, "server", "-peer", f"{ID}/client") as listening:
        address = listening.hear()["addr"]
        with client.run(CLIENT, "dial", "-addr", address, "-peer", f"{ID}/server") as dialler:
            status, [dialled] = dialler.finish()
        peer = listening.hear()
    assert (0, "dialled") == (status, dialled["event"])
    assert ("peer", f"{ID}/client") == (peer["event"], peer["spiffe_id"])


def test_a_wrong_id_is_refused(client: Language, server: Language) -> None:
    """A client refuses the server whose ID it does not expect, and a server the client whose ID it does not."""
    with server.run(SERVER, "server", "-peer", f"{ID}/client") as listening:
        address = listening.hear()["addr"]
        with client.run(CLIENT, "dial", "-addr", address, "-peer", f"{ID}/elsewhere") as dialler:
            status, [error] = dialler.finish()
        assert (1, "error", True) == (status, error["event"], f"{ID}/server" in error["message"])
        with client.run(OTHER, "dial", "-addr", address, "-peer", f"{ID}/server") as dialler:
            status, [error] = dialler.finish()
        assert (1, "error") == (status, error["event"])
        while f"{ID}/other" not in (refused := listening.hear()).get("message", ""):
            assert "peer" != refused["event"] or f"{ID}/client" == refused["spiffe_id"]
