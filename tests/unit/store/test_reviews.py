"""store/reviews.py: dates and decisions outlive the agent, and evidence is kept as long as somebody may decide by it."""

import pytest
from sojourn.operating_limits import REVIEW_DECIDED_SECONDS, REVIEW_SHOWN_EACH, REVIEW_SHOWN_SECONDS, REVIEW_WRITTEN
from sojourn.oversight.review_rules import Shown
from sojourn.oversight.review_state import Decision, ReviewState
from sojourn.store.reviews import ReviewTable
from sojourn.store.tables import review_items
from sqlalchemy import update
from structlog.testing import capture_logs

ITEM = "type:triage"


@pytest.fixture
def reviews(database, journal):
    return ReviewTable(database, journal)


def shown(number, item=ITEM, at_ms=0):
    return Shown(item, f"{number:064x}", at_ms or number, '{"used":true}')


async def kept(reviews, *numbers, item=ITEM):
    """Which of these are there."""
    found = await reviews.shown([(item, f"{number:064x}") for number in numbers])
    return sorted(int(digest, 16) for _, digest in found)


async def test_a_state_as_it_was(reviews):
    """A state is read again as it was written, and in the place of the one before."""
    whole = ReviewState(1, "ab", 2, 3, 4, 5, 6, Decision("keep", 7, "cd", 8, "why", 9, None), ((0, 1), (2, None)))
    await reviews.save({ITEM: ReviewState(1), "workload:spiffe://a/b": ReviewState(2)})
    await reviews.save({ITEM: whole})
    assert {ITEM: whole, "workload:spiffe://a/b": ReviewState(2)} == reviews.load()
    await reviews.forget(["workload:spiffe://a/b"])
    assert [ITEM] == list(reviews.load())


async def test_what_a_later_release_wrote(reviews):
    """What a later release has written into a state beside is left out, and hinders no start."""
    whole = ReviewState(1, last=Decision("keep", 7, "cd", 8, "why", 9, None), changers=((0, None),))
    document = whole.document()
    assert whole == ReviewState.read({**document, "more": True, "last": {**document["last"], "note": "x"}})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"known_ms": "x"}',
        '{"known_ms": 1, "last": {"decision": "keep"}}',
        '{"known_ms": 1, "last": 5}',
        '{"known_ms": 1, "changers": [[1]]}',
        '{"known_ms": 1, "changers": [["x", null]]}',
    ],
)
async def test_what_cannot_be_read(reviews, database, text):
    """A state that cannot be read hinders no start: it is said, and nothing is known of that item but that it is due.
    All else is there.
    """
    await reviews.save({ITEM: ReviewState(5), "type:other": ReviewState(6)})
    change = update(review_items).where(review_items.c.item == ITEM).values(document=text)
    await database.write(lambda connection: connection.execute(change))
    with capture_logs() as logs:
        assert {ITEM: ReviewState(0), "type:other": ReviewState(6)} == reviews.load()
    assert [("review_not_read", ITEM)] == [(each["event"], each["item"]) for each in logs]


async def test_the_last_versions_are_kept(reviews):
    """Of an item the last versions are kept that were shown; one that is shown again is among them."""
    versions = range(1, REVIEW_SHOWN_EACH + 1)
    for number in versions:
        await reviews.show([shown(number)], number)
    await reviews.show([shown(1, at_ms=50)], 50)
    await reviews.show([shown(60, "type:other")], 60)
    await reviews.show([shown(70)], 70)
    assert [1, *versions[2:], 70] == await kept(reviews, *versions, 70)
    assert [60] == await kept(reviews, 60, item="type:other")


async def test_old_ones_go(reviews):
    """What was shown long ago goes; that by which somebody decided is kept for longer."""
    now = 2 * REVIEW_DECIDED_SECONDS * 1_000
    await reviews.show([shown(1, at_ms=now), shown(2, at_ms=now)], now)
    await reviews.save({ITEM: ReviewState(1).decided(Decision("keep", now, f"{1:064x}", now, "", 0, None))})
    later = now + REVIEW_SHOWN_SECONDS * 1_000 + 1
    await reviews.show([shown(3, "type:other", at_ms=later)], later)
    assert [1] == await kept(reviews, 1, 2)
    later = now + REVIEW_DECIDED_SECONDS * 1_000 + 1
    await reviews.show([shown(4, "type:other", at_ms=later)], later)
    assert [] == await kept(reviews, 1, 2)


async def test_very_many(reviews):
    """As much as a spreadsheet of everything has is written and read in parts."""
    several = [shown(number, f"workload:spiffe://a/{number}") for number in range(1, 3 * REVIEW_WRITTEN)]
    await reviews.show(several, 10**6)
    found = await reviews.shown([(each.item, each.digest) for each in several])
    assert len(several) == len(found)
