"""store/short_lists.py and last_good_types.py: a short list and the record of its change are one write; a set of task types."""

import pytest
from sojourn.audit.journal import Event
from sojourn.errors import StoreFailed
from sojourn.store.last_good_types import KeptPolicy
from sojourn.store.short_lists import REVIEWS, TASK_BLOCKS, KeptList
from sojourn.tasks.blocks import Block
from sojourn.tasks.break_glass_reviews import Review

SAID = Event(1, "said", "{}")
ONE = Review("tsk_1", "glass", "spiffe://example.org/a", 4001, None, 7, 1_700_000_000)
TWO = Review("tsk_2", "other", "spiffe://example.org/b", 4001, 1000, 8, 1_700_000_001)


@pytest.fixture
def reviews(database, journal):
    return KeptList(database, journal, REVIEWS, Review)


class TestKeptList:
    def test_is_empty_at_first(self, reviews):
        """What was never written is an empty list."""
        assert [] == reviews.load()

    async def test_is_what_was_saved_last(self, reviews, journal):
        """Each save replaces the whole list, and has its record."""
        for values in ([ONE], [ONE, TWO], [TWO], []):
            await reviews.save(values, SAID)
            assert values == reviews.load()
        assert ["said"] * 4 == [record.event for record in await journal.tail(10)]

    async def test_lists_are_apart(self, database, journal, reviews):
        """Each list has its own name."""
        blocks = KeptList(database, journal, TASK_BLOCKS, Block)
        await reviews.save([ONE], SAID)
        await blocks.save([Block("type", "pay", "because", 5)], SAID)
        assert ([ONE], [Block("type", "pay", "because", 5)]) == (reviews.load(), blocks.load())

    async def test_no_record_no_change(self, reviews, journal, monkeypatch):
        """If the record cannot be written the list stays what it was."""
        await reviews.save([ONE], SAID)

        def fail(*_):
            raise StoreFailed("no")

        monkeypatch.setattr(journal, "append_in", fail)
        with pytest.raises(StoreFailed):
            await reviews.save([ONE, TWO], SAID)
        assert [ONE] == reviews.load()


async def test_the_kept_policy(database):
    """The text of the last good set is what was saved last, and none at first."""
    kept = KeptPolicy(database)
    assert None is kept.load()
    for text in ("one", "two"):
        await kept.save(text)
        assert text == KeptPolicy(database).load()
