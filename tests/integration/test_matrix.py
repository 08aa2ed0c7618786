"""Mutual TLS between the languages: each one's client with each one's server, on the identities that agents gave."""

from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.languages import Language, languages
from harness.raw import Admin, entry, module_agent

pytestmark = [pytest.mark.full, pytest.mark.root]
CLIENT, SERVER, OTHER, FEDERATED = 4811, 4812, 4813, 4814
ID = "spiffe://example.org"
THERE = "spiffe://other.example"
NAMES = ("go", "rust", "java", "python", "sojourn")
ALL = languages(*NAMES)


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/client", f"unix:uid:{CLIENT}")
        admin.register("/server", f"unix:uid:{SERVER}")
        admin.register("/other", f"unix:uid:{OTHER}")
        yield running


@pytest.fixture(scope="module")
def there(agent: AgentProcess) -> Iterator[AgentProcess]:
    """An agent of another trust domain. The two domains know each other's bundle."""
    with (
        module_agent('trust_domain = "other.example"\n') as running,
        Admin(agent.admin_socket) as here,
        Admin(running.admin_socket) as admin,
    ):
        here.know(admin.bundle())
        admin.know(here.bundle())
        here.register("/federated", f"unix:uid:{FEDERATED}", federates_with=["other.example"])
        server = entry("/server", f"unix:uid:{SERVER}", federates_with=["example.org"])
        server.spiffe_id.trust_domain = "other.example"
        assert [0] == [result.status.code for result in admin.create(server)]
        yield running


@pytest.fixture(params=ALL)
def server(request: pytest.FixtureRequest, agent: AgentProcess) -> Language:
    return Language(request.param, agent)


@pytest.fixture
def server_there(client: Language, there: AgentProcess) -> Language:
    """Another language's server, of the other trust domain: so each language has both parts once."""
    return Language(NAMES[NAMES.index(client.name) - 1], there)


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


def test_across_trust_domains(client: Language, server_there: Language) -> None:
    """A client of one trust domain and a server of another know each other once their entries federate, not before."""
    with server_there.run(SERVER, "server", "-peer", f"{ID}/federated") as listening:
        dial = ("dial", "-addr", listening.hear()["addr"], "-peer", f"{THERE}/server")
        with client.run(FEDERATED, *dial) as dialler:
            status, [dialled] = dialler.finish()
        peer = listening.hear()
        with client.run(CLIENT, *dial) as dialler:
            alone, [error] = dialler.finish()
    assert (0, "dialled") == (status, dialled["event"])
    assert ("peer", f"{ID}/federated") == (peer["event"], peer["spiffe_id"])
    assert (1, "error") == (alone, error["event"])
