"""Following foreign bundles: when each is asked for, what a failure changes, and that none waits for another."""

import asyncio
from dataclasses import replace

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, FakeForeignStore
from harness.looking import WAIT_SECONDS, idle
from sojourn.audit.journal import Audit
from sojourn.errors import BundleNotFetched, NotFound, StoreFull
from sojourn.federation.bundle_refresh import Federating
from sojourn.identity.federation_relationship import Relationship
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.registry import Registry
from sojourn.limits import (
    FEDERATION_ASKED_AT_ONCE,
    FEDERATION_FETCHES_AT_ONCE,
    FEDERATION_REFRESH_MAX_SECONDS,
    FEDERATION_REFRESH_MIN_SECONDS,
    FEDERATION_REFRESH_SECONDS,
    FEDERATION_RETRY_SECONDS,
)
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain

OTHER, THIRD = TrustDomain("other.org"), TrustDomain("third.org")


def web(domain, url="https://there/bundle"):
    return Relationship(domain, url)


def spiffe(domain, endpoint=None):
    return Relationship(domain, "https://there/bundle", SpiffeId.parse(f"spiffe://{endpoint or domain}/endpoint"))


class FakeEndpoints:
    """Answers what `answers` has of a trust domain: a bundle or an error; without, nothing until the fetch is cancelled."""

    def __init__(self):
        self.answers = {}
        self.asked = []  # (trust domain, what vouched)
        self.gates = {}
        self.under_way = 0
        self.most = 0

    async def fetch(self, relationship, vouching):
        domain = relationship.trust_domain
        self.asked.append((domain, vouching))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if domain in self.gates:
                await self.gates[domain].wait()
            if domain not in self.answers:
                await asyncio.Event().wait()
            answer = self.answers[domain]
        finally:
            self.under_way -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    def count(self, domain):
        return [asked for asked, _ in self.asked].count(domain)


class Room:
    def __init__(self, folder):
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        registry = Registry(FakeEntryStore(), TRUST_DOMAIN, [NODE], self.clock, self.alarms)
        self.store = FakeForeignStore()
        self.foreign = ForeignBundles(self.store, TRUST_DOMAIN, registry)
        self.authority = authority_in(folder, self.clock)
        self.endpoints = FakeEndpoints()
        self.journal = FakeAuditStore()
        self.audit = Audit(self.journal, self.clock)
        self.federating = self.make()

    def make(self):
        return Federating(self.foreign, self.authority, self.endpoints, self.audit, self.clock, self.alarms)

    def bundle(self, domain=OTHER, **changes):
        return replace(Bundle(domain, (self.authority.root,)), **changes)

    async def quiet(self):
        """Let what is under way go as far as it can without time going by."""
        await idle()

    async def later(self, seconds):
        self.clock.advance(seconds)
        while self.alarms.ring_due() == 0.0:
            pass
        await self.quiet()

    def failed(self, reason="unreachable", domain=OTHER):
        self.endpoints.answers[domain] = BundleNotFetched("it is not there", reason_code=reason)

    async def told(self):
        await self.audit.flush()
        return [event.event for event in self.journal.events]


@pytest.fixture
async def room(tmp_path):
    made = Room(tmp_path / "keys")
    made.federating.start()
    yield made
    await made.federating.close()


async def test_fetched_at_once(room):
    """A bundle is fetched as soon as there is a relationship, and is in force when it came."""
    room.endpoints.answers[OTHER] = room.bundle()
    await room.foreign.relate(web(OTHER))
    await room.quiet()
    assert room.endpoints.answers[OTHER] is room.foreign.get(OTHER)
    assert room.clock.now() == room.foreign.fetched_at[OTHER]
    assert ["federated_bundle_refreshed"] == await room.told()


async def test_fetched_at_the_start(tmp_path):
    """What an earlier run followed is followed again, from the start on; its last bundle is there meanwhile."""
    room = Room(tmp_path / "keys")
    await room.foreign.relate(web(OTHER), room.bundle(sequence=1))
    room.federating.start()
    await room.quiet()
    assert (1, 1) == (room.endpoints.count(OTHER), room.foreign.get(OTHER).sequence)
    await room.federating.close()


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        (0, FEDERATION_REFRESH_SECONDS),
        (1, FEDERATION_REFRESH_MIN_SECONDS),
        (60, 60),
        (10 * 365 * 86_400, FEDERATION_REFRESH_MAX_SECONDS),
        (2**63 - 1, FEDERATION_REFRESH_MAX_SECONDS),
    ],
)
async def test_asked_again_by_the_hint(room, hint, seconds):
    """A bundle is asked for again within the time that its hint says, within limits, and not much sooner."""
    room.endpoints.answers[OTHER] = room.bundle(refresh_hint_seconds=hint)
    await room.foreign.relate(web(OTHER))
    await room.quiet()
    assert seconds == room.federating.interval(OTHER)
    await room.later(seconds * 0.79)
    assert 1 == room.endpoints.count(OTHER)
    await room.later(seconds * 0.21)
    assert 2 == room.endpoints.count(OTHER)


