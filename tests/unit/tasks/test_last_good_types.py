"""last_good_types.py: the set in force is kept as it was, and what is kept is taken for nothing else."""

import json
from pathlib import Path

import pytest
import structlog
from fakes.clock import FakeClock
from fakes.task_types import PERMIT_ALL, toml
from sojourn.errors import InvalidPolicy, StoreFailed
from sojourn.policy import task_types
from sojourn.tasks import last_good_types as last_good_module
from sojourn.tasks.last_good_types import LastGood

FOLDER = Path("/etc/types")
TEXTS = {"one.toml": toml(), "one.cedar": PERMIT_ALL, "one.test.toml": "# none"}


class Store:
    """One text in memory; `broken` takes none."""

    def __init__(self):
        self.text = None
        self.saved = 0
        self.broken = False

    def load(self):
        return self.text

    async def save(self, text):
        if self.broken:
            raise StoreFailed("the disk is full")
        self.text, self.saved = text, self.saved + 1


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def found():
    return task_types.made_of(FOLDER, TEXTS)


def last_good(store, **changes):
    return LastGood(store, FakeClock(), **changes)


class TestKept:
    async def test_is_what_was_in_force(self, store, found):
        """What is kept is the very set, its cases too, with its folder and when it came into force."""
        await last_good(store).keep(FOLDER, found)
        kept = await last_good(store).read()
        assert (found.digest, TEXTS, FOLDER) == (kept.types.digest, kept.types.texts, kept.folder)
        assert kept.accepted_at == FakeClock().now().replace(microsecond=0)

    async def test_once(self, store, found):
        """The same set is written once; another one takes its place."""
        keeper = last_good(store)
        for _ in range(3):
            await keeper.keep(FOLDER, found)
        assert 1 == store.saved
        await keeper.keep(FOLDER, task_types.made_of(FOLDER, {**TEXTS, "one.test.toml": "# others"}))
        assert 2 == store.saved
        assert "# others" == (await keeper.read()).types.texts["one.test.toml"]

    async def test_for_the_records(self, store, found):
        """Each set that comes into force is there for whoever reads the records of what it decided, once a run."""
        seen = []

        class Sets:
            async def keep(self, digest, texts):
                seen.append((digest, texts))

        keeper = last_good(store, recorded=Sets())
        other = task_types.made_of(FOLDER, {**TEXTS, "one.cedar": PERMIT_ALL.replace("all", "other")})
        for each in (found, found, other, found):
            await keeper.keep(FOLDER, each)
        assert [found.digest, other.digest, found.digest] == [digest for digest, _ in seen]
        assert seen[0] == (found.digest, TEXTS)

    async def test_over_a_start(self, store, found):
        """A set that is in force again after a start is not written again: it came into force when it did."""
        await last_good(store).keep(FOLDER, found)
        before = store.text
        clock = FakeClock()
        clock.advance(60)
        await LastGood(store, clock).keep(FOLDER, found)
        assert (1, before) == (store.saved, store.text)

    async def test_one_that_is_too_large(self, store, found, monkeypatch):
        """A set that is too large is not kept, and neither is the one before: it could allow more."""
        keeper = last_good(store)
        await keeper.keep(FOLDER, found)
        monkeypatch.setattr(last_good_module, "KEPT_TYPES_MAX_BYTES", 100)
        with structlog.testing.capture_logs() as logs:
            await keeper.keep(FOLDER, task_types.made_of(FOLDER, {"two.toml": toml(), "two.cedar": PERMIT_ALL}))
        assert ["policy_not_kept"] == [each["event"] for each in logs]
        with pytest.raises(InvalidPolicy, match="is larger than the 100 bytes that are kept"):
            await keeper.read()

    async def test_a_store_that_fails(self, store, found):
        """A store that takes nothing is told of and can be tried again."""
        keeper = last_good(store)
        store.broken = True
        with structlog.testing.capture_logs() as logs:
            assert not await keeper.try_to_keep(FOLDER, found)
        assert [("policy_not_kept", "the disk is full")] == [(each["event"], each["reason"]) for each in logs]
        store.broken = False
        assert await keeper.try_to_keep(FOLDER, found)
        assert found.digest == (await keeper.read()).types.digest


class TestNotUsed:
    async def refused(self, store, **changes):
        with pytest.raises(InvalidPolicy) as caught:
            await last_good(store, **changes).read()
        return str(caught.value)

    async def test_none(self, store):
        """Where no set has been in force there is none."""
        assert "no set has been in force here before" == await self.refused(store)

    async def test_of_an_older_database(self, store, found):
        """What takes the place of the set in a database that was put back is no set, of the same folder, until another
        one is kept.
        """
        await last_good(store).keep(FOLDER, found)
        store.text = last_good_module.of_older(store.text)
        assert "the database is older than the last run" in await self.refused(store)
        assert last_good(store).belongs_to(FOLDER)
        await last_good(store).keep(FOLDER, found)
        assert found.digest == (await last_good(store).read()).types.digest

    @pytest.mark.parametrize("text", ["", "nonsense", "{}", "[]"])
    async def test_of_an_older_database_that_is_damaged(self, store, text):
        """What takes the place of something damaged in a database that was put back is no set."""
        store.text = last_good_module.of_older(text)
        assert "the database is older than the last run" in await self.refused(store)

    async def test_of_another_release(self, store, found):
        """What another release has written is not guessed at."""
        await last_good(store).keep(FOLDER, found)
        store.text = store.text.replace('"schema":1', '"schema":2')
        assert "the set that was in force last was kept by another release" == await self.refused(store)

    async def test_one_that_cannot_be_read_any_more(self, store, found):
        """A set that this release does not take is refused with file and line."""
        await last_good(store).keep(FOLDER, found)
        document = json.loads(store.text)
        document["files"]["one.toml"] += "\nsurprise = 1\n"
        store.text = json.dumps(document)
        assert "/etc/types/one.toml:6: surprise: unknown key" == await self.refused(store)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda document: "{",
            lambda document: "[]",
            lambda document: json.dumps({**document, "files": None}),
            lambda document: json.dumps({**document, "files": {**document["files"], "one.cedar": 7}}),
            lambda document: json.dumps({**document, "digest": "0" * 64}),
            lambda document: json.dumps({**document, "at": "yesterday"}),
            lambda document: json.dumps({**document, "files": {"one.toml": document["files"]["one.toml"]}}),
        ],
        ids=["text", "array", "no-files", "number", "digest", "time", "half"],
    )
    async def test_a_damaged_one(self, store, found, damage):
        """A damaged document is refused as that, whatever is wrong with it."""
        await last_good(store).keep(FOLDER, found)
        store.text = damage(json.loads(store.text))
        assert "the kept set of task types is damaged" == await self.refused(store)
        assert not last_good(store).belongs_to(Path("/elsewhere"))

    async def test_an_empty_one(self, store):
        """A set without task types is none to start with."""
        await last_good(store).keep(FOLDER, task_types.made_of(FOLDER, {}))
        assert "the set that was in force last has no task types" == await self.refused(store)

    async def test_whose_it_is(self, store, found):
        """A set with task types belongs to its folder alone; an empty one to none."""
        keeper = last_good(store)
        assert not keeper.belongs_to(FOLDER)
        await keeper.keep(FOLDER, found)
        assert (True, False) == (keeper.belongs_to(FOLDER), keeper.belongs_to(Path("/other")))
        await keeper.keep(FOLDER, task_types.made_of(FOLDER, {}))
        assert not keeper.belongs_to(FOLDER)
