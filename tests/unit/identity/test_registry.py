"""registry.py: entries change whole or not at all, on disk before they are answered."""

import asyncio
from dataclasses import replace

import pytest
from fakes.registrations import NODE, OTHER_NODE, TRUST_DOMAIN, FakeEntryStore, entry, selectors
from sojourn.errors import AlreadyExists, InvalidEntry, NotFound, StoreFailed
from sojourn.identity import registry as registry_module
from sojourn.identity.entry_changes import Change
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms

ALIAS = OTHER_NODE
CALLER = selectors("unix:uid:1000", "unix:gid:1000")


@pytest.fixture
def alarms(clock):
    return Alarms(clock)


@pytest.fixture
def store():
    return FakeEntryStore()


@pytest.fixture
def registry(store, clock, alarms):
    return Registry(store, TRUST_DOMAIN, [NODE], clock, alarms)


@pytest.fixture
def heard(registry):
    """The changes that a hook hears."""
    found = []
    registry.on_change(found.extend)
    return found


def codes(outcomes):
    return [outcome.error.code if outcome.error else "" for outcome in outcomes]


def ids(registry, caller=CALLER):
    return [each.id for each in registry.match(caller)]


class TestCreate:
    async def test_is_effective_and_on_disk_when_answered(self, registry, store, heard, clock):
        """A new entry matches, is stored and was told of before the call returns."""
        (outcome,) = await registry.create([entry("/web")])
        made = replace(entry("/web"), created_at=int(clock.now().timestamp()))
        assert (made, None) == (outcome.entry, outcome.error)
        assert ((made,), [made], [Change(None, made)]) == (registry.match(CALLER), store.load(), heard)
        assert (1, [made], made) == (len(registry), list(registry), registry.get(made.id))

    async def test_gives_an_id(self, registry):
        """An entry without ID gets a new one each time."""
        first, second = await registry.create([entry("/a", id=""), entry("/b", id="")])
        assert first.entry.id
        assert first.entry.id != second.entry.id

    async def test_revision_and_time_are_ours(self, registry, clock):
        """The caller does not choose revision and time of creation."""
        (outcome,) = await registry.create([entry("/web", revision=9, created_at=5)])
        assert (0, int(clock.now().timestamp())) == (outcome.entry.revision, outcome.entry.created_at)

    async def test_a_twin(self, registry):
        """An entry with the same SPIFFE ID, parent and selectors is there already; it is shown, and unchanged."""
        (first,) = await registry.create([entry("/web", id="one")])
        (second,) = await registry.create([entry("/web", id="two", hint="h")])
        assert ("already_exists", first.entry) == (second.error.code, second.entry)
        assert ["one"] == ids(registry)

    async def test_a_twin_in_the_same_batch(self, registry):
        """Of two like entries in one batch the first is made."""
        assert ["", "already_exists"] == codes(await registry.create([entry("/web", id="a"), entry("/web", id="b")]))

    @pytest.mark.parametrize("together", [True, False])
    async def test_an_id_that_is_taken(self, registry, together):
        """An ID is never given twice."""
        wanted = [entry("/a", id="same"), entry("/b", id="same")]
        outcomes = (
            await registry.create(wanted)
            if together
            else [
                *await registry.create(wanted[:1]),
                *await registry.create(wanted[1:]),
            ]
        )
        assert ["", "already_exists"] == codes(outcomes)

    async def test_items_fail_one_by_one(self, registry, store):
        """One bad entry stops none of the others."""
        outcomes = await registry.create([entry("/a"), entry("/b", selectors=frozenset()), entry("/c")])
        assert ["", "invalid_entry", ""] == codes(outcomes)
        assert 2 == len(store.load())

    async def test_nothing_to_do(self, registry, heard):
        """An empty batch changes nothing and tells nobody."""
        assert ([], []) == (await registry.create([]), heard)

    @pytest.mark.parametrize("call", ["create", "update", "delete"])
    async def test_too_many(self, registry, monkeypatch, call):
        """A batch of more entries than its maximum is refused."""
        monkeypatch.setattr(registry_module, "ENTRIES_PER_BATCH", 1)
        with pytest.raises(InvalidEntry, match="more than 1"):
            await getattr(registry, call)([entry("/a"), entry("/b")])

    async def test_other_nodes_entries_are_kept_and_not_served(self, registry, store):
        """An entry whose parent is another node is stored and shown, and matches nobody here."""
        await registry.create([entry("/web", parent_id=OTHER_NODE)])
        assert ([], 1, 1) == (ids(registry), len(registry), len(store.load()))

    async def test_aliases_are_served(self, store, clock, alarms):
        """Entries whose parent is one of the node's aliases are served."""
        registry = Registry(store, TRUST_DOMAIN, [NODE, ALIAS], clock, alarms)
        await registry.create([entry("/web", parent_id=ALIAS)])
        assert (["entry-web"], NODE) == (ids(registry), registry.node_id)


