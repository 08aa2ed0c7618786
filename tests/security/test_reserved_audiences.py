"""A workload's own JWT-SVIDs, shown to the outside systems whose credentials are for tasks alone."""

import os
from collections.abc import Iterator

import grpc
import pytest
from harness.agent import AgentProcess
from harness.outside import PERMIT_ALL
from harness.strangers import stranger
from harness.taskagent import STRANGER_UID, TRIAGE, make_agent, write_type
from harness.taskcalls import refusal
from sojourn import SyncClient
from sojourn._pb import workload_pb2 as pb
from sojourn.errors import Refused

REALM = "https://idp.example.org/realms/x"
PROVIDER = f"""
[providers.corp]
kind = "keycloak"
issuer = "{REALM}"
"""
TYPE = f"""
allowed_workloads = ["{TRIAGE}"]
[[ceiling]]
resource = "https://orders.example.org"
actions = ["orders:read"]
provider = "corp"
ask = {{ audience = "orders", scopes = {{ "orders:read" = ["orders.read"] }} }}
"""
FETCH = "/SpiffeWorkloadAPI/FetchJWTSVID"


def agent_with(extra: str) -> Iterator[AgentProcess]:
    made = make_agent(extra=extra)
    write_type(made.folder / "types", "at-corp", TYPE, PERMIT_ALL)
    with made as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """This user is /agent/triage; `corp` gives tasks the credentials of a realm."""
    yield from agent_with(PROVIDER)


@pytest.fixture
def open_agent() -> Iterator[AgentProcess]:
    """The same, where workloads may go there by themselves."""
    yield from agent_with(PROVIDER + "[identity]\njwt_svid_for_providers = true\n")


def test_of_a_provider(agent: AgentProcess) -> None:
    """A workload gets no JWT-SVID that a provider's outside system would take, and the journal has who asked for one."""
    with (
        SyncClient(agent.socket) as client,
        pytest.raises(Refused, match="are for provider 'corp' alone, which gives its tasks"),
    ):
        client.fetch_jwt_svid(REALM)
    denied = [each["fields"] for each in agent.json("audit", "tail")["records"] if each["event"] == "jwt_svid_refused"]
    assert (REALM, "corp", os.getpid()) in [(each["audience"], each["provider"], each["pid"]) for each in denied]


@pytest.mark.parametrize("audience", [["a", REALM], [f"{REALM}/protocol/openid-connect/token"], [REALM, REALM]])
def test_among_others(agent: AgentProcess, audience: list[str]) -> None:
    """Nor one that is for others too, or for an endpoint of that system."""
    request = pb.JWTSVIDRequest(audience=audience)
    assert grpc.StatusCode.PERMISSION_DENIED.name == refusal(agent.socket, FETCH, request, pb.JWTSVIDResponse)[0]


def test_of_anybody_else(agent: AgentProcess) -> None:
    """For whoever is no provider it gets them as ever."""
    with SyncClient(agent.socket) as client:
        for audience in ("a", "https://idp.example.org/realms/other", "https://idp.example.org"):
            assert client.fetch_jwt_svid(audience).token


@pytest.mark.root
def test_of_another_workload(agent: AgentProcess) -> None:
    """Who has no tasks there gets its own: a service asks the realm about the tokens that it is shown."""
    agent.register("/orders", f"unix:uid:{STRANGER_UID}")
    with stranger(agent.socket, STRANGER_UID) as service:
        assert "spiffe://example.org/orders" == service.ask("jwt", audience=REALM)["spiffe_id"]


def test_of_two_identities(agent: AgentProcess) -> None:
    """A process that is another workload too gets that one's, and asks in vain for the one that has tasks there."""
    entry = agent.register("/orders", f"unix:uid:{os.getuid()}")
    with SyncClient(agent.socket) as client:
        assert "spiffe://example.org/orders" == str(client.fetch_jwt_svid(REALM).spiffe_id)
        with pytest.raises(Refused, match="for provider"):
            client.fetch_jwt_svid(REALM, TRIAGE)
    agent.run("entry", "delete", entry["id"])


def test_where_that_is_allowed(open_agent: AgentProcess) -> None:
    """An operator may let workloads go there by themselves."""
    with SyncClient(open_agent.socket) as client:
        assert client.fetch_jwt_svid(REALM).token
