"""adoption.py: the entries of a node that has another name now become this node's, whole or not at all."""

import pytest
from fakes.registrations import NODE, OTHER_NODE, TRUST_DOMAIN, FakeEntryStore, entry, selectors
from sojourn.errors import AlreadyExists, InvalidInput, InvalidSpiffeId, LimitExceeded, NotFound, StoreFailed
from sojourn.identity import adoption
from sojourn.identity.entry_changes import Change
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId

CALLER = selectors("unix:uid:1000")
REAL = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/real")
ALIEN = SpiffeId.parse("spiffe://example.org/spire/agent/x509pop/abc")


def registry_of(clock, store, *aliases):
    return Registry(store, TRUST_DOMAIN, [NODE, *aliases], clock, Alarms(clock))


@pytest.fixture
def store():
    """Two entries of a node `there`, one of this, and one of a node of another kind."""
    return FakeEntryStore(
        [
            entry("/a", parent_id=OTHER_NODE),
            entry("/b", parent_id=OTHER_NODE, hint="kept", revision=3),
            entry("/ours"),
            entry("/alien", parent_id=ALIEN),
        ]
    )


class TestOtherNodes:
    def test_agents_like_this_one(self, clock, store):
        """Entries of other agents of Sojourn's are counted for each, and neither this one's nor those of other kinds."""
        assert {OTHER_NODE: 2} == adoption.other_nodes(registry_of(clock, store))
        assert {} == adoption.other_nodes(registry_of(clock, store, OTHER_NODE))


class TestAdopt:
    async def test_is_effective_and_on_disk_when_answered(self, clock, store):
        """The entries match, are stored with their other fields as they were, and were told of as served."""
        registry = registry_of(clock, store)
        heard = []
        registry.on_change(heard.extend)
        before = {each.id: each for each in registry}
        done = await adoption.adopt(registry, "", dry_run=False)
        assert (OTHER_NODE, ("entry-a", "entry-b"), ()) == (
            done.node,
            tuple(each.id for each in done.entries),
            done.left,
        )
        assert {"entry-a", "entry-b", "entry-ours"} == {each.id for each in registry.match(CALLER)}
        kept = next(each for each in store.load() if each.id == "entry-b")
        assert (NODE, "kept", 4) == (kept.parent_id, kept.hint, kept.revision)
        assert [Change(before[each.id], each, served=True) for each in done.entries] == heard

    async def test_a_dry_run(self, clock, store):
        """A dry run says the same and changes nothing."""
        registry = registry_of(clock, store)
        assert 2 == len((await adoption.adopt(registry, "there", dry_run=True)).entries)
        assert {OTHER_NODE: 2} == adoption.other_nodes(registry)

    async def test_nothing_of_it_without_the_disk(self, clock, store):
        """If it cannot be written no entry has changed."""
        registry = registry_of(clock, store)
        store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await adoption.adopt(registry, "", dry_run=False)
        assert {OTHER_NODE: 2} == adoption.other_nodes(registry)

    async def test_a_twin_is_in_the_way(self, clock, store):
        """Where one is registered here again none is adopted, and each such is named."""
        registry = registry_of(clock, store)
        await registry.create([entry("/b", id="again")])
        with pytest.raises(AlreadyExists, match=r"^entry-b \(.*/b\) is registered here already, as again: delete one"):
            await adoption.adopt(registry, "", dry_run=False)
        assert {OTHER_NODE: 2} == adoption.other_nodes(registry)

    async def test_a_followed_folder_keeps_its_own(self, clock, store):
        """Entries of a followed folder stay as they are, and are told of: they are changed there."""
        store.entries["entry-b"] = entry("/b", parent_id=OTHER_NODE, origin="/etc/entries")
        registry = registry_of(clock, store)
        registry.follow()
        done = await adoption.adopt(registry, "", dry_run=False)
        assert (["entry-a"], ["entry-b"]) == ([each.id for each in done.entries], [each.id for each in done.left])
        assert OTHER_NODE == registry.get("entry-b").parent_id

    async def test_too_many(self, clock, store, monkeypatch):
        """More than one change of the registry may take are refused, with what serves them as they are."""
        monkeypatch.setattr(adoption, "ENTRIES_PER_BATCH", 1)
        with pytest.raises(LimitExceeded, match="node_aliases"):
            await adoption.adopt(registry_of(clock, store), "", dry_run=False)

    @pytest.mark.parametrize(
        ("name", "error"),
        [("here", InvalidInput), ("nowhere", NotFound), ("a/b/..", InvalidSpiffeId), ("spiffe://", InvalidSpiffeId)],
    )
    async def test_whose(self, clock, store, name, error):
        """This node itself, one that has no entry, and what is no name are refused."""
        with pytest.raises(error):
            await adoption.adopt(registry_of(clock, store), name, dry_run=False)

    async def test_one_of_several(self, clock, store):
        """Of several nodes one must be named, by name or ID; also one of another kind, by its ID."""
        store.entries["entry-real"] = entry("/real", parent_id=REAL)
        registry = registry_of(clock, store)
        with pytest.raises(InvalidInput, match=r"`real` \(1\), `there` \(2\): name one with --from"):
            await adoption.adopt(registry, "", dry_run=False)
        for name in ("real", str(OTHER_NODE), str(ALIEN)):
            assert (await adoption.adopt(registry, name, dry_run=False)).entries
        with pytest.raises(NotFound, match="no entry is for another node"):
            await adoption.adopt(registry, "", dry_run=False)
