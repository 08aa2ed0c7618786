"""Tasks on a node of a real spire-server have credentials of providers outside, by the SVIDs that the server signs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import nodes
from harness.agent import AgentProcess
from harness.authserver import AuthServer
from harness.federating import SpireServer
from harness.looking import until
from harness.outside import ORDERS, PERMIT_ALL, outside_agent, outside_type
from harness.spirecli import binary
from harness.taskagent import ISSUER, TRIAGE, write_type
from sojourn import SojournError, SyncClient

pytestmark = pytest.mark.full

DOMAIN = "example.org"


@contextmanager
def node(server: SpireServer, folder: Path, corp: AuthServer, other: AuthServer) -> Iterator[AgentProcess]:
    """A node on which this user is /agent/triage, with the task type `outside`."""
    with outside_agent(corp, other, extra=nodes.upstream(server, folder)) as agent:
        write_type(agent.folder / "types", "outside", outside_type(), PERMIT_ALL)
        agent.run("policy", "reload")
        nodes.sees(agent, nodes.register(server, agent, "/agent/triage", f"unix:uid:{os.geteuid()}"), there=True)
        yield agent


def test_a_servers_svid_is_the_assertion(tmp_path: Path, corp: AuthServer, other: AuthServer) -> None:
    """A task's credential is had by a JWT-SVID of its workload, with the server's issuer, and taken back at its end."""
    lines = f'jwt_issuer = "{ISSUER}"'
    with (
        SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN, lines=lines) as server,
        node(server, tmp_path, corp, other) as agent,
        SyncClient(agent.socket) as client,
    ):
        before = len(corp.calls("token"))
        with client.task("outside") as task:
            got = task.token(ORDERS, ["orders:read"])
            assert corp.active(got.token)
        (call,) = corp.calls("token")[before:]
        claims = call.claims["subject_token"]
        assert (ISSUER, TRIAGE, [corp.issuer]) == (claims["iss"], claims["sub"], claims["aud"])
        until(lambda: not corp.active(got.token), "what the task had is taken back")


def test_a_server_without_an_issuer(tmp_path: Path, corp: AuthServer, other: AuthServer) -> None:
    """A server whose SVIDs say no issuer is told what to set, and no provider is asked."""
    with (
        SpireServer(binary("spire-server"), tmp_path / "server", DOMAIN) as server,
        node(server, tmp_path, corp, other) as agent,
        SyncClient(agent.socket) as client,
        client.task("outside") as task,
    ):
        before = len(corp.calls("token"))
        with pytest.raises(SojournError) as refused:
            task.token(ORDERS, ["orders:read"])
        assert before == len(corp.calls("token"))
        told = str(refused.value)
        assert "jwt_issuer" in told
