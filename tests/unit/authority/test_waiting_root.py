"""The embedded authority with a root that has to be waited for, fails or does not answer."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from fakes.authorities import authority_in
from fakes.registrations import TRUST_DOMAIN
from fakes.roots import Pauses, WaitingRoot
from sojourn.authority import intermediates
from sojourn.authority.crl import RevokedLeaf
from sojourn.authority.embedded_ca import JWT
from sojourn.authority.key_steps import X509
from sojourn.authority.key_upkeep import Upkeep
from sojourn.authority.x509_profile import signer_id
from sojourn.errors import FailedPrecondition, Unavailable
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import verify_chain

WEB = SpiffeId.parse("spiffe://example.org/web")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
async def place(tmp_path, clock):
    """An authority that has not begun, its root, and the pauses between tries."""
    made, pauses = SimpleNamespace(), Pauses()

    def root(own):
        made.root = WaitingRoot(own)
        return made.root

    made.authority = authority_in(tmp_path / "keys", clock, root=root, sleep=pauses)
    made.pauses = pauses
    yield made
    await made.authority.close()


async def begun(place):
    await place.authority.begin()
    return place.authority


async def settled(authority):
    """Nothing is asked for any more."""
    await authority.issuers.wait(10)


async def test_begins(place, clock):
    """The first intermediate is waited for, and what it signs verifies."""
    authority = await begun(place)
    svid = authority.issue_x509(WEB, HOUR)
    assert WEB == verify_chain(svid.chain, authority.bundle.x509_authorities, TRUST_DOMAIN, clock.now())


async def test_begins_without(place, monkeypatch):
    """A start does not wait for ever: without an intermediate X.509-SVIDs are refused with why; JWT-SVIDs are not."""
    monkeypatch.setattr("sojourn.authority.embedded_ca.ROOT_START_SECONDS", 0.01)
    place.root.failing = "the hardware is away"
    place.pauses.held = True
    authority = await begun(place)
    with pytest.raises(Unavailable, match="no valid intermediate") as caught:
        authority.issue_x509(WEB, HOUR)
    assert "the hardware is away" == caught.value.detail
    assert (None, ()) == (authority.issuer, authority.intermediates)
    assert authority.issue_jwt(WEB, ["a"], HOUR).token


async def test_renewed_behind(place, clock):
    """At half of its life the next intermediate is asked for, and nobody waits: the one that there is signs on."""
    authority = await begun(place)
    before, heard = authority.issuer, []
    authority.on_issuer(lambda: heard.append(authority.issuer))
    clock.advance(13 * 3600)
    place.root.answers.clear()
    authority.maintain()
    assert before == authority.issue_x509(WEB, HOUR).chain[1] == authority.issuer
    place.root.answers.set()
    await settled(authority)
    assert before != authority.issuer
    assert [authority.issuer] == heard


async def test_what_was_signed_before(place, clock):
    """An intermediate that is followed vouches for its leaves to its end: it is among those that callers may have."""
    authority = await begun(place)
    before = authority.issuer
    clock.advance(13 * 3600)
    authority.maintain()
    await settled(authority)
    assert {before, authority.issuer} == set(authority.intermediates)


async def test_the_same_request(place, clock):
    """Until the root answers it is asked for the same key, however often it failed: it has one to sign, not many."""
    authority = await begun(place)
    place.root.asked.clear()
    place.root.failing = "the hardware is away"
    clock.advance(13 * 3600)
    place.pauses.held = True
    authority.maintain()
    for _ in range(5):
        await authority.issuers.wait(0.01)
        authority.maintain()  # asks for no other
        authority.issuers.hurry()
    place.root.failing = ""
    authority.issuers.hurry()
    await settled(authority)
    assert (1, True) == (len({id(each) for each in place.root.asked}), len(place.root.asked) > 2)


async def test_away_until_the_end(place, clock):
    """While the root is away SVIDs are issued until the intermediate ends, clipped to it; then X.509 stops with why, and
    all else goes on; and when the root is back, so is X.509.
    """
    authority = await begun(place)
    place.root.failing, place.pauses.held = "the hardware is away", True
    clock.advance(23.5 * 3600)
    authority.maintain()
    await authority.issuers.wait(0.01)
    svid = authority.issue_x509(WEB, HOUR)
    assert timedelta(minutes=30) == svid.not_after - clock.now()
    clock.advance(1800)
    with pytest.raises(Unavailable, match="no valid intermediate") as caught:
        authority.issue_x509(WEB, HOUR)
    assert "the hardware is away" == caught.value.detail
    assert authority.issue_jwt(WEB, ["a"], HOUR).token
    assert authority.bundle.x509_authorities
    place.root.failing = ""
    authority.issuers.hurry()
    await settled(authority)
    assert authority.issue_x509(WEB, HOUR)


async def test_upkeep_comes_back(place, clock):
    """Upkeep looks again when an intermediate that was waited for is there, so that its half is not missed."""
    authority = await begun(place)
    alarms = Alarms(clock)
    Upkeep(authority, alarms).run()
    seen = []
    for _ in range(8):
        clock.advance(6 * 3600)
        alarms.ring_due()
        await settled(authority)
        seen.append(authority.issuer)
        assert authority.issue_x509(WEB, HOUR)
    assert 5 == len(set(seen))


class TestActivate:
    async def test_in_use_at_once(self, place, clock):
        """A root that is activated signs by the time that the call returns."""
        authority = await begun(place)
        made = authority.prepare(X509)
        await authority.activate(X509, made.id)
        assert made.id == authority.root_of(authority.issue_x509(WEB, HOUR))

    async def test_refused(self, place):
        """If the root signs nothing, nothing is activated: the one before signs on."""
        authority = await begun(place)
        first, made = authority.slots(X509).active.id, authority.prepare(X509)
        place.root.failing = "the hardware is away"
        with pytest.raises(Unavailable, match="away"):
            await authority.activate(X509, made.id)
        assert (first, made.id) == (authority.slots(X509).active.id, authority.slots(X509).prepared.id)
        assert first == authority.root_of(authority.issue_x509(WEB, HOUR))

    async def test_no_answer(self, place, monkeypatch):
        """Nor if it does not answer in time."""
        monkeypatch.setattr(intermediates, "ROOT_SECONDS", 0.02)
        authority = await begun(place)
        first, made = authority.slots(X509).active.id, authority.prepare(X509)
        place.root.answers.clear()
        with pytest.raises(Unavailable, match="nothing was changed"):
            await authority.activate(X509, made.id)
        assert first == authority.slots(X509).active.id

    async def test_not_prepared(self, place):
        """What cannot be activated is refused before the root is asked; a JWT key needs no root."""
        authority = await begun(place)
        place.root.failing = "the hardware is away"
        with pytest.raises(FailedPrecondition):
            await authority.activate(X509, authority.slots(X509).active.id)
        made = authority.prepare(JWT)
        assert made.id == (await authority.activate(JWT, made.id)).id


class TestLists:
    """Lists of leaves whose intermediate is lost."""

    @staticmethod
    def lost(authority, clock, serial=77):
        return RevokedLeaf(serial, "00" * 20, authority.slots(X509).active.id, clock.now())

    async def test_comes_behind(self, place, clock):
        """A list that the root signs is there when it has; those who give out lists are told."""
        authority = await begun(place)
        heard = []
        authority.on_list(lambda: heard.append(authority.sign_crls([self.lost(authority, clock)])))
        assert () == authority.sign_crls([self.lost(authority, clock)])
        await authority._lists._asking[authority.slots(X509).active.id].wait(10)
        [[der]] = heard
        assert [77] == [each.serial_number for each in x509.load_der_x509_crl(der)]
        assert 1 == place.root.lists

    async def test_the_one_before_goes_out(self, place, clock):
        """While a longer list is not signed the one before goes out, and the longest that was wanted is signed."""
        authority = await begun(place)
        name = authority.slots(X509).active.id
        authority.sign_crls([self.lost(authority, clock)])
        await authority._lists._asking[name].wait(10)
        place.root.answers.clear()
        leaves = [self.lost(authority, clock, serial) for serial in (77, 78, 79)]
        [before] = authority.sign_crls(leaves[:2])
        assert [before] == list(authority.sign_crls(leaves))
        place.root.answers.set()
        await authority._lists._asking[name].wait(10)
        [after] = authority.sign_crls(leaves)
        assert ([77], [77, 78, 79]) == tuple(
            [each.serial_number for each in x509.load_der_x509_crl(der)] for der in (before, after)
        )

    async def test_direct_ones_do_not_wait(self, place, clock):
        """What an intermediate that lives has signed is listed at once, also while the root is away."""
        authority = await begun(place)
        place.root.failing, place.pauses.held = "the hardware is away", True
        svid = authority.issue_x509(WEB, HOUR)
        direct = RevokedLeaf(svid.leaf.serial_number, signer_id(svid.leaf), signer_id(svid.chain[-1]), clock.now())
        assert 1 == len(authority.sign_crls([direct, self.lost(authority, clock)]))
