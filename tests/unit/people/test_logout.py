"""logout.py: which token says that somebody has logged out; whatever else an issuer signs says nothing of the kind."""

from datetime import timedelta
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.logouts import EVENTS, logout_claims, logout_token
from fakes.people import ALICE, CHAT_URL, DESK_CLIENT, WEB_CLIENT, PeopleIssuer, table
from sojourn.errors import InvalidToken, SojournError
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey, parse_unverified
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.logout import EVENT, Logout, verify_logout

NOW = FakeClock().now()
IDP = PeopleIssuer(NOW.timestamp())
OTHER = PeopleIssuer(NOW.timestamp(), url="https://other.example.net", kid="k2")
RULES = IssuerRules.of("corp", table())
KEYS = {each.kid: PublicKey.from_jwk(each.jwk()) for each in (IDP, OTHER)}


def read(text: str, *, after: float = 0) -> Logout:
    unverified = parse_unverified(text, more_headers=True)
    return verify_logout(unverified, RULES, KEYS.get(unverified.kid or ""), NOW + timedelta(seconds=after))


def why(text: str, **more: Any) -> str:
    """The code, or the reason, with which it is refused."""
    with pytest.raises(SojournError) as caught:
        read(text, **more)
    error = caught.value
    assert isinstance(error, PersonRefused | InvalidToken)
    assert text not in error.public
    return error.reason_code if isinstance(error, InvalidToken) else error.code


def test_whose_logout() -> None:
    """A token says the session, the person, or both; the rest of it is as real issuers write it, or left out."""
    assert Logout("s1", ALICE, IDP.at, "logout-1") == read(logout_token(IDP))
    assert Logout("", ALICE, IDP.at, "logout-1") == read(logout_token(IDP, sid=None))
    assert Logout("s1", "", IDP.at, "logout-1") == read(logout_token(IDP, sub=None, typ=None, exp=None))


@pytest.mark.parametrize("typ", [None, "JWT", "logout+jwt", "application/logout+jwt"])
def test_types(typ: str | None) -> None:
    """The header has the type of logout tokens, or says none."""
    assert "s1" == read(logout_token(IDP, {"typ": typ})).session


@pytest.mark.parametrize("audience", [DESK_CLIENT, WEB_CLIENT, CHAT_URL, ["somebody", DESK_CLIENT]])
def test_audiences(audience: object) -> None:
    """It is for any client of a presenter, or a client that a presenter takes tokens of; also beside others."""
    assert "s1" == read(logout_token(IDP, aud=audience)).session


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("wrong_audience", {"aud": "another-app"}),
        ("wrong_audience", {"aud": None}),
        ("malformed", {"jti": None}),
        ("malformed", {"jti": ""}),
        ("malformed", {"jti": 7}),
        ("malformed", {"iat": None}),
        ("malformed", {"sid": None, "sub": None}),
        ("malformed", {"sid": "x" * 256}),
        ("malformed", {"sid": "a\u202eb"}),
        ("malformed", {"sid": ["s1"]}),
        ("malformed", {"sub": "spiffe://example.org/agent/chat"}),
        ("expired", {"exp": IDP.at}),
        ("expired", {"iat": IDP.at - 601}),
        ("not_yet_valid", {"iat": IDP.at + 120}),
        ("wrong_kind", {"nonce": "n"}),
        ("wrong_kind", {"nonce": ""}),
        ("wrong_kind", {"events": None}),
        ("wrong_kind", {"events": {}}),
        ("wrong_kind", {"events": [EVENT]}),
        ("wrong_kind", {"events": {EVENT: {"more": 1}}}),
        ("wrong_kind", {"events": {EVENT: None}}),
        ("wrong_kind", {"events": {**EVENTS, "https://schemas.openid.net/secevent/caep/event-type/x": {}}}),
        ("wrong_kind", {"typ": "ID"}),
        ("wrong_kind", {"token_use": "id"}),
    ],
    ids=str,
)
def test_refused(reason: str, changes: dict[str, Any]) -> None:
    """Whatever is missing, too much, too old, for another, or of another kind ends nobody's session."""
    assert reason == why(logout_token(IDP, **changes))


def test_tokens_of_other_kinds() -> None:
    """Neither an ID token nor an access token is a logout, whatever the header of it says; nor is a signed event."""
    for text in (IDP.id_token(), IDP.access_token(), IDP.id_token({"typ": "logout+jwt"})):
        assert "wrong_kind" == why(text)
    for typ in ("secevent+jwt", "at+jwt", "oauth-id-jag+jwt", "statuslist+jwt", "dpop+jwt"):
        assert "wrong_kind" == why(logout_token(IDP, {"typ": typ}))


def test_forged() -> None:
    """A token that its issuer did not sign, by a key of theirs and an algorithm of theirs, is nobody's logout."""
    thief = PeopleIssuer(NOW.timestamp())
    assert "bad_signature" == why(logout_token(thief))
    assert "unknown_key" == why(logout_token(IDP, {"kid": "another"}))
    assert "unknown_issuer" == why(logout_token(OTHER))
    with pytest.raises(InvalidToken):
        read(IDP.sign_oddly(logout_claims(IDP), {"alg": "none"}))
    for header in ({"jku": "https://thief.example"}, {"jwk": thief.jwk()}, {"crit": ["x"], "x": 1}):
        with pytest.raises(InvalidToken):
            read(IDP.sign_oddly(logout_claims(IDP), header))


def test_after_a_while() -> None:
    """A token is good for ten minutes at the most, however late its end is."""
    text = logout_token(IDP, exp=IDP.at + 86_400)
    assert "s1" == read(text, after=600).session
    assert "expired" == why(text, after=601)
