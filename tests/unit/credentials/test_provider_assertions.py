"""The JWT-SVIDs that providers are shown."""

import asyncio
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.journals import FakeAuditStore
from fakes.task_types import TRIAGE
from sojourn.audit.journal import Audit
from sojourn.credentials.provider_assertions import Assertions
from sojourn.errors import InvalidInput, Unavailable
from sojourn.identity import signatures
from sojourn.identity.svid_signers import AssertionSignerAtOnce
from sojourn.jose.jws import parse_unverified
from sojourn.spiffe.ids import SpiffeId

CALLER = SpiffeId.parse(TRIAGE)
ISSUER = "https://sojourn.example.org"


@pytest.fixture
def authority(tmp_path, clock):
    return authority_in(tmp_path / "keys", clock)


def claims_of(token):
    return parse_unverified(token).unverified_claims


async def test_what_it_says(authority, clock):
    """It is of the workload, by our issuer, for one audience, for a minute, and says what the provider needs beside."""
    mint = Assertions(AssertionSignerAtOnce(authority), ISSUER).of(CALLER)
    claims = claims_of(await mint("https://kc.example.org/realms/x", claims={"client_id": "x"}))
    now = int(clock.now().timestamp())
    assert (ISSUER, TRIAGE, "https://kc.example.org/realms/x") == (claims["iss"], claims["sub"], claims["aud"])
    assert (now, now + 60, "x") == (claims["iat"], claims["exp"], claims["client_id"])


async def test_each_is_new(authority):
    """No two have the same `jti`, so that none is taken for another's replay."""
    mint = Assertions(AssertionSignerAtOnce(authority), ISSUER).of(CALLER)
    assert len({claims_of(await mint("https://a.example"))["jti"] for _ in range(20)}) == 20


async def test_nobody_says_who_it_is_but_us(authority):
    """A provider's claims take the place of none of ours."""
    mint = Assertions(AssertionSignerAtOnce(authority), ISSUER).of(CALLER)
    for name in ("sub", "iss", "aud", "exp", "iat", "jti"):
        with pytest.raises(InvalidInput):
            await mint("https://a.example", claims={name: "spiffe://example.org/admin"})


async def test_each_is_recorded(authority, clock):
    """The audit has each, by its `jti` and audience, and none of them itself."""
    store = FakeAuditStore()
    audit = Audit(store, clock)
    token = await Assertions(AssertionSignerAtOnce(authority), ISSUER, audit).of(CALLER)("https://a.example")
    await audit.flush()
    (fields,) = store.fields("assertion_issued")
    assert (TRIAGE, "https://a.example", claims_of(token)["jti"]) == (
        fields["spiffe_id"],
        fields["audience"],
        fields["jti"],
    )
    assert fields["expires_at"] == int((clock.now() + timedelta(seconds=60)).timestamp())
    assert token not in str(store.events)


class LateSigner:
    """Signs by another, when it is let go."""

    def __init__(self, signer):
        self._signer = signer
        self.gate = asyncio.Event()

    def at_once(self, _asked):
        return None

    async def sign(self, asked):
        await self.gate.wait()
        return self._signer.at_once(asked)


async def test_waited_for(authority, clock):
    """Where it has to be waited for it is, and recorded when it is there."""
    signer, store = LateSigner(AssertionSignerAtOnce(authority)), FakeAuditStore()
    audit = Audit(store, clock)
    minting = asyncio.ensure_future(Assertions(signer, ISSUER, audit).of(CALLER)("https://a.example"))
    await asyncio.sleep(0)
    await audit.flush()
    assert [] == store.fields("assertion_issued")
    signer.gate.set()
    token = await minting
    await audit.flush()
    assert [claims_of(token)["jti"]] == [each["jti"] for each in store.fields("assertion_issued")]


async def test_never_signed(authority, clock, monkeypatch):
    """A provider's call is told in time, and nothing is recorded."""
    monkeypatch.setattr(signatures, "SIGNATURE_WAIT_SECONDS", 0.02)
    store = FakeAuditStore()
    audit = Audit(store, clock)
    with pytest.raises(Unavailable):
        await Assertions(LateSigner(AssertionSignerAtOnce(authority)), ISSUER, audit).of(CALLER)("https://a.example")
    await audit.flush()
    assert [] == store.fields("assertion_issued")
