"""Foreign bundles: kept apart, durable before they are told, given to those who federate."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, FakeForeignStore, entry
from sojourn.errors import AlreadyExists, BundleNotFetched, FailedPrecondition, InvalidInput, NotFound, StoreFull
from sojourn.identity.federation_relationship import Relationship
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain

OTHER = TrustDomain("other.org")
THIRD = TrustDomain("third.org")
WEB = Relationship(THIRD, "https://third.org/bundle")
SPIFFE = Relationship(OTHER, "https://other.org/bundle", SpiffeId.parse("spiffe://other.org/endpoint"))
AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = AT + timedelta(minutes=5)
FRIEND = entry("/friend", federates_with=(OTHER,))
HERMIT = entry("/hermit", "unix:uid:5")


def yes():
    return True


class Room:
    def __init__(self, folder):
        clock = FakeClock()
        self.registry = Registry(FakeEntryStore([FRIEND, HERMIT]), TRUST_DOMAIN, [NODE], clock, Alarms(clock))
        self.store = FakeForeignStore()
        self.foreign = ForeignBundles(self.store, TRUST_DOMAIN, self.registry)
        self.heard = []
        self.foreign.on_change(self.heard.append)
        root = authority_in(folder, clock).root
        self.bundle = Bundle(OTHER, (root,))


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path / "keys")


async def test_given_to_those_who_federate(room):
    """A foreign bundle goes to callers with an entry that federates with its trust domain, and to nobody else."""
    await room.foreign.put(room.bundle)
    assert {OTHER: room.bundle} == room.foreign.of([HERMIT, FRIEND])
    assert {} == room.foreign.of([HERMIT])


async def test_kept_and_told(room):
    """A bundle that was put is in the store before anybody hears of it, and comes back at the next start."""
    await room.foreign.put(room.bundle)
    assert ([OTHER], room.bundle) == (room.heard, room.store.bundles[OTHER])
    assert room.bundle is ForeignBundles(room.store, TRUST_DOMAIN, room.registry).get(OTHER)


async def test_not_written_is_not_there(room):
    """A bundle that the store did not take is neither kept nor told."""
    room.store.failure = StoreFull("no room")
    with pytest.raises(StoreFull):
        await room.foreign.put(room.bundle)
    assert (None, []) == (room.foreign.get(OTHER), room.heard)


async def test_create_and_update(room):
    """Creating refuses to replace, updating refuses what is not there."""
    with pytest.raises(NotFound):
        await room.foreign.put(room.bundle, must_exist=True)
    await room.foreign.put(room.bundle, must_exist=False)
    with pytest.raises(AlreadyExists):
        await room.foreign.put(room.bundle, must_exist=False)


async def test_restrict(room):
    """A bundle that entries federate with is not removed unless it is said what becomes of them."""
    await room.foreign.put(room.bundle)
    with pytest.raises(FailedPrecondition, match="federated with 1 registration entries"):
        await room.foreign.remove(OTHER, "restrict")
    assert room.bundle is room.foreign.get(OTHER)


async def test_dissociate(room):
    """Dissociating takes the trust domain out of the entries and keeps them."""
    await room.foreign.put(room.bundle)
    await room.foreign.remove(OTHER, "dissociate")
    assert (None, ()) == (room.foreign.get(OTHER), room.registry.get(FRIEND.id).federates_with)


async def test_delete(room):
    """Deleting takes the entries that federate with it along, and no other."""
    await room.foreign.put(room.bundle)
    await room.foreign.remove(OTHER, "delete")
    assert (None, [HERMIT.id]) == (room.foreign.get(OTHER), [each.id for each in room.registry])


async def test_unknown(room):
    """What is not there cannot be removed."""
    with pytest.raises(NotFound):
        await room.foreign.remove(THIRD, "delete")
    with pytest.raises(NotFound):
        await room.foreign.unrelate(THIRD)


async def test_relationships(room):
    """Relationships are kept by trust domain, over a start too, and never with ourselves."""
    await room.foreign.relate(WEB)
    await room.foreign.relate(SPIFFE)
    again = ForeignBundles(room.store, TRUST_DOMAIN, room.registry)
    assert {THIRD: WEB, OTHER: SPIFFE} == again.relationships
    with pytest.raises(InvalidInput):
        await room.foreign.relate(Relationship(TRUST_DOMAIN, "https://here.org"))
    await room.foreign.unrelate(THIRD)
    assert {OTHER: SPIFFE} == room.foreign.relationships


async def test_relationships_are_told(room):
    """Who follows hears of each relationship that is there, is another one, or has gone, and of none that is the same."""
    told = []
    room.foreign.on_relationship(lambda domain: told.append(room.foreign.relationships.get(domain)))
    other = Relationship(THIRD, "https://third.org/elsewhere")
    for each in (WEB, WEB, other):
        await room.foreign.relate(each)
    await room.foreign.unrelate(THIRD)
    assert [WEB, other, None] == told


async def test_a_first_bundle(room):
    """A relationship that comes with a bundle is told when the bundle is there."""
    told = []
    room.foreign.on_relationship(lambda domain: told.append(room.foreign.get(domain)))
    await room.foreign.relate(SPIFFE, room.bundle)
    assert [room.bundle] == told


async def test_the_same_keys_are_not_told(room):
    """A bundle that differs in its numbers alone is kept, and nobody's stream hears of it."""
    await room.foreign.put(room.bundle)
    newer = replace(room.bundle, sequence=9, refresh_hint_seconds=60)
    await room.foreign.put(newer)
    assert ([OTHER], newer, newer) == (room.heard, room.foreign.get(OTHER), room.store.bundles[OTHER])


