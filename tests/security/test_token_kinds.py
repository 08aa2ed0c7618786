"""Tokens of one kind never stand in for those of another: all pairs, each signed by the key that its verifier trusts."""

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.fake_agent import ScriptedAgent
from fakes.jws import joined
from fakes.task_feed import AUDIENCE, HOLDER, ISSUER, live, signing_key, snapshot
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidEvent, InvalidToken
from sojourn.jose.jws import parse_unverified
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.spiffe import jwtsvid, witsvid
from sojourn.ssf import security_events
from sojourn.tasktoken import dpop, tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim

KEY = signing_key()  # of everybody: what keeps the kinds apart here is nothing but the kinds
NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)  # the suite takes its time, and these are made when it begins
URL = f"{AUDIENCE}/tickets/42"
KEYS = {KEY.kid: KEY.public}
RULES = security_events.Rules(ISSUER, AUDIENCE, 600)
COMMON = {"iss": ISSUER, "aud": AUDIENCE, "iat": int(NOW.timestamp()), "jti": "a"}
ENDS = {"exp": int(LATER.timestamp())}


def signed(typ: str | None, claims: dict[str, Any]) -> str:
    header = {"alg": "ES256", "kid": KEY.kid, **({} if typ is None else {"typ": typ})}
    return joined(header, json.dumps(claims).encode(), KEY)


TASK_TOKEN = tokens.issue(
    KEY,
    issuer=ISSUER,
    spiffe_id=HOLDER,
    grant=Grant.parse(AUDIENCE, ["ticket:read"]),
    task=TaskClaim("t1", "triage-ticket", 5, "normal"),
    issued_at=NOW,
    expires_at=LATER,
).token
EVENT = {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {"event_timestamp": 1}}
LOGOUT = {"http://schemas.openid.net/event/backchannel-logout": {}}
STATUS = {"status_list": {"bits": 2, "lst": "eJwDAAAAAAE"}}

MADE = {
    "jwt-svid": jwtsvid.issue(KEY, HOLDER, [AUDIENCE], issued_at=NOW, expires_at=LATER, issuer=ISSUER).token,
    "wit-svid": witsvid.issue(KEY, HOLDER, issued_at=NOW, expires_at=LATER).token,
    "task-token": TASK_TOKEN,
    "dpop-proof": dpop.make(KEY, method="GET", url=URL, now=NOW, token=TASK_TOKEN),
    "security-event": signed("secevent+jwt", {**COMMON, "sub_id": {"format": "opaque", "id": "a"}, "events": EVENT}),
    "status-list": signed("statuslist+jwt", {**COMMON, **ENDS, "sub": f"{ISSUER}/status/1/0", **STATUS}),
    "introspection": signed("token-introspection+jwt", {**COMMON, "token_introspection": {"active": True}}),
    "client-assertion": signed("JWT", {**COMMON, **ENDS, "iss": "client-1", "sub": "client-1"}),
    "id-token": signed("JWT", {**COMMON, **ENDS, "sub": "alice", "nonce": "n", "auth_time": 1, "acr": "1"}),
    "untyped-id-token": signed(None, {**COMMON, **ENDS, "sub": "alice", "azp": "client-1"}),
    "logout-token": signed("logout+jwt", {**COMMON, **ENDS, "sub": "alice", "events": LOGOUT}),
    "untyped-logout-token": signed("JWT", {**COMMON, **ENDS, "sub": "alice", "events": LOGOUT}),
    "access-token-of-others": signed("at+jwt", {**COMMON, **ENDS, "sub": str(HOLDER), "client_id": "c", "scope": "a"}),
    "id-jag": signed("oauth-id-jag+jwt", {**COMMON, **ENDS, "sub": "alice", "client_id": str(HOLDER), "scope": "a"}),
    "delegation-ticket": "sjd_" + "A" * 43,
}


def as_jwt_svid(text: str) -> object:
    return jwtsvid.verify(text, [AUDIENCE], {HOLDER.trust_domain: KEYS}, NOW)


def as_task_token(text: str) -> object:
    return tokens.verify(text, keys=KEYS, issuer=ISSUER, audience=AUDIENCE, now=NOW)


def as_proof(text: str) -> object:
    return dpop.read(text, method="GET", url=URL, now=NOW, token=TASK_TOKEN)


def as_event(text: str) -> object:
    return security_events.verify(security_events.parse_unverified_event(text), RULES, KEYS, NOW)


VERIFIERS: dict[str, Callable[[str], object]] = {
    "jwt-svid": as_jwt_svid,
    "task-token": as_task_token,
    "dpop-proof": as_proof,
    "security-event": as_event,
}
PAIRS = [pytest.param(made, verifier, id=f"{made}-as-{verifier}") for made, verifier in
         itertools.product(MADE, VERIFIERS)]  # fmt: skip
