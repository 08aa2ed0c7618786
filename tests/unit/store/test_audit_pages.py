"""store/audit_pages.py: the journal page by page, as it was asked for, whatever its length and what was pruned."""

import json
from collections.abc import Iterator

import pytest
from sojourn.audit.journal import Event, Record
from sojourn.store import audit_pages
from sojourn.store.audit import AuditTable
from sojourn.store.audit_pages import AuditPages, AuditQuery
from sojourn.store.database import Database


@pytest.fixture
def pages(database: Database, monkeypatch: pytest.MonkeyPatch) -> AuditPages:
    """Pages of 4 records at most, found among 10."""
    monkeypatch.setattr(audit_pages, "AUDIT_PAGE", 4)
    monkeypatch.setattr(audit_pages, "AUDIT_SCANNED", 10)
    return AuditPages(database)


def events(numbers: range | list[int]) -> Iterator[Event]:
    """One each second; every third is rare, and every fifth of a task of the type `deploy`."""
    for number in numbers:
        fields = {"task": f"tsk_{number}", "type": "deploy" if number % 5 == 0 else 'say "deploy"'}
        yield Event(1_000 * number, "rare" if number % 3 == 0 else "often", json.dumps(fields, separators=(",", ":")))


async def forward(pages: AuditPages, wanted: AuditQuery, seq: int = 0) -> list[int]:
    found: list[Record] = []
    while True:
        page = await pages.after(seq, wanted)
        assert page.seq > seq or page.end
        assert len(page.records) <= 4
        found, seq = [*found, *page.records], page.seq
        if page.end:
            return [record.seq for record in found]


async def backward(pages: AuditPages, wanted: AuditQuery, most: int, low: int = 0) -> list[int]:
    found: list[Record] = []
    seq = await pages.last()
    while len(found) < most:
        page = await pages.before(seq, low, wanted, most - len(found))
        found, seq = [*page.records, *found], page.seq
        if page.end:
            break
    return [record.seq for record in found]


CASES = [
    (AuditQuery(), range(1, 101)),
    (AuditQuery(events=("rare",)), range(3, 101, 3)),
    (AuditQuery(events=("rare", "often")), range(1, 101)),
    (AuditQuery(events=("never",)), []),
    (AuditQuery(type="deploy"), range(5, 101, 5)),
    (AuditQuery(type="deplo"), []),
    (AuditQuery(type="deploy", events=("rare",)), range(15, 101, 15)),
    (AuditQuery(containing="tsk_77"), [77]),
    (AuditQuery(containing="tsk%77"), []),
    (AuditQuery(since_ms=42_500), range(43, 101)),
]


class TestWanted:
    @pytest.mark.parametrize(("wanted", "expected"), CASES)
    async def test_both_ways(self, journal: AuditTable, pages: AuditPages, wanted: AuditQuery, expected: range) -> None:
        """Forward and backward exactly the records that are wanted are found, in pages, whatever lies between them."""
        await journal.append([*events(range(1, 101))])
        assert list(expected) == await forward(pages, wanted)
        assert list(expected) == await backward(pages, wanted, 1000)
        assert list(expected)[-7:] == await backward(pages, wanted, 7)

    async def test_behind_a_record(self, journal: AuditTable, pages: AuditPages) -> None:
        """What is behind a record is found without it, and nothing behind the last one or a number beyond it."""
        await journal.append([*events(range(1, 31))])
        assert [28, 29, 30] == await forward(pages, AuditQuery(), 27)
        assert [28, 29, 30] == await backward(pages, AuditQuery(), 1000, 27)
        for beyond in (30, 31, 2**62):
            assert [] == await forward(pages, AuditQuery(), beyond)
            assert [] == await backward(pages, AuditQuery(), 1000, beyond)

    async def test_what_comes_later(self, journal: AuditTable, pages: AuditPages) -> None:
        """A reader goes on where it was, and finds what was recorded since."""
        await journal.append([*events(range(1, 6))])
        page = await pages.after(4, AuditQuery())
        assert (True, 5) == (page.end, page.seq)
        await journal.append([*events([6])])
        assert [6] == await forward(pages, AuditQuery(), page.seq)

    async def test_none(self, pages: AuditPages) -> None:
        """Of an empty journal there is nothing, and it ends at once."""
        assert ([], [], 0, 0) == (
            await forward(pages, AuditQuery()),
            await backward(pages, AuditQuery(), 5),
            await pages.last(),
            await pages.before_time(5),
        )

    async def test_pruned(self, database: Database, pages: AuditPages) -> None:
        """Where the oldest records are gone a reader from before them goes on with the first that there is."""
        journal = AuditTable(database, kept_least=5)
        await journal.append([*events(range(1, 101))])
        assert 60 == await journal.prune(60, 0)
        assert list(range(61, 102)) == await forward(pages, AuditQuery(), 3)
        assert list(range(61, 102)) == await backward(pages, AuditQuery(), 1000, 3)


class TestTime:
    @pytest.mark.parametrize(
        ("at_ms", "seq"), [(0, 0), (1_000, 0), (1_001, 1), (50_000, 49), (50_001, 50), (10**9, 100)]
    )
    async def test_before_a_time(self, journal: AuditTable, pages: AuditPages, at_ms: int, seq: int) -> None:
        """The last record before a time is found, and none if all are later."""
        await journal.append([*events(range(1, 101))])
        assert seq == await pages.before_time(at_ms)

    async def test_a_pruned_journal(self, database: Database, pages: AuditPages) -> None:
        """What is gone is not looked for: a time before the first record that there is leads to just before it."""
        journal = AuditTable(database, kept_least=5)
        await journal.append([*events(range(1, 101))])
        await journal.prune(60, 101_000)
        assert (60, 69) == (await pages.before_time(5_000), await pages.before_time(70_000))