async def test_the_wall_clock_does_not_matter(room):
    """A wall clock that is set neither puts a fetch off nor brings it forward."""
    room.endpoints.answers[OTHER] = room.bundle()
    await room.foreign.relate(web(OTHER))
    await room.quiet()
    room.clock.step_wall(-10 * 86_400)
    await room.later(0)
    room.clock.step_wall(20 * 86_400)
    await room.later(0)
    assert 1 == room.endpoints.count(OTHER)
    await room.later(FEDERATION_REFRESH_SECONDS)
    assert 2 == room.endpoints.count(OTHER)


async def test_a_failure_leaves_the_bundle(room):
    """Whatever a fetch fails by, the last good bundle stays and nobody is told otherwise; status has the reason."""
    heard = []
    await room.foreign.relate(web(OTHER), room.bundle())
    kept = room.foreign.get(OTHER)
    room.foreign.on_change(heard.append)
    for answer in (BundleNotFetched("gone", reason_code="timeout"), RuntimeError("a bug"), StoreFull("no room")):
        room.endpoints.answers[OTHER] = answer
        with pytest.raises(BundleNotFetched):
            await room.federating.refresh(OTHER)
        assert (kept, []) == (room.foreign.get(OTHER), heard)
        assert room.federating.of(OTHER).fault is not None
    assert 1 == room.federating.failing


async def test_pauses_grow(room):
    """A partner that fails is tried again soon, then more and more seldom, and never more seldom than when all is well."""
    room.failed()
    await room.foreign.relate(web(OTHER))
    await room.quiet()
    pauses = []
    for _ in range(9):
        followed = room.federating.of(OTHER)
        pauses.append(followed.alarm.due - room.clock.boot())
        await room.later(pauses[-1])
    expected = [min(FEDERATION_REFRESH_SECONDS, FEDERATION_RETRY_SECONDS * 2**number) for number in range(9)]
    assert all(0.79 * most <= pause <= most for pause, most in zip(pauses, expected, strict=True))
    room.endpoints.answers[OTHER] = room.bundle()
    await room.later(FEDERATION_REFRESH_SECONDS)
    assert (None, 0) == (room.federating.of(OTHER).fault, room.federating.of(OTHER).failures)


async def test_told_once(room):
    """Of failures in a row each new reason is recorded once, and so is the recovery."""
    for reason in ("timeout", "timeout", "certificate", "timeout"):
        room.failed(reason)
        if room.federating.of(OTHER) is None:
            await room.foreign.relate(web(OTHER))
            await room.quiet()
        else:
            await room.later(FEDERATION_REFRESH_SECONDS)
    assert ["federated_bundle_failed"] * 3 == await room.told()
    room.endpoints.answers[OTHER] = room.bundle()
    for _ in range(2):
        await room.later(FEDERATION_REFRESH_SECONDS)
    assert ["federated_bundle_failed"] * 3 + ["federated_bundle_refreshed"] == await room.told()