class TestTake:
    """What was fetched."""

    async def test_changed_and_same(self, room):
        """A fetched bundle is kept and told if it is another one; when it was fetched is known, over a start too."""
        await room.foreign.relate(SPIFFE)
        assert "changed" == await room.foreign.take(SPIFFE, room.bundle, AT, yes)
        again = replace(room.bundle)
        assert "same" == await room.foreign.take(SPIFFE, again, LATER, yes)
        assert ([OTHER], room.bundle) == (room.heard, room.foreign.get(OTHER))
        restarted = ForeignBundles(room.store, TRUST_DOMAIN, room.registry)
        assert ({OTHER: LATER}, room.bundle) == (restarted.fetched_at, restarted.get(OTHER))

    async def test_older(self, room):
        """A bundle of a lower sequence is refused; one that has none is taken as it comes."""
        await room.foreign.relate(SPIFFE, replace(room.bundle, sequence=7))
        with pytest.raises(BundleNotFetched) as caught:
            await room.foreign.take(SPIFFE, Bundle(OTHER, (), sequence=6), AT, yes)
        assert "older" == caught.value.reason_code
        assert (7, {}) == (room.foreign.get(OTHER).sequence, room.foreign.fetched_at)
        for sequence in (7, 8, 0):
            assert "changed" == await room.foreign.take(SPIFFE, Bundle(OTHER, (), sequence=sequence), AT, yes)

    async def test_set_by_hand_is_older(self, room):
        """An operator may set any bundle, an older one too: it stays until the next one is fetched."""
        await room.foreign.relate(SPIFFE, replace(room.bundle, sequence=7))
        await room.foreign.put(replace(room.bundle, sequence=1))
        assert "changed" == await room.foreign.take(SPIFFE, replace(room.bundle, sequence=2), AT, yes)

    async def test_overtaken(self, room):
        """Nothing is kept of what was fetched by a relationship, or verified by a bundle, that has been replaced."""
        assert "overtaken" == await room.foreign.take(SPIFFE, room.bundle, AT, yes)
        await room.foreign.relate(Relationship(OTHER, "https://other.org/elsewhere"))
        assert "overtaken" == await room.foreign.take(SPIFFE, room.bundle, AT, yes)
        await room.foreign.relate(SPIFFE)
        assert "overtaken" == await room.foreign.take(SPIFFE, room.bundle, AT, lambda: False)
        assert (None, {}) == (room.foreign.get(OTHER), room.foreign.fetched_at)

    async def test_another_endpoint(self, room):
        """When a bundle was fetched is forgotten with the relationship by which it was."""
        await room.foreign.relate(SPIFFE)
        await room.foreign.take(SPIFFE, room.bundle, AT, yes)
        await room.foreign.relate(replace(SPIFFE, url="https://other.org/elsewhere"))
        assert ({}, room.bundle) == (room.foreign.fetched_at, room.foreign.get(OTHER))

    async def test_not_written(self, room):
        """A bundle that the store does not take is not in force."""
        await room.foreign.relate(SPIFFE)
        room.store.failure = StoreFull("no room")
        with pytest.raises(StoreFull):
            await room.foreign.take(SPIFFE, room.bundle, AT, yes)
        assert (None, []) == (room.foreign.get(OTHER), room.heard)
