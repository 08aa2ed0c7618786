"""What the scope of a person's access token lets be done, where the configuration maps it to actions."""

from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import CHAT, CHAT_CLIENT, PeopleIssuer, table
from sojourn.errors import InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey
from sojourn.limits import PERSON_SCOPES
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.token_kind import ACCESS_TOKEN, ID_TOKEN
from sojourn.people.verification import parse_unverified_person, verify

NOW = FakeClock().now()
IDP = PeopleIssuer(NOW.timestamp())
KEY = PublicKey.from_jwk(IDP.jwk())
SCOPES = {"orders.read": ["order:read"], "orders.write": ["order:read", "order:cancel"], "Orders.admin": ["order:drop"]}
RULES = IssuerRules.of("corp", table(scopes=SCOPES))


def may(text: str, kind: str = ACCESS_TOKEN, rules: IssuerRules = RULES) -> tuple[str, ...] | None:
    return verify(parse_unverified_person(text), rules, KEY, kind, CHAT, NOW).may


def of_scope(scope: Any, **claims: Any) -> tuple[str, ...] | None:
    return may(IDP.access_token(scope=scope, **claims))


def test_mapped() -> None:
    """Each value lets be done what it is mapped to, all of them together; what is mapped to nothing is passed over."""
    assert ("order:read",) == of_scope("openid orders.read email")
    assert ("order:cancel", "order:read") == of_scope("orders.write orders.read") == of_scope("orders.write")


@pytest.mark.parametrize("scp", ["orders.read openid", ["orders.read", "openid"]])
def test_by_its_other_name(scp: str | list[str]) -> None:
    """What Entra and Okta call `scp` counts as well, as a text or a list."""
    assert ("order:read",) == of_scope(None, scp=scp)
    assert ("order:read",) == of_scope("openid orders.read", scp=scp)


@pytest.mark.parametrize(
    "scope", ["", " ", "openid", "orders", "orders.read.all", "ORDERS.READ", "order:read", "orders.admin"]
)
def test_nothing(scope: str) -> None:
    """A scope that is empty, or that has nothing of the table byte for byte, lets nothing be done."""
    assert () == of_scope(scope)


def test_no_scope_at_all() -> None:
    """An access token that says nothing of what it lets be done lets nothing be done."""
    assert () == may(IDP.access_token(scope=None))


def test_no_more_than_is_mapped() -> None:
    """However much a scope has, nothing is let be done that the table does not have."""
    assert ("order:drop", "order:read") == of_scope("* admin order:cancel orders.read Orders.admin orders.write.all")


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": ["orders.read"]},
        {"scope": {"orders.read": True}},
        {"scope": 1},
        {"scope": True},
        {"scope": None, "scp": {"orders.read": True}},
        {"scope": None, "scp": ["orders.read", 1]},
        {"scope": None, "scp": 1},
        {"scope": None, "scp": [["orders.read"]]},
        {"scope": "orders.read", "scp": "orders.write"},
        {"scope": "", "scp": ["orders.write"]},
        {"scope": " ".join(f"s{number}" for number in range(PERSON_SCOPES + 1))},
    ],
)
def test_odd_ones(claims: dict[str, Any]) -> None:
    """A scope that is no text, is too long, or is said twice in two ways is refused: it is not read as it suits."""
    with pytest.raises(InvalidToken) as refused:
        may(IDP.access_token(**claims))
    assert "malformed" == refused.value.reason_code
    assert "scope" in refused.value.public or "scp" in refused.value.public


def test_without_a_table() -> None:
    """Where nothing is mapped a scope is not looked at, whatever it is, and policy alone decides."""
    rules = IssuerRules.of("corp", table())
    for scope in ("orders.read", "", None, {"a": 1}):
        assert may(IDP.access_token(scope=scope), rules=rules) is None


def test_id_token() -> None:
    """An ID token has no scope, and narrows nothing."""
    assert may(IDP.id_token(), ID_TOKEN) is None
    assert may(IDP.id_token(scope="openid"), ID_TOKEN) is None  # its issuer says which kind it is


def test_not_as_an_id_token() -> None:
    """An access token is not taken as an ID token, by which its scope would not count."""
    for typ in ("Bearer", None):
        with pytest.raises(PersonRefused) as refused:
            may(IDP.access_token(typ=typ, aud=CHAT_CLIENT, azp=CHAT_CLIENT, scope="openid"), ID_TOKEN)
        assert "wrong_kind" == refused.value.code
