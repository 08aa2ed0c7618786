"""What the authorization_details of a person's access token (RFC 9396) let be done: they are the most, or it is refused."""

from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import CHAT, PeopleIssuer, table
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.people.token_kind import ACCESS_TOKEN, ID_TOKEN
from sojourn.people.verification import parse_unverified_person, verify
from sojourn.tasktoken.grants import Authority, Details, Grant

NOW = FakeClock().now()
IDP = PeopleIssuer(NOW.timestamp())
KEY = PublicKey.from_jwk(IDP.jwk())
RULES = IssuerRules.of("corp", table())
IGNORED = IssuerRules.of("corp", table(authorization_details="ignore"))
ORDERS = "https://orders.example.org"
OURS = {"type": "refund-for", "actions": ["refund:create"], "locations": [ORDERS], "params": {"order": "1001"}}


def read(text: str, kind: str = ACCESS_TOKEN, rules: IssuerRules = RULES) -> Person:
    return verify(parse_unverified_person(text), rules, KEY, kind, CHAT, NOW)


def test_of_a_task_type() -> None:
    """Those that are written as ours are kept beside the person, for what begins by the token, and by no task."""
    person = read(IDP.access_token(authorization_details=[OURS]))
    grants = Authority((Grant(ORDERS, ("refund:create",)),))
    assert Details("refund-for", grants, {"order": "1001"}, "") == person.details
    assert person.in_task().details is None
    assert "details" not in person.document()
    assert read(IDP.access_token()).details is None


@pytest.mark.parametrize(
    "said",
    [
        [{"type": "payment_initiation", "instructedAmount": {"currency": "EUR", "amount": "123.50"}}],
        [{"type": "refund-for"}],
        [{**OURS, "privileges": ["admin"]}],
        [OURS, {**OURS, "type": "another"}],
        [OURS, {"type": "account_information"}],
        [{**OURS, "params_digest": "a" * 43}],
        [{**OURS, "actions": []}],
        [],
        {},
        OURS,
        "refund-for",
        None,
        [None],
        1,
    ],
    ids=str,
)
def test_others(said: Any) -> None:
    """Those that cannot be compared with a task, as their types are a service's own, have the token refused: neither
    are they passed over, nor is a part of them taken.
    """
    claims = {**IDP.access_claims(), "authorization_details": said}
    with pytest.raises(PersonRefused) as refused:
        read(IDP.sign(claims))
    assert "not_in_scope" == refused.value.code
    assert "authorization_details" in refused.value.public
    assert read(IDP.sign(claims), rules=IGNORED).details is None


def test_id_token() -> None:
    """An ID token says nothing of what may be done, and is not read for it."""
    assert read(IDP.id_token(authorization_details=[OURS]), ID_TOKEN).details is None
