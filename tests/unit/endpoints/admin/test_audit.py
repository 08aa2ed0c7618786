"""endpoints/admin/audit.py: the journal as operators are told of it, part by part."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit, Event
from sojourn.endpoints.admin.audit import AuditReadingApi
from sojourn.endpoints.admin.audit_filter import AuditFilters
from sojourn.errors import InvalidInput
from sojourn.limits import AUDIT_LISTED
from sojourn.store import audit_pages
from sojourn.store.audit import AuditTable
from sojourn.store.audit_pages import AuditPages
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.pseudonyms import Pseudonyms


class Reads:
    """Records none."""

    def tell(self, by: Any, wanted: Any, count: int) -> None: ...


def names() -> PeopleNames:
    return PeopleNames(Pseudonyms.of_this_run(), {"corp": "https://idp.example"})


COUNT = 30  # records, every third of which is rare


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AuditReadingApi]:
    """Of a journal of COUNT records that is read in pages of 4."""
    monkeypatch.setattr(audit_pages, "AUDIT_PAGE", 4)
    with opened(tmp_path / "sojourn.db") as database:
        table = AuditTable(database)
        numbers = range(1, COUNT + 1)
        await table.append([Event(n, "often" if n % 3 else "rare", json.dumps({"n": n})) for n in numbers])
        audit = Audit(table, FakeClock(datetime(2026, 5, 1, tzinfo=UTC)))
        yield AuditReadingApi(audit, AuditPages(database), AuditFilters(names()), Reads(), lambda: False)


async def read(api: AuditReadingApi, **asked: Any) -> tuple[list[int], int]:
    """The numbers of the records, and behind which there are more."""
    call: Any = SimpleNamespace(by={"by_uid": 0, "by_pid": 1}, peer=SimpleNamespace(who=0))
    parts = [part async for part in api.read(call, pb.ReadAuditRequest(**asked))]
    return [record.seq for part in parts for record in part.records], parts[-1].next_after if parts else 0


class TestFirst:
    @pytest.mark.parametrize("number", [1, 3, 4, 5, 8, 9, 29])
    async def test_a_page(self, api: AuditReadingApi, number: int) -> None:
        """The first so many records are given and no more, with the one behind which there are more."""
        assert (list(range(1, number + 1)), number) == await read(api, first=number)

    @pytest.mark.parametrize("number", [4, 7, 10])
    @pytest.mark.parametrize("events", [[], ["rare"]])
    async def test_page_by_page(self, api: AuditReadingApi, number: int, events: list[str]) -> None:
        """Whoever goes on behind each page has every record that was wanted once, and is told when there is none left."""
        found, after, pages = list[int](), 0, 0
        while after or not pages:
            some, after = await read(
                api, first=number, filter=pb.AuditFilter(events=events, after_seq=found[-1] if found else 0)
            )
            assert len(some) == number or not after
            found, pages = [*found, *some], pages + 1
        assert list(range(3, COUNT + 1, 3) if events else range(1, COUNT + 1)) == found

    @pytest.mark.parametrize("number", [COUNT, COUNT + 1, AUDIT_LISTED])
    async def test_all_there_is(self, api: AuditReadingApi, number: int) -> None:
        """Where there are no more than were asked for, nobody is told to go on."""
        assert (list(range(1, COUNT + 1)), 0) == await read(api, first=number)

    async def test_nothing(self, api: AuditReadingApi) -> None:
        """A page behind the end is empty, and the last."""
        assert ([], 0) == await read(api, first=5, filter=pb.AuditFilter(after_seq=COUNT))

    @pytest.mark.parametrize("others", [{"last": 1}, {"follow": True}, {"first": AUDIT_LISTED + 1}])
    async def test_what_is_refused(self, api: AuditReadingApi, others: dict[str, Any]) -> None:
        """Too many at once, and what has two ends or none, is refused."""
        with pytest.raises(InvalidInput, match="first"):
            await read(api, **{"first": 1, **others})


class TestFollow:
    async def followed(self, api: AuditReadingApi, **asked: Any) -> tuple[int, list[int]]:
        """Behind which record a follower begins, and what it is told first."""
        call: Any = SimpleNamespace(by={"by_uid": 0, "by_pid": 1}, peer=SimpleNamespace(who=0))
        begin, found = -1, list[int]()
        async with aclosing(api.read(call, pb.ReadAuditRequest(follow=True, **asked))) as parts:  # type: ignore[type-var]
            async for part in parts:
                begin = part.begin if part.HasField("begin") else begin
                found += [record.seq for record in part.records]
                if found or begin == COUNT:
                    break
        return begin, found

    async def test_where_it_begins(self, api: AuditReadingApi) -> None:
        """A follower is told first behind which record it begins: with what comes, behind a record, or with the last."""
        assert (COUNT, []) == await self.followed(api, from_now=True)
        assert (7, [8, 9, 10, 11]) == await self.followed(api, filter=pb.AuditFilter(after_seq=7))
        assert (COUNT - 2, [COUNT - 1, COUNT]) == await self.followed(api, last=2)

    async def test_behind_the_end(self, api: AuditReadingApi) -> None:
        """Whoever has seen more than there is, as of a database that was put back, is told where the journal ends."""
        assert (COUNT, []) == await self.followed(api, filter=pb.AuditFilter(after_seq=COUNT + 1_000))

    @pytest.mark.parametrize(
        "asked", [{}, {"follow": True, "last": 1}, {"follow": True, "filter": pb.AuditFilter(after_seq=1)}]
    )
    async def test_what_is_refused(self, api: AuditReadingApi, asked: dict[str, Any]) -> None:
        """What begins in two places, or does not go on, is refused."""
        with pytest.raises(InvalidInput, match="from_now"):
            await read(api, from_now=True, **asked)
