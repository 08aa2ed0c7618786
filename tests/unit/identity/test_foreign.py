"""Foreign bundles: kept apart, durable before they are told, given to those who federate."""

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, FakeForeignStore, entry
from sojourn.clock import Alarms
from sojourn.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound, StoreFull
from sojourn.identity.foreign import ForeignBundles
from sojourn.identity.registry import Registry
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain

OTHER = TrustDomain("other.org")
THIRD = TrustDomain("third.org")
FRIEND = entry("/friend", federates_with=(OTHER,))
HERMIT = entry("/hermit", "unix:uid:5")


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
    await room.foreign.relate(THIRD, {"bundle_endpoint_url": "https://third.org"})
    again = ForeignBundles(room.store, TRUST_DOMAIN, room.registry)
    assert {THIRD: {"bundle_endpoint_url": "https://third.org"}} == again.relationships
    with pytest.raises(InvalidInput):
        await room.foreign.relate(TRUST_DOMAIN, {})
    await room.foreign.unrelate(THIRD)
    assert {} == room.foreign.relationships
