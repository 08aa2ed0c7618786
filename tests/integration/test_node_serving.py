"""The agent as a node of a real spire-server: what its workloads get, and what operators are told."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import nodes
from harness.agent import AgentProcess
from harness.federating import SpireServer
from harness.looking import until
from harness.raw import Wire
from harness.spirecli import binary
from harness.taskagent import TICKETS, inner_failures, make_agent, revoke_all
from sojourn import Client, TaskVerifier
from sojourn.errors import InvalidToken
from sojourn.jose.jws import parse_unverified
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import parse_certificates, verify_chain

pytestmark = pytest.mark.forked

DOMAIN = "example.org"
ME = f"unix:uid:{os.geteuid()}"
TRIAGE = f"spiffe://{DOMAIN}/agent/triage"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpireServer]:
    folder = tmp_path_factory.mktemp("spire")
    with SpireServer(binary("spire-server"), folder / "server", DOMAIN) as running:
        yield running


@pytest.fixture(scope="module")
def agent(server: SpireServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A node on which this user is /agent/triage."""
    folder = tmp_path_factory.mktemp("node")
    with make_agent(extra=nodes.upstream(server, folder)) as running:
        nodes.sees(running, nodes.register(server, running, "/agent/triage", ME), there=True)
        yield running
        revoke_all(running)
        assert [] == inner_failures(running)


@pytest.fixture
def wire(agent: AgentProcess) -> Iterator[Wire]:
    with Wire(agent.socket) as opened:
        yield opened


def ids(answer: Any) -> list[str]:
    return sorted(each.spiffe_id for each in answer.svids)


def until_ids(stream: Any, wanted: list[str]) -> Any:
    """The first answer of a stream that has these SPIFFE IDs."""
    for answer in stream:
        if ids(answer) == sorted(wanted):
            return answer
    raise AssertionError(f"the stream ended before it had {wanted}")


class TestServing:
    def test_the_server_lists_this_node(self, agent: AgentProcess, server: SpireServer) -> None:
        """What the agent says it is called is what the server knows it as."""
        listed = json.loads(server.run("agent", "list", "-output", "json").stdout)["agents"]
        paths = [each["id"]["path"] for each in listed]
        assert nodes.node_id(agent) in [f"spiffe://{DOMAIN}{path}" for path in paths]
        assert nodes.node_id(agent).startswith(f"spiffe://{DOMAIN}/spire/agent/join_token/")

    def test_x509_svids_are_the_servers(self, wire: Wire, server: SpireServer) -> None:
        """A workload's X.509-SVID chains to the server's authority, and the bundle beside it is the server's."""
        svid = wire.x509().svids[0]
        told = bundles.parse(TrustDomain(DOMAIN), json.loads(server.bundle()))
        chain = parse_certificates(svid.x509_svid)
        assert TRIAGE == svid.spiffe_id
        assert TRIAGE == str(
            verify_chain(chain, told.x509_authorities, told.trust_domain, chain[0].not_valid_before_utc)
        )
        assert set(told.x509_authorities) == set(parse_certificates(svid.bundle))

    def test_jwt_svids_are_the_servers(self, wire: Wire, server: SpireServer) -> None:
        """A JWT-SVID is good for this agent, and the same one is given again."""
        token = wire.jwt("reports").svids[0].svid
        assert TRIAGE == wire.validate("reports", token).spiffe_id
        assert token == wire.jwt("reports").svids[0].svid
        kids = [key["kid"] for key in json.loads(server.bundle())["keys"] if key["use"] == "jwt-svid"]
        assert parse_unverified(token).kid in kids

    def test_entries_reach_open_streams(self, agent: AgentProcess, server: SpireServer, wire: Wire) -> None:
        """What is registered at the server is pushed over an open stream, and what is deleted there is taken away."""
        stream = wire.x509_stream()
        assert [TRIAGE] == ids(next(stream))
        made = nodes.register(server, agent, "/second", ME)
        until_ids(stream, [TRIAGE, f"spiffe://{DOMAIN}/second"])
        server.run("entry", "delete", "-entryID", made)
        until_ids(stream, [TRIAGE])

    def test_foreign_bundles_are_the_servers(
        self, agent: AgentProcess, server: SpireServer, wire: Wire, tmp_path: Path
    ) -> None:
        """The bundle of a trust domain with which an entry federates comes from the server, and goes with the entry."""
        file = tmp_path / "other.json"
        file.write_text(server.bundle())
        server.run("bundle", "set", "-id", "spiffe://other.example", "-format", "spiffe", "-path", str(file))
        made = nodes.register(server, agent, "/federated", ME, federatesWith="spiffe://other.example")
        stream = wire.x509_stream()
        for answer in stream:
            if "spiffe://other.example" in answer.federated_bundles:
                break
        server.run("entry", "delete", "-entryID", made)
        until_ids(stream, [TRIAGE])
        until(lambda: "other.example" not in agent.run("bundle", "list").stdout, "the bundle is gone")

    def test_svids_are_signed_ahead(self, agent: AgentProcess, server: SpireServer) -> None:
        """An entry's SVID is there before any workload has asked for it."""
        made = nodes.register(server, agent, "/ahead", "unix:uid:54321")

        def ahead() -> bool:
            return any(each["spiffe_id"] == f"spiffe://{DOMAIN}/ahead" for each in agent.json("status")["svids"])

        until(ahead, "the SVID is signed", 30)
        server.run("entry", "delete", "-entryID", made)
        nodes.sees(agent, made, there=False)
        assert not ahead()

    def test_explain(self, agent: AgentProcess) -> None:
        """Who asks why a process has an identity is told as on any agent."""
        told = agent.run("explain", "--pid", str(os.getpid())).stdout
        assert "the process has 1 identity: spiffe://example.org/agent/triage" in told


