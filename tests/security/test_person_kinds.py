"""No token of another kind stands in for a person's: all pairs, each for the right workload and by the right key."""

import itertools
import json
from datetime import timedelta
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import CHAT, ISSUER, PeopleIssuer, table
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidEvent, InvalidToken, SojournError
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey
from sojourn.people.id_jag import verify_id_jag
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.people.token_kind import ACCESS_TOKEN, ID_JAG, ID_TOKEN
from sojourn.people.verification import parse_unverified_person, verify
from sojourn.spiffe import jwtsvid
from sojourn.ssf import security_events
from sojourn.tasktoken import tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim

NOW = FakeClock().now()
IDP = PeopleIssuer(NOW.timestamp())
KEYS = {IDP.kid: PublicKey.from_jwk(IDP.jwk())}
# One name for all, so that nothing but the kinds keeps them apart: client, audience and authorized party.
APP = "https://chat.example.org"
RULES = IssuerRules.of(
    "corp",
    table(
        presenters=[
            {
                "workloads": [str(CHAT)],
                "id_token_audiences": [APP],
                "access_token_audiences": [APP],
                "authorized_parties": [APP],
                "id_jag_clients": [APP],
            }
        ]
    ),
)
COMMON: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "alice",
    "aud": APP,
    "azp": APP,
    "jti": "j",
    "sid": "s1",
    "iat": IDP.at,
    "exp": IDP.at + 120,
}
EVENT = {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {"event_timestamp": 1}}
LOGOUT = {"http://schemas.openid.net/event/backchannel-logout": {}}
# Header `typ`, and what is said beside COMMON; None takes a claim away.
Made = tuple[str | None, dict[str, Any]]
ID_TOKENS: dict[str, Made] = {
    "id-keycloak": ("JWT", {"typ": "ID"}),
    "id-plain": (None, {"nonce": "n"}),
    "id-cognito": (None, {"token_use": "id"}),
}
ACCESS_TOKENS: dict[str, Made] = {
    "access-keycloak": ("JWT", {"typ": "Bearer", "scope": "openid"}),
    "access-9068": ("at+jwt", {"client_id": APP}),
    "access-plain": ("JWT", {"scope": "read"}),
    "access-cognito": (None, {"token_use": "access", "client_id": APP}),
}
ID_JAGS: dict[str, Made] = {"jag-plain": ("oauth-id-jag+jwt", {"client_id": APP, "azp": None, "scope": "read"})}
OTHERS: dict[str, Made] = {
    "almost-jag": ("application/oauth-id-jag+jwt", {"client_id": APP}),
    "almost-jag-too": ("OAUTH-ID-JAG+JWT", {"client_id": APP}),
    "jag-at-odds": ("oauth-id-jag+jwt", {"client_id": APP, "typ": "ID"}),
    "jag-at-odds-too": ("oauth-id-jag+jwt", {"client_id": APP, "token_use": "access"}),
    "jag-with-nonce": ("oauth-id-jag+jwt", {"client_id": APP, "nonce": "n"}),
    "jag-with-events": ("oauth-id-jag+jwt", {"client_id": APP, "events": LOGOUT}),
    "jag-of-a-client": ("oauth-id-jag+jwt", {"client_id": APP, "sub": APP}),
    "refresh": ("JWT", {"typ": "Refresh"}),
    "offline": ("JWT", {"typ": "Offline"}),
    "logout": ("logout+jwt", {"events": LOGOUT}),
    "logout-untyped": ("JWT", {"events": LOGOUT}),
    "logout-keycloak": ("JWT", {"typ": "Logout"}),
    "security-event": ("secevent+jwt", {"events": EVENT, "exp": None}),
    "security-event-untyped": ("JWT", {"events": EVENT}),
    "status-list": ("statuslist+jwt", {"status_list": {"bits": 1, "lst": "eJwDAAAAAAE"}}),
    "status-list-untyped": ("JWT", {"status_list": {"bits": 1, "lst": "eJwDAAAAAAE"}}),
    "introspection": ("token-introspection+jwt", {"token_introspection": {"active": True}}),
    "introspection-untyped": ("JWT", {"token_introspection": {"active": True}}),
    "client-assertion": ("client-authentication+jwt", {"sub": APP}),
    "client-assertion-untyped": ("JWT", {"sub": APP, "azp": APP}),
    "client-credentials": ("at+jwt", {"sub": APP, "client_id": APP}),
    "client-credentials-entra": ("JWT", {"idtyp": "app", "scp": "x"}),
    "client-credentials-auth0": ("JWT", {"gty": "client-credentials", "scope": "x"}),
    "wit-svid": ("wit+jwt", {}),
    "dpop": ("dpop+jwt", {"htm": "GET", "htu": APP}),
    "odd": ("jwt", {}),
    "odder": ("AT+JWT", {"client_id": APP}),
    "keycloak-odd": ("JWT", {"typ": ["ID"]}),
    "cognito-odd": ("JWT", {"token_use": "refresh"}),
    "at-odds": ("at+jwt", {"typ": "ID"}),
    "at-odds-too": ("JWT", {"typ": "ID", "token_use": "access"}),
}
MADE = {**ID_TOKENS, **ACCESS_TOKENS, **ID_JAGS, **OTHERS}
TYPES = {"id": ID_TOKEN, "access": ACCESS_TOKEN, "jag": ID_JAG}


def signed(made: Made, **more: Any) -> str:
    typ, claims = made
    whole = {name: value for name, value in {**COMMON, **claims, **more}.items() if value is not None}
    return IDP.sign(whole, {"typ": typ})