class TestUpdate:
    async def test_is_effective_and_on_disk_when_answered(self, registry, store, heard):
        """A change counts one revision more, and is stored and told."""
        (made,) = await registry.create([entry("/web")])
        heard.clear()
        (outcome,) = await registry.update([("entry-web", lambda old: replace(old, hint="internal"))])
        assert replace(made.entry, hint="internal", revision=1) == outcome.entry
        assert ([outcome.entry], [Change(made.entry, outcome.entry)]) == (store.load(), heard)

    async def test_id_and_time_stay(self, registry):
        """A change touches neither ID nor time of creation, nor may it choose the revision."""
        (made,) = await registry.create([entry("/web")])
        (outcome,) = await registry.update(
            [("entry-web", lambda old: replace(old, id="other", created_at=1, revision=40))]
        )
        assert replace(made.entry, revision=1) == outcome.entry

    async def test_selectors_move_the_match(self, registry):
        """After a change of selectors the old ones match no more."""
        await registry.create([entry("/web")])
        await registry.update([("entry-web", lambda old: replace(old, selectors=selectors("unix:uid:5")))])
        assert ([], ["entry-web"]) == (ids(registry), ids(registry, selectors("unix:uid:5")))

    @pytest.mark.parametrize(
        ("entry_id", "change", "code"),
        [
            ("nobody", lambda old: old, "not_found"),
            ("entry-b", lambda old: replace(old, spiffe_id=entry("/a").spiffe_id), "already_exists"),
            ("entry-b", lambda old: replace(old, selectors=frozenset()), "invalid_entry"),
        ],
    )
    async def test_refused(self, registry, store, heard, entry_id, change, code):
        """A change that may not be leaves everything as it was."""
        await registry.create([entry("/a"), entry("/b")])
        before = store.load()
        heard.clear()
        assert [code] == codes(await registry.update([(entry_id, change)]))
        assert (before, []) == (store.load(), heard)

    async def test_twice_in_one_batch(self, registry, heard):
        """Two changes of one entry in a batch build on each other, and are told as one."""
        (made,) = await registry.create([entry("/web")])
        heard.clear()
        await registry.update(
            [
                ("entry-web", lambda old: replace(old, hint="x")),
                ("entry-web", lambda old: replace(old, dns_names=("a.example",))),
            ]
        )
        after = replace(made.entry, hint="x", dns_names=("a.example",), revision=2)
        assert [Change(made.entry, after)] == heard

    async def test_twins_in_one_batch(self, registry):
        """Two entries of one batch cannot become the same."""
        await registry.create([entry("/a"), entry("/b")])
        to_c = lambda old: replace(old, spiffe_id=entry("/c").spiffe_id)  # noqa: E731
        assert ["", "already_exists"] == codes(await registry.update([("entry-a", to_c), ("entry-b", to_c)]))

    async def test_to_another_node(self, registry):
        """An entry that is given to another node is served here no more."""
        await registry.create([entry("/web")])
        await registry.update([("entry-web", lambda old: replace(old, parent_id=OTHER_NODE))])
        assert [] == ids(registry)

    async def test_a_place_that_became_free(self, registry):
        """What an entry was, another may become afterwards."""
        await registry.create([entry("/a"), entry("/b")])
        await registry.update([("entry-a", lambda old: replace(old, spiffe_id=entry("/c").spiffe_id))])
        outcomes = await registry.update([("entry-b", lambda old: replace(old, spiffe_id=entry("/a").spiffe_id))])
        assert [""] == codes(outcomes)


