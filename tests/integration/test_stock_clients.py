"""OAuth clients that know nothing of Sojourn get tokens from it, unchanged, each by its documented options."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from harness.agent import AgentProcess
from harness.exchanges import part
from harness.oauthclients import EXCHANGE, Ask, Endpoint, Refused, Wanted, stock
from harness.taskagent import ISSUER, PLACE_A, TICKETS, TRIAGE, shared_agent
from joserfc import jwt
from joserfc.jwk import KeySet
from sojourn import SyncClient

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    with shared_agent() as agent:
        yield agent


@pytest.fixture(scope="module")
def service(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as client:
        yield client


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What oauthlib wants to be told before it sends anything to a URL that is not https: it is a Unix socket."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def socket(shared: AgentProcess) -> Endpoint:
    return Endpoint("http://localhost/token", socket=shared.socket)


@pytest.fixture
def exchange(service: SyncClient) -> Wanted:
    """A token exchange of this process's own JWT-SVID."""
    subject = service.fetch_jwt_svid(ISSUER).token
    return Wanted(EXCHANGE, TRIAGE, TICKETS, "ticket:read", subject)


def good(shared: AgentProcess, service: SyncClient, answer: dict[str, Any]) -> dict[str, Any]:
    """The claims of a token that is good: by the published keys, and by the agent's word."""
    token = answer["access_token"]
    with httpx.Client(transport=httpx.HTTPTransport(uds=shared.socket)) as client:
        keys = KeySet.import_key_set(client.get("http://localhost/keys").json())
    claims: dict[str, Any] = jwt.decode(token, keys, algorithms=["ES256"]).claims
    assert ("at+jwt", "bearer") == (part(token, 0)["typ"], answer["token_type"].lower())
    assert (ISSUER, TRIAGE, TRIAGE, TICKETS) == (claims["iss"], claims["sub"], claims["client_id"], claims["aud"])
    assert [["ticket:read"]] == [each["actions"] for each in claims["authorization_details"]]
    verdict = service.validate_token(token, TICKETS)
    assert (True, "") == (verdict.valid, verdict.reason)
    return claims


@pytest.mark.parametrize("ask", stock())
def test_token_exchange(
    shared: AgentProcess, service: SyncClient, socket: Endpoint, exchange: Wanted, ask: Ask
) -> None:
    """Token exchange (RFC 8693) over the Unix socket: a JWT-SVID for an access token, in one call."""
    good(shared, service, ask(shared, socket, exchange))


@pytest.mark.parametrize("ask", stock())
def test_refusals(shared: AgentProcess, socket: Endpoint, exchange: Wanted, ask: Ask) -> None:
    """A refusal reaches the client's user as the client reports such: with the code of the RFC."""
    unknown = Wanted(EXCHANGE, TRIAGE, "https://nowhere.example.org", "ticket:read", exchange.subject_token)
    with pytest.raises(Refused, match="invalid_target"):
        ask(shared, socket, unknown)
    beyond = Wanted(EXCHANGE, TRIAGE, PLACE_A, "doc:shred", exchange.subject_token)
    with pytest.raises(Refused, match=r"invalid_scope|invalid_request|invalid_authorization_details"):
        ask(shared, socket, beyond)
