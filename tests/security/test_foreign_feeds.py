"""Feeds of the tasks at a service, asked for by others: they would tell which tasks live there, when, and why they end."""

import os
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.taskagent import PLACE_A, TICKETS, make_agent
from harness.taskcalls import Feed
from sojourn import Client, RemoteAgent, SyncClient, TaskVerifier, X509Source
from sojourn.errors import Refused

SERVICES = f"""
[listen]
tcp = "127.0.0.1:0"
[[services]]
resource = "{TICKETS}"
workloads = ["spiffe://example.org/tickets"]
"""
REFUSED = ("PERMISSION_DENIED", f"not a workload of the service '{TICKETS}': [[services]] names others")


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """This user is /agent/triage; TICKETS is /tickets, and nobody is named for PLACE_A."""
    with make_agent(extra=SERVICES) as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


@pytest.mark.parametrize("audiences", [[TICKETS], [PLACE_A, TICKETS], [TICKETS, TICKETS]])
def test_by_another_than_the_service(agent: AgentProcess, audiences: list[str]) -> None:
    """Where the configuration says which workloads a service is, nobody else hears of its tasks, whatever it adds."""
    with SyncClient(agent.socket) as client, client.task("triage-ticket"), Feed(agent.socket, audiences) as feed:
        assert REFUSED == feed.end()


@pytest.mark.forked
def test_by_the_service_while_it_is(agent: AgentProcess) -> None:
    """A workload of the service hears of them, until it is that no more: another identity keeps nothing open."""
    entry = agent.register("/tickets", f"unix:uid:{os.getuid()}")
    with (
        SyncClient(agent.socket) as client,
        client.task("triage-ticket") as task,
        Feed(agent.socket, [TICKETS, PLACE_A]) as feed,
    ):
        assert [task.id] == [each.id for each in feed.hear("snapshot").snapshot.tasks]
        agent.run("entry", "delete", entry["id"])
        assert REFUSED == feed.end()


def test_where_no_service_is_named(agent: AgentProcess) -> None:
    """For another resource whoever has an identity may watch, so that a verifier needs no configuration."""
    with Feed(agent.socket, [PLACE_A]) as feed:
        assert feed.hear("snapshot")


@pytest.mark.forked
async def test_from_another_machine(agent: AgentProcess) -> None:
    """Over the network it is the SPIFFE ID of the connection that counts."""
    node = agent.json("status")["node_id"]
    async with (
        Client(agent.socket) as client,
        X509Source(client) as source,
        RemoteAgent(agent.tcp, node, source) as opened,
        TaskVerifier(opened, TICKETS) as verifier,
    ):
        with pytest.raises(Refused, match=r"not a workload of the service .*: \[\[services\]\] names others"):
            await verifier.feed.wait_ready(2)
        async with TaskVerifier(opened, PLACE_A) as other:
            await other.feed.wait_ready(20)