class TestVouching:
    """By which bundle an endpoint is verified."""

    async def test_the_newest(self, room):
        """Each fetch is verified by the bundle that the one before it brought."""
        first, second = room.bundle(sequence=1), room.bundle(sequence=2)
        room.endpoints.answers[OTHER] = second
        await room.foreign.relate(spiffe(OTHER), first)
        await room.quiet()
        await room.later(FEDERATION_REFRESH_SECONDS)
        assert [(OTHER, first), (OTHER, second)] == room.endpoints.asked

    async def test_of_the_endpoints_trust_domain(self, room):
        """An endpoint of a third trust domain is verified by that one's bundle, one of ours by our own, as they are now."""
        third = room.bundle(THIRD)
        await room.foreign.put(third)
        room.endpoints.answers[OTHER] = room.bundle()
        await room.foreign.relate(spiffe(OTHER, THIRD))
        await room.quiet()
        await room.foreign.relate(spiffe(OTHER, TRUST_DOMAIN))
        await room.quiet()
        assert [(OTHER, third), (OTHER, room.authority.bundle)] == room.endpoints.asked

    async def test_by_the_web(self, room):
        """For a web certificate no bundle vouches."""
        room.endpoints.answers[OTHER] = room.bundle()
        await room.foreign.relate(web(OTHER), room.bundle(sequence=3))
        await room.quiet()
        assert [(OTHER, None)] == room.endpoints.asked

    async def test_withdrawn_meanwhile(self, room):
        """What was fetched from an endpoint that a withdrawn bundle vouched for is thrown away, and fetched anew."""
        bad, good, fetched = (room.bundle(sequence=number) for number in (1, 2, 3))
        gate = room.endpoints.gates[OTHER] = asyncio.Event()
        room.endpoints.answers[OTHER] = fetched
        await room.foreign.relate(spiffe(OTHER), bad)
        await room.quiet()
        await room.foreign.put(good)
        gate.set()
        await room.quiet()
        assert [(OTHER, bad), (OTHER, good)] == room.endpoints.asked
        assert fetched is room.foreign.get(OTHER)

    async def test_a_first_bundle_that_comes_later(self, room):
        """An endpoint that could not be verified is asked at once when an operator sets the bundle for that."""
        room.failed("no_bundle")
        await room.foreign.relate(spiffe(OTHER))
        await room.quiet()
        room.endpoints.answers[OTHER] = newer = room.bundle(sequence=2)
        await room.foreign.put(room.bundle(sequence=1))
        await room.quiet()
        assert newer is room.foreign.get(OTHER)


class TestRefresh:
    """What an operator asks for."""

    async def test_waits(self, room):
        """A refresh returns when the bundle is in force."""
        room.failed()
        await room.foreign.relate(web(OTHER))
        await room.quiet()
        room.endpoints.answers[OTHER] = bundle = room.bundle()
        await room.federating.refresh(OTHER)
        assert bundle is room.foreign.get(OTHER)

    async def test_says_what_failed(self, room):
        """A refresh that fails says why."""
        room.failed("certificate")
        await room.foreign.relate(web(OTHER))
        with pytest.raises(BundleNotFetched, match="it is not there") as caught:
            await room.federating.refresh(OTHER)
        assert "certificate" == caught.value.reason_code

    async def test_of_nobody(self, room):
        """A refresh of what is not followed is refused."""
        with pytest.raises(NotFound, match="no relationship"):
            await room.federating.refresh(OTHER)

    async def test_after_one_under_way(self, room):
        """A refresh does not take the answer of a fetch that began before it; refreshes that wait share the next one."""
        gate = room.endpoints.gates[OTHER] = asyncio.Event()
        room.endpoints.answers[OTHER] = room.bundle(sequence=1)
        await room.foreign.relate(web(OTHER))
        await room.quiet()
        asked = [asyncio.ensure_future(room.federating.refresh(OTHER)) for _ in range(5)]
        await room.quiet()
        assert 1 == room.endpoints.count(OTHER)
        gate.set()
        await asyncio.gather(*asked)
        assert 2 == room.endpoints.count(OTHER)

    async def test_two_that_wait(self, room):
        """A refresh whose waiting fetch gives way to that of another refresh is done when that has fetched."""
        dead = [TrustDomain(f"dead{number}.org") for number in range(FEDERATION_ASKED_AT_ONCE)]
        room.endpoints.answers[OTHER] = room.bundle(sequence=1)
        for domain in dead:
            room.failed(domain=domain)
        for domain in (*dead, OTHER):
            await room.foreign.relate(web(domain))
        await room.quiet()
        for domain in dead:
            del room.endpoints.answers[domain]
        hanging = [asyncio.ensure_future(room.federating.refresh(domain)) for domain in dead]
        await room.quiet()
        asked = [asyncio.ensure_future(room.federating.refresh(OTHER)) for _ in range(2)]
        await room.quiet()
        assert [False, False] == [each.done() for each in asked]
        for domain in dead:
            await room.foreign.unrelate(domain)
        await asyncio.gather(*asked)
        await asyncio.gather(*hanging, return_exceptions=True)
        assert 2 == room.endpoints.count(OTHER)

    async def test_not_behind_dead_partners(self, room):
        """A refresh does not wait for the places that dead partners hold, though its own fetch is waiting for one."""
        for number in range(FEDERATION_FETCHES_AT_ONCE):
            await room.foreign.relate(web(TrustDomain(f"dead{number}.org")))
        await room.foreign.relate(web(OTHER))
        await room.quiet()
        assert 0 == room.endpoints.count(OTHER)
        room.endpoints.answers[OTHER] = bundle = room.bundle()
        async with asyncio.timeout(WAIT_SECONDS):
            await room.federating.refresh(OTHER)
        assert bundle is room.foreign.get(OTHER)


