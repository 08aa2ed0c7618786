"""The SPIFFE libraries of all languages get over what happens to the agent and to their entries."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness.agent import AgentProcess
from harness.languages import Language, languages
from harness.raw import Admin, module_agent

pytestmark = [pytest.mark.full, pytest.mark.root]
USER = 4831
ID = "spiffe://example.org"
PUSHED_SECONDS = 0.5
"""How long the libraries are given to take over what is pushed to them."""
RETRYING = {"go", "java"}
"""Those whose watch says of each error that it happened, and goes on."""


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running:
        yield running


@pytest.mark.parametrize("name", languages("go", "rust", "java", "python"))
def test_the_entry_goes(agent: AgentProcess, name: str) -> None:
    """When its entry is deleted a watch hears PERMISSION_DENIED at once; one that goes on has the next entry's SVID."""
    client = Language(name, agent)
    with Admin(agent.admin_socket) as admin:
        made = admin.register("/first", f"unix:uid:{USER}")
        with client.run(USER, "watch", "-updates", "2", "-timeout", "20s") as program:
            assert [f"{ID}/first"] == program.hear()["spiffe_ids"]
            admin.delete(made.id)
            refused = program.hear()
            made = admin.register("/second", f"unix:uid:{USER}")
            status, lines = program.finish()
        admin.delete(made.id)
    assert ("error", "PERMISSION_DENIED") == (refused["event"], refused["code"])
    if name in RETRYING:
        assert (0, [f"{ID}/second"]) == (status, lines[-1]["spiffe_ids"])
    else:
        assert (1, []) == (status, lines)


class Connecting:
    """A server in each language, and a client of the next language that connects to it again and again; besides them,
    watches in the languages whose watch tells of each error.
    """

    def __init__(self, agent: AgentProcess, stack: ExitStack) -> None:
        """Return when all have connected once."""
        clients = [Language(name, agent) for name in ("go", "rust", "java", "python", "sojourn")]
        servers = [stack.enter_context(each.run(USER, "server", "-peer", f"{ID}/one")) for each in clients]
        flags = ("-peer", f"{ID}/one", "-times", "10000", "-every", "100ms")
        self._dials = [
            stack.enter_context(each.run(USER, "dial", "-addr", server.hear()["addr"], *flags))
            for each, server in zip(clients, [*servers[1:], servers[0]], strict=True)
        ]
        self._first = [dial.hear()["peer_serial"] for dial in self._dials]
        self.watches = [
            stack.enter_context(each.run(USER, "watch", "-updates", "2", "-timeout", "60s"))
            for each in clients
            if each.name in RETRYING
        ]
        assert ["update"] * len(self.watches) == [watch.hear()["event"] for watch in self.watches]

    def check(self) -> None:
        """Up to now and five times more each has connected, and the servers have come to another certificate."""
        for dial, first in zip(self._dials, self._first, strict=True):
            serial, more = first, dial.waiting + 5
            while more > 0 or serial == first:
                line = dial.hear()
                assert "dialled" == line["event"], line
                serial, more = line["peer_serial"], more - 1


@pytest.mark.go
@pytest.mark.rust
@pytest.mark.java
def test_the_agent_starts_anew() -> None:
    """While the agent starts anew no connection between workloads fails, and then each has a new SVID by itself; those
    whose libraries tell of errors have heard of none but UNAVAILABLE.
    """
    with ExitStack() as stack:
        agent = stack.enter_context(AgentProcess())
        with Admin(agent.admin_socket) as admin:
            admin.register("/one", f"unix:uid:{USER}")
        connecting = Connecting(agent, stack)
        assert agent.stop() == 0
        agent.start()
        connecting.check()
        for watch in connecting.watches:
            status, [*errors, update] = watch.finish()
            assert (0, "update", {"UNAVAILABLE"}) == (status, update["event"], {line["code"] for line in errors})


@pytest.mark.go
@pytest.mark.rust
@pytest.mark.java
def test_the_root_changes(agent: AgentProcess) -> None:
    """Nobody's connection fails while a new root is published, signs, and all of the old one is replaced and revoked."""
    with Admin(agent.admin_socket) as admin, ExitStack() as stack:
        made = admin.register("/one", f"unix:uid:{USER}")
        stack.callback(admin.delete, made.id)
        [old] = [key["authority_id"] for key in agent.json("authority", "show")["keys"] if key["kind"] == "x509"]
        connecting = Connecting(agent, stack)
        new = agent.json("authority", "prepare", "x509")["authority_id"]
        time.sleep(PUSHED_SECONDS)
        agent.run("authority", "activate", new)
        agent.run("authority", "taint", old)
        time.sleep(PUSHED_SECONDS)
        agent.run("authority", "revoke", old)
        connecting.check()
