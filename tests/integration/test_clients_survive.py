"""The SPIFFE libraries of all languages get over what happens to the agent and to their entries."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness.agent import AgentProcess
from harness.languages import Language, languages
from harness.raw import Admin, module_agent

pytestmark = [pytest.mark.root]
USER = 4831
ID = "spiffe://example.org"
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
        clients = [Language(name, agent) for name in ("go", "rust", "java", "python", "sojourn")]
        watches = [
            stack.enter_context(each.run(USER, "watch", "-updates", "2", "-timeout", "20s"))
            for each in clients
            if each.name in RETRYING
        ]
        servers = [stack.enter_context(each.run(USER, "server", "-peer", f"{ID}/one")) for each in clients]
        flags = ("-peer", f"{ID}/one", "-times", "60", "-every", "200ms")
        dials = [
            stack.enter_context(each.run(USER, "dial", "-addr", server.hear()["addr"], *flags))
            for each, server in zip(clients, servers, strict=True)
        ]
        first = [dial.hear() for dial in dials] + [watch.hear() for watch in watches]
        assert {"dialled", "update"} == {line["event"] for line in first}

        assert agent.stop() == 0
        agent.start()

        for each, dial in zip(clients, dials, strict=True):
            status, lines = dial.finish()
            assert (each.name, 0, list(range(2, 61))) == (each.name, status, [line.get("n", line) for line in lines])
            assert 2 <= len({line["peer_serial"] for line in lines}), each.name
        for watch in watches:
            status, [*errors, update] = watch.finish()
            assert (0, "update", {"UNAVAILABLE"}) == (status, update["event"], {line["code"] for line in errors})