async def test_so_many_at_once(room):
    """Of all that are due no more than a few are asked at once, and each has its turn."""
    domains = [TrustDomain(f"t{number}.org") for number in range(3 * FEDERATION_FETCHES_AT_ONCE)]
    for domain in domains:
        room.endpoints.gates[domain] = asyncio.Event()
        room.endpoints.answers[domain] = room.bundle(domain)
        await room.foreign.relate(web(domain))
    await room.quiet()
    assert FEDERATION_FETCHES_AT_ONCE == room.endpoints.most
    for domain in domains:
        room.endpoints.gates[domain].set()
    await room.quiet()
    assert domains == sorted(domains, key=domains.index)
    assert FEDERATION_FETCHES_AT_ONCE == room.endpoints.most
    assert set(domains) == {bundle.trust_domain for bundle in room.foreign.all()}


class TestChanges:
    """Of relationships."""

    async def test_another_endpoint(self, room):
        """A changed relationship is followed at once, and what the old endpoint still answers counts no more."""
        gate = room.endpoints.gates[OTHER] = asyncio.Event()
        room.endpoints.answers[OTHER] = room.bundle(sequence=1)
        await room.foreign.relate(web(OTHER))
        await room.quiet()
        del room.endpoints.gates[OTHER]
        room.endpoints.answers[OTHER] = newer = room.bundle(sequence=2)
        await room.foreign.relate(web(OTHER, "https://elsewhere/bundle"))
        await room.quiet()
        gate.set()
        await room.quiet()
        assert (newer, 2) == (room.foreign.get(OTHER), room.endpoints.count(OTHER))

    async def test_the_same_again(self, room):
        """A relationship that is said again changes nothing."""
        room.endpoints.answers[OTHER] = room.bundle()
        for _ in range(3):
            await room.foreign.relate(web(OTHER))
            await room.quiet()
        assert 1 == room.endpoints.count(OTHER)

    async def test_gone(self, room):
        """What is followed no more is asked for no more; the bundle stays."""
        room.endpoints.answers[OTHER] = room.bundle()
        await room.foreign.relate(web(OTHER))
        await room.quiet()
        await room.foreign.unrelate(OTHER)
        await room.later(10 * FEDERATION_REFRESH_SECONDS)
        assert (1, [], 0.0) == (room.endpoints.count(OTHER), room.federating.all(), room.federating.oldest_seconds)
        assert room.foreign.get(OTHER) is not None

    async def test_gone_under_way(self, room):
        """A refresh whose relationship goes meanwhile says so, and nothing of it is kept."""
        await room.foreign.relate(web(OTHER))
        asked = asyncio.ensure_future(room.federating.refresh(OTHER))
        await room.quiet()
        await room.foreign.unrelate(OTHER)
        with pytest.raises(BundleNotFetched, match="changed meanwhile"):
            await asked
        assert (None, 0) == (room.foreign.get(OTHER), room.endpoints.under_way)


async def test_the_oldest(room):
    """The age of the oldest fetch is since the partner was last heard, or since the agent follows."""
    room.endpoints.answers[OTHER] = room.bundle()
    await room.foreign.relate(web(OTHER))
    await room.quiet()
    room.failed()
    await room.later(1_000)
    assert 1_000 == room.federating.oldest_seconds
    room.failed(domain=THIRD)
    room.endpoints.answers[OTHER] = room.bundle()
    await room.federating.refresh(OTHER)
    await room.foreign.relate(web(THIRD))
    await room.quiet()
    await room.later(500)
    assert 1_500 == room.federating.oldest_seconds


async def test_next(room):
    """When the next fetch is due is known, and is now while one is under way."""
    await room.foreign.relate(web(OTHER))
    followed = room.federating.of(OTHER)
    assert room.clock.now() == room.federating.next_at(followed)
    room.endpoints.answers[OTHER] = room.bundle()
    await room.federating.refresh(OTHER)
    left = (room.federating.next_at(followed) - room.clock.now()).total_seconds()
    assert 0.79 * FEDERATION_REFRESH_SECONDS <= left <= FEDERATION_REFRESH_SECONDS