# Why each verifier refuses what is not its own; what is not here is of the wrong type.
CODES = {
    ("client-assertion", "jwt-svid"): "malformed",
    ("id-token", "jwt-svid"): "malformed",
    ("untyped-id-token", "jwt-svid"): "malformed",
    ("untyped-logout-token", "jwt-svid"): "malformed",
    ("access-token-of-others", "task-token"): "malformed",
    **{("delegation-ticket", verifier): "malformed" for verifier in VERIFIERS},
    **{("dpop-proof", verifier): "malformed" for verifier in VERIFIERS},  # a header that shows a key
    **{(made, "dpop-proof"): "malformed" for made in MADE},  # a header that shows none
}


@pytest.mark.parametrize(("made", "verifier"), PAIRS)
def test_all_pairs(made: str, verifier: str) -> None:
    """A verifier takes its own kind, and refuses every other for a stable reason."""
    if made == verifier:
        assert VERIFIERS[verifier](MADE[made])
        return
    with pytest.raises((InvalidToken, InvalidEvent)) as caught:
        VERIFIERS[verifier](MADE[made])
    if isinstance(caught.value, InvalidToken):
        assert CODES.get((made, verifier), "wrong_type") == caught.value.reason_code
    else:
        assert "invalid_request" == caught.value.err


@pytest.mark.parametrize("typ", ["AT+JWT", "at+JWT", "application/at+jwt", "at+jwt ", "jwt", "at", "", "secevent+jwt"])
def test_types_are_compared_byte_for_byte(typ: str) -> None:
    """A type that is nearly that of task tokens is another."""
    claims = parse_unverified(TASK_TOKEN).unverified_claims
    with pytest.raises(InvalidToken) as caught:
        as_task_token(signed(typ, claims))
    assert "wrong_type" == caught.value.reason_code


# With the type of a JWT-SVID, and signed by a trust domain's key, these are JWT-SVIDs: they are of a workload, for us.
OF_WORKLOADS = {"jwt-svid", "task-token", "access-token-of-others"}
POSING = [
    pytest.param(made, verifier, id=f"{made}-as-{verifier}")
    for made, verifier in itertools.product(MADE, VERIFIERS)
    if made not in {verifier, "delegation-ticket"} and not (made in OF_WORKLOADS and verifier == "jwt-svid")
]


@pytest.mark.parametrize(("made", "verifier"), POSING)
def test_claims_do_not_pass_either(made: str, verifier: str) -> None:
    """Also with the type, and the shown key, of another kind the claims of a token are not that kind's."""
    claims = parse_unverified(MADE[made], shows_key=made == "dpop-proof").unverified_claims
    typ = {"jwt-svid": "JWT", "task-token": "at+jwt", "dpop-proof": "dpop+jwt", "security-event": "secevent+jwt"}
    header: dict[str, Any] = {"alg": "ES256", "typ": typ[verifier]}
    if verifier == "dpop-proof":
        header["jwk"] = {name: value for name, value in KEY.public.jwk.items() if name != "kid"}
    else:
        header["kid"] = KEY.kid
    with pytest.raises((InvalidToken, InvalidEvent)):
        VERIFIERS[verifier](joined(header, json.dumps(claims).encode(), KEY))


@pytest.fixture
async def verifier(tmp_path: Path) -> AsyncIterator[tuple[TaskVerifier, ScriptedAgent]]:
    agent = ScriptedAgent()
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))
    agent.answers["ValidateToken"] = pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK)
    socket = tmp_path / "agent.sock"
    async with (
        agent.serve(socket),
        Client(str(socket), deadline_seconds=5) as client,
        TaskVerifier(client, AUDIENCE) as running,
    ):
        await running.feed.wait_ready(10)
        yield running, agent


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "stale"])
async def test_at_a_service(verifier: tuple[TaskVerifier, ScriptedAgent], fresh: bool) -> None:
    """A service takes task tokens alone; what is none it asks nobody about, also when its feed is silent."""
    judge, agent = verifier
    if not fresh:
        await judge.feed.close()
    verify: Callable[[str], Awaitable[object]] = judge.verify
    assert await verify(TASK_TOKEN)
    asked = len(agent.requests)
    for made in sorted(set(MADE) - {"task-token"}):
        with pytest.raises(InvalidToken) as caught:
            await verify(MADE[made])
        if made != "access-token-of-others":
            expected = "malformed" if made in {"dpop-proof", "delegation-ticket"} else "wrong_type"
            assert (expected, asked) == (caught.value.reason_code, len(agent.requests)), made
