"""The JWT-SVIDs that providers are shown."""

from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.journals import FakeAuditStore
from fakes.task_types import TRIAGE
from sojourn.audit.journal import Audit
from sojourn.credentials.provider_assertions import Assertions
from sojourn.errors import InvalidInput
from sojourn.jose.jws import parse_unverified
from sojourn.spiffe.ids import SpiffeId

CALLER = SpiffeId.parse(TRIAGE)
ISSUER = "https://sojourn.example.org"


@pytest.fixture
def authority(tmp_path, clock):
    return authority_in(tmp_path / "keys", clock)


def claims_of(token):
    return parse_unverified(token).unverified_claims


def test_what_it_says(authority, clock):
    """It is of the workload, by our issuer, for one audience, for a minute, and says what the provider needs beside."""
    mint = Assertions(authority, ISSUER).of(CALLER)
    claims = claims_of(mint("https://kc.example.org/realms/x", claims={"client_id": "x"}))
    now = int(clock.now().timestamp())
    assert (ISSUER, TRIAGE, "https://kc.example.org/realms/x") == (claims["iss"], claims["sub"], claims["aud"])
    assert (now, now + 60, "x") == (claims["iat"], claims["exp"], claims["client_id"])


def test_each_is_new(authority):
    """No two have the same `jti`, so that none is taken for another's replay."""
    mint = Assertions(authority, ISSUER).of(CALLER)
    assert len({claims_of(mint("https://a.example"))["jti"] for _ in range(20)}) == 20


def test_nobody_says_who_it_is_but_us(authority):
    """A provider's claims take the place of none of ours."""
    mint = Assertions(authority, ISSUER).of(CALLER)
    for name in ("sub", "iss", "aud", "exp", "iat", "jti"):
        with pytest.raises(InvalidInput):
            mint("https://a.example", claims={name: "spiffe://example.org/admin"})


async def test_each_is_recorded(authority, clock):
    """The audit has each, by its `jti` and audience, and none of them itself."""
    store = FakeAuditStore()
    audit = Audit(store, clock)
    token = Assertions(authority, ISSUER, audit).of(CALLER)("https://a.example")
    await audit.flush()
    (fields,) = store.fields("assertion_issued")
    assert (TRIAGE, "https://a.example", claims_of(token)["jti"]) == (
        fields["spiffe_id"],
        fields["audience"],
        fields["jti"],
    )
    assert fields["expires_at"] == int((clock.now() + timedelta(seconds=60)).timestamp())
    assert token not in str(store.events)