class TestDelete:
    async def test_is_effective_and_on_disk_when_answered(self, registry, store, heard):
        """A deleted entry matches nobody and is gone from the store when the call returns."""
        (made,) = await registry.create([entry("/web")])
        heard.clear()
        assert [""] == codes(await registry.delete(["entry-web"]))
        assert ([], [], [Change(made.entry, None)]) == (ids(registry), store.load(), heard)

    async def test_refused(self, registry):
        """What is not there, or twice in a batch, is not found; an empty ID is none."""
        await registry.create([entry("/web")])
        outcomes = await registry.delete(["nobody", "entry-web", "entry-web", ""])
        assert ["not_found", "", "not_found", "invalid_entry"] == codes(outcomes)
        assert [NotFound, None, NotFound, InvalidEntry] == [
            type(each.error) if each.error else None for each in outcomes
        ]

    async def test_can_be_made_again(self, registry):
        """A deleted entry leaves no twin behind."""
        await registry.create([entry("/web")])
        await registry.delete(["entry-web"])
        assert [""] == codes(await registry.create([entry("/web")]))


class TestStore:
    @pytest.mark.parametrize("call", ["create", "update", "delete"])
    async def test_a_write_that_fails_changes_nothing(self, registry, store, heard, call):
        """If the store refuses, memory stays as it was and nobody is told."""
        await registry.create([entry("/web")])
        before = list(registry)
        heard.clear()
        store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await {
                "create": lambda: registry.create([entry("/new")]),
                "update": lambda: registry.update([("entry-web", lambda old: replace(old, hint="x"))]),
                "delete": lambda: registry.delete(["entry-web"]),
            }[call]()
        assert (before, ["entry-web"], []) == (list(registry), ids(registry), heard)

    async def test_what_is_not_written_is_not_served(self, registry, store):
        """While the store writes, a new entry does not match yet."""
        store.gate = asyncio.Event()
        creating = asyncio.ensure_future(registry.create([entry("/web")]))
        await store.writing.wait()
        assert [] == ids(registry)
        store.gate.set()
        await creating
        assert ["entry-web"] == ids(registry)

    @pytest.mark.parametrize("call", ["create", "delete"])
    async def test_a_caller_that_leaves_while_it_is_written(self, registry, store, call):
        """If the caller gives up while the store writes, memory and store do not part."""
        if call == "delete":
            await registry.create([entry("/web")])
        store.gate = asyncio.Event()
        store.writing.clear()
        changing = asyncio.ensure_future(
            registry.create([entry("/web")]) if call == "create" else registry.delete(["entry-web"])
        )
        await store.writing.wait()
        changing.cancel()
        await asyncio.sleep(0)
        store.gate.set()
        await store.quiet()
        await asyncio.gather(changing, return_exceptions=True)
        await registry.update([])  # whoever comes next
        assert store.load() == list(registry)

    async def test_what_is_stored_is_loaded(self, clock, alarms):
        """At the start everything stored is there, served or not."""
        store = FakeEntryStore([entry("/web"), entry("/far", parent_id=OTHER_NODE)])
        registry = Registry(store, TRUST_DOMAIN, [NODE], clock, alarms)
        assert (2, ["entry-web"]) == (len(registry), ids(registry))
        assert ["already_exists"] == codes(await registry.create([entry("/far", id="x", parent_id=OTHER_NODE)]))

    async def test_concurrent_calls(self, registry):
        """Of concurrent calls for the same entry one succeeds."""
        outcomes = await asyncio.gather(*(registry.create([entry("/web", id=f"n{number}")]) for number in range(20)))
        assert 1 == [code for (code,) in map(codes, outcomes)].count("")