def taken(text: str, token_type: str) -> Person:
    unverified = parse_unverified_person(text)
    key = KEYS.get(unverified.jws.kid or "")
    if token_type == ID_JAG:
        return verify_id_jag(unverified, RULES, key, APP, [CHAT], NOW).person
    return verify(unverified, RULES, key, token_type, CHAT, NOW)


@pytest.mark.parametrize(("name", "as_type"), list(itertools.product(MADE, TYPES)))
def test_all_pairs(name: str, as_type: str) -> None:
    """A person's token is taken as what it is, and every other kind of token is refused as the wrong kind."""
    text = signed(MADE[name])
    if name in {**ID_TOKENS, **ACCESS_TOKENS, **ID_JAGS} and name.partition("-")[0] == as_type:
        assert "alice" == taken(text, TYPES[as_type]).subject
        return
    with pytest.raises(PersonRefused) as caught:
        taken(text, TYPES[as_type])
    assert "wrong_kind" == caught.value.code


@pytest.mark.parametrize(
    "token_type",
    ["", "id_token", "urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:refresh_token", ID_JAG],
)
def test_said_to_be_something_else(token_type: str) -> None:
    """No kind of a person's token is taken as any other type, and an ID-JAG begins nothing where it would be good twice."""
    for made in (*ID_TOKENS.values(), *ACCESS_TOKENS.values(), *ID_JAGS.values()):
        unverified = parse_unverified_person(signed(made))
        with pytest.raises(PersonRefused) as caught:
            verify(unverified, RULES, KEYS[IDP.kid], token_type, CHAT, NOW)
        assert "wrong_kind" == caught.value.code


@given(
    typ=st.sampled_from(sorted({str(typ) for typ, _ in MADE.values()})),
    claims=st.sampled_from(sorted(MADE)),
    more=st.sampled_from(sorted(MADE)),
    token_type=st.sampled_from(sorted(TYPES.values())),
)
def test_put_together(typ: str, claims: str, more: str, token_type: str) -> None:
    """Whatever header and claims of kinds are put together: what is taken bears no mark of another kind."""
    header = None if typ == "None" else typ
    whole = {**MADE[claims][1], **MADE[more][1]}
    try:
        taken(signed((header, whole)), token_type)
    except (PersonRefused, InvalidToken):
        return
    id_token = token_type == ID_TOKEN
    allowed = {ID_TOKEN: {None, "JWT"}, ACCESS_TOKEN: {None, "JWT", "at+jwt"}, ID_JAG: {"oauth-id-jag+jwt"}}
    said = {ID_TOKEN: {"ID", "id"}, ACCESS_TOKEN: {"Bearer", "access"}, ID_JAG: set()}
    assert header in allowed[token_type]
    assert {whole.get("typ"), whole.get("token_use")} - {None} <= said[token_type]
    assert not {"events", "status_list", "token_introspection"} & whole.keys()
    assert "alice" == whole.get("sub", "alice")
    assert "app" != whole.get("idtyp")
    if header == "oauth-id-jag+jwt":
        assert "nonce" not in whole
    if header in {None, "JWT"} and not {"typ", "token_use"} & whole.keys():
        assert not ({"scope", "scp", "client_id"} if id_token else {"nonce"}) & whole.keys()


class TestOurs:
    """Tokens of this agent, with its own issuer's key as if it were a person's issuer."""

    TASK = tokens.issue(
        IDP.signing,
        issuer=ISSUER,
        spiffe_id=CHAT,
        grant=Grant.parse(APP, ["chat:read"]),
        task=TaskClaim("t1", "chat", 5, "normal"),
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=1),
    ).token
    SVID = jwtsvid.issue(
        IDP.signing, CHAT, APP, issued_at=NOW, expires_at=NOW + timedelta(minutes=1), issuer=ISSUER
    ).token

    @pytest.mark.parametrize("as_type", TYPES)
    @pytest.mark.parametrize("text", [TASK, SVID], ids=["task-token", "jwt-svid"])
    def test_as_a_persons(self, text: str, as_type: str) -> None:
        """A task token and a JWT-SVID are of a workload, and begin no task for a person."""
        with pytest.raises(SojournError) as caught:
            taken(text, TYPES[as_type])
        assert isinstance(caught.value, PersonRefused | InvalidToken)

    @pytest.mark.parametrize("name", [*ID_TOKENS, *ACCESS_TOKENS, *ID_JAGS])
    def test_as_ours(self, name: str) -> None:
        """A person's token is no task token, no JWT-SVID and no signed event."""
        text, keys = signed(MADE[name]), {IDP.kid: IDP.signing.public}
        with pytest.raises(InvalidToken):
            tokens.verify(text, keys=keys, issuer=ISSUER, audience=APP, now=NOW)
        with pytest.raises(InvalidToken):
            jwtsvid.verify(text, [APP], {CHAT.trust_domain: keys}, NOW)
        with pytest.raises(InvalidEvent):
            security_events.parse_unverified_event(text)

    def test_ids_of_workloads(self) -> None:
        """A person's token of any kind whose subject is a SPIFFE ID is of nobody."""
        for as_type, kinds in (("id", ID_TOKENS), ("access", ACCESS_TOKENS), ("jag", ID_JAGS)):
            for made in kinds.values():
                with pytest.raises(InvalidToken) as caught:
                    taken(signed(made, sub=str(CHAT)), TYPES[as_type])
                assert "malformed" == caught.value.reason_code


def test_refused_before_it_is_believed() -> None:
    """What a token says of itself counts for nothing until its signature is good."""
    other = PeopleIssuer(NOW.timestamp())
    for typ, claims in MADE.values():
        text = other.sign(json.loads(json.dumps({**COMMON, **claims})), {"typ": typ})
        with pytest.raises(InvalidToken) as caught:
            taken(text, ID_TOKEN)
        assert "bad_signature" == caught.value.reason_code