class TestOperators:
    @pytest.mark.parametrize(
        ("command", "instead"),
        [
            (
                ["entry", "create", "--spiffe-id", "spiffe://example.org/x", "--selector", "unix:uid:7"],
                "spire-server entry create -parentID NODE -spiffeID spiffe://example.org/x -selector unix:uid:7",
            ),
            (["entry", "delete", "some-id"], "spire-server entry delete -entryID some-id"),
            (["authority", "prepare", "x509"], "spire-server localauthority x509 prepare"),
            (["bundle", "delete", "other.example"], "spire-server bundle delete"),
        ],
    )
    def test_changes_are_the_servers(self, agent: AgentProcess, command: list[str], instead: str) -> None:
        """What would change something that is the server's is refused, with the command to run there."""
        done = agent.run(*command, check=False)
        assert 1 == done.returncode
        assert "held_by_server" in done.stderr
        assert instead.replace("NODE", nodes.node_id(agent)) in done.stderr

    def test_entries_are_shown(self, agent: AgentProcess) -> None:
        """Operators see the server's entries here, below this node."""
        found = agent.json("entry", "list")["entries"]
        assert [TRIAGE] == [each["spiffe_id"] for each in found]
        assert nodes.node_id(agent) == found[0]["parent_id"]

    def test_attesting_is_recorded(self, agent: AgentProcess) -> None:
        """The journal has that the server has attested this node, and as whom."""
        records = agent.json("audit", "list", "--event", "node_attested")["records"]
        assert [nodes.node_id(agent)] == [each["fields"]["spiffe_id"] for each in records]


async def test_a_task_from_its_beginning_to_its_end(agent: AgentProcess) -> None:
    """A task begins, its token is good at a service's guard, and is good no more once the task has ended."""
    async with Client(agent.socket) as client, TaskVerifier(client, TICKETS) as verifier:
        await verifier.feed.wait_ready(10)
        async with client.task("triage-ticket") as task:
            token = (await task.token()).token
            assert TRIAGE == str((await verifier.verify(token, "ticket:read")).spiffe_id)
        with pytest.raises(InvalidToken) as refused:
            await verified_for_ever(verifier, token)
        assert "task_over" == refused.value.reason_code


async def verified_for_ever(verifier: TaskVerifier, token: str) -> None:
    """Until it is refused: the feed's word arrives in its own time."""
    async with asyncio.timeout(10):
        while True:
            await verifier.verify(token)
            await asyncio.sleep(0.01)