class TestExpiry:
    @pytest.fixture
    def ends(self, clock):
        return int(clock.now().timestamp()) + 60

    async def test_ends_by_itself(self, registry, alarms, clock, heard, ends):
        """An entry that expires serves nobody from then on, and that is told; it stays in the list."""
        (made,) = await registry.create([entry("/web", expires_at=ends)])
        heard.clear()
        clock.advance(59.999)
        alarms.ring_due()
        assert (["entry-web"], []) == (ids(registry), heard)
        clock.advance(0.001)
        alarms.ring_due()
        assert ([], [Change(made.entry, None)], 1) == (ids(registry), heard, len(registry))

    async def test_before_the_alarm(self, registry, clock, ends):
        """An entry whose time has come does not match, even if the alarm has not rung yet."""
        await registry.create([entry("/web", expires_at=ends)])
        clock.advance(60)
        assert ([], False) == (ids(registry), registry.serves(registry.get("entry-web")))

    async def test_in_the_past(self, registry, ends):
        """An entry that has expired already is kept and not served."""
        await registry.create([entry("/web", expires_at=1)])
        assert ([], 1) == (ids(registry), len(registry))

    async def test_prolonged(self, registry, alarms, clock, heard, ends):
        """An entry that is prolonged in time does not expire at its old time."""
        await registry.create([entry("/web", expires_at=ends)])
        await registry.update([("entry-web", lambda old: replace(old, expires_at=ends + 60))])
        heard.clear()
        clock.advance(60)
        alarms.ring_due()
        assert (["entry-web"], []) == (ids(registry), heard)

    async def test_deleted_before(self, registry, alarms, clock, heard, ends):
        """A deleted entry does not expire any more."""
        await registry.create([entry("/web", expires_at=ends)])
        await registry.delete(["entry-web"])
        heard.clear()
        clock.advance(60)
        alarms.ring_due()
        assert [] == heard

    async def test_revived(self, registry, alarms, clock, ends):
        """An expired entry that is prolonged is served again."""
        await registry.create([entry("/web", expires_at=ends)])
        clock.advance(60)
        alarms.ring_due()
        await registry.update([("entry-web", lambda old: replace(old, expires_at=0))])
        assert ["entry-web"] == ids(registry)


class TestSteps:
    """A wall clock that is set; `alarms` tell of it as they do in the agent. The entry has an hour to live."""

    @pytest.fixture
    async def stepped(self, registry, alarms, clock, heard):
        alarms.on_step(registry.check_clock)
        await registry.create([entry("/web", expires_at=int(clock.now().timestamp()) + 3_600), entry("/ever")])
        heard.clear()

        def step(seconds):
            clock.step_wall(seconds)
            alarms.ring_due()
            return ids(registry)

        return step

    async def test_past_its_end(self, stepped, heard):
        """An entry whose time a step has passed ends at once, and that is told."""
        assert ["entry-ever"] == stepped(86_400)
        assert [None] == [change.new for change in heard]

    async def test_towards_its_end(self, stepped, registry, alarms, clock, heard):
        """An entry that is brought nearer to its end ends by the new time."""
        assert {"entry-web", "entry-ever"} == set(stepped(1_800))
        clock.advance(1_800)
        alarms.ring_due()
        assert (["entry-ever"], 1) == (ids(registry), len(heard))

    async def test_back(self, stepped, registry, alarms, clock, heard):
        """A clock that is set back prolongs no entry."""
        stepped(-86_400)
        clock.advance(3_599)
        alarms.ring_due()
        assert ({"entry-web", "entry-ever"}, []) == (set(ids(registry)), heard)
        clock.advance(1)
        alarms.ring_due()
        assert (["entry-ever"], 1) == (ids(registry), len(heard))

    async def test_back_after_its_end(self, stepped):
        """A clock that is set back revives no entry."""
        stepped(86_400)
        assert ["entry-ever"] == stepped(-86_400)

    async def test_there_and_back(self, stepped, registry, alarms, clock):
        """A step that is taken back before an entry's end leaves it its time."""
        stepped(1_800)
        stepped(-1_800)
        clock.advance(3_599)
        alarms.ring_due()
        assert {"entry-web", "entry-ever"} == set(ids(registry))

    async def test_of_one_that_is_gone(self, stepped, registry, heard):
        """A step does not end what is deleted already."""
        await registry.delete(["entry-web"])
        heard.clear()
        stepped(86_400)
        assert [] == heard


def test_twins_are_errors_of_ours():
    """The error for a twin is the one that the wire maps to ALREADY_EXISTS."""
    assert "ALREADY_EXISTS" == AlreadyExists.grpc_status
