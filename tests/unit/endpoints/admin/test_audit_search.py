"""endpoints/admin/audit_search.py and audit_filter.py: the journal searched by operators, a page at a time."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit, Event
from sojourn.endpoints.admin.audit_filter import AuditFilters
from sojourn.endpoints.admin.audit_search import AuditSearchApi
from sojourn.errors import InvalidInput, NotFound
from sojourn.operating_limits import PAGE_BYTES, PAGE_ITEMS
from sojourn.store.audit import AuditTable
from sojourn.store.audit_index import BLOCK, AuditIndex
from sojourn.store.audit_pages import AuditPages
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.pseudonyms import Pseudonyms

COUNT = BLOCK + 600
TASK = "tsk_" + "a" * 22
BY = {"by_uid": 0, "by_pid": 1}
CORP, PLAIN = "https://idp.example", "https://plain.example"


@dataclass
class Reads:
    """Remembers who read."""

    told: list[tuple[dict[str, Any], int]] = field(default_factory=list)

    def tell(self, by: Any, wanted: dict[str, Any], count: int) -> None:
        assert by == BY
        self.told.append((wanted, count))


@dataclass
class Room:
    api: AuditSearchApi
    journal: AuditTable
    reads: Reads
    pseudonyms: Pseudonyms

    async def search(self, **asked: Any) -> pb.SearchAuditResponse:
        call: Any = SimpleNamespace(by=BY)
        return await self.api.search(call, pb.SearchAuditRequest(**asked))

    async def pages(self, **asked: Any) -> list[list[int]]:
        """The numbers of all records, by page."""
        found: list[list[int]] = []
        token = ""
        while True:
            answer = await self.search(page_token=token, **asked)
            found.append([record.seq for record in answer.records])
            token = answer.next_page_token
            if not token:
                return found


@pytest.fixture
async def room(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Room]:
    """A block that is indexed and some records that are not; every 50th is a refusal."""
    pseudonyms = Pseudonyms.at(tmp_path / "people.key", ("plain",))
    names = PeopleNames(pseudonyms, {"corp": CORP, "plain": PLAIN})
    with opened(tmp_path / "sojourn.db") as database:
        journal = AuditTable(database)
        numbers = range(1, COUNT + 1)
        await journal.append(
            [
                Event(n, "token_issued" if n % 50 else "token_denied", json.dumps({"n": n, "type": "mail"}))
                for n in numbers
            ]
        )
        assert await AuditIndex(database).step()
        reads = Reads()
        api = AuditSearchApi(Audit(journal, clock), AuditPages(database), AuditFilters(names), reads)  # type: ignore[arg-type]
        yield Room(api, journal, reads, pseudonyms)


REFUSED = [n for n in range(1, COUNT + 1) if n % 50 == 0]


class TestPages:
    @pytest.mark.parametrize("size", [1, 7, 26, 27, 52, 53, 200])
    async def test_page_by_page(self, room: Room, size: int) -> None:
        """Page by page each record that is wanted comes once, the newest first or the oldest, and none is left over."""
        wanted = pb.AuditFilter(denied=True)
        for oldest, these in ((True, REFUSED), (False, REFUSED[::-1])):
            found = await room.pages(filter=wanted, page_size=size, oldest_first=oldest)
            assert these == [seq for page in found for seq in page]
            assert {size} >= {len(page) for page in found[:-1]}
            assert 1 <= len(found[-1]) <= size

    async def test_without_a_filter(self, room: Room) -> None:
        """Without a filter all records are found; a page has a hundred, and never more than is allowed."""
        assert [*range(COUNT, COUNT - 100, -1)] == [each.seq for each in (await room.search()).records]
        assert PAGE_ITEMS == len((await room.search(page_size=2**31)).records)

    async def test_what_is_recorded_meanwhile(self, room: Room) -> None:
        """What comes between two pages is told nobody twice, and moves nothing."""
        first = await room.search(page_size=5)
        await room.journal.append([Event(5, "token_issued", "{}")] * 3)
        second = await room.search(page_size=5, page_token=first.next_page_token)
        assert [*range(COUNT, COUNT - 10, -1)] == [each.seq for each in (*first.records, *second.records)]

    async def test_nothing(self, room: Room) -> None:
        """A search that finds nothing says so at once."""
        assert [[]] == await room.pages(filter=pb.AuditFilter(type="post"))
        assert [[]] == await room.pages(filter=pb.AuditFilter(after_seq=COUNT), oldest_first=True)

    async def test_large_records(self, room: Room) -> None:
        """An answer is no larger than clients take, and what it has no room for is on the next page."""
        text = "x" * (PAGE_BYTES // 3)
        await room.journal.append([Event(n, "fact_published", json.dumps({"value": text})) for n in range(7)])
        for oldest in (True, False):
            found = await room.pages(filter=pb.AuditFilter(events=["fact_published"]), oldest_first=oldest)
            assert 7 == sum(map(len, found))
            assert all(1 <= len(page) <= 3 for page in found)

    @pytest.mark.parametrize(
        "token", ["x", "WyJuZXdlc3QiLDBd", "WyJuZXdlc3QiLC0xXQ==", "WzEsMl0=", "W10=", "e30=", "x" * 99]
    )
    async def test_no_token(self, room: Room, token: str) -> None:
        """What is no page token of this list is refused."""
        with pytest.raises(InvalidInput, match="page_token"):
            await room.search(page_token=token)

    async def test_a_token_of_the_other_order(self, room: Room) -> None:
        """A page of the newest does not go on as one of the oldest."""
        token = (await room.search(page_size=1)).next_page_token
        with pytest.raises(InvalidInput, match="other order"):
            await room.search(page_token=token, oldest_first=True)


class TestFilters:
    async def test_several_at_once(self, room: Room) -> None:
        """A record has to fit all that is given."""
        wanted = pb.AuditFilter(denied=True, type="mail", since_ms=100, until_ms=300, after_seq=120)
        assert [[250, 200, 150]] == await room.pages(filter=wanted)

    async def test_people(self, room: Room) -> None:
        """A person is found by name whatever records call them, and a pseudonym as it is."""
        alice, bob = room.pseudonyms.named(CORP, "alice"), room.pseudonyms.named(PLAIN, "bob")
        for person in (alice, bob, "plain|bob"):
            await room.journal.append([Event(1, "task_begun", json.dumps({"person": person}))])
        for said, these in (
            ("corp/alice", [COUNT + 1]),
            (alice, [COUNT + 1]),
            ("plain/bob", [COUNT + 3, COUNT + 2]),
            (bob, [COUNT + 2]),
        ):
            assert [these] == await room.pages(filter=pb.AuditFilter(person=said))

    async def test_a_person_is_not_named_by_who_looks_for_them(self, room: Room) -> None:
        """The record of a read calls a person as other records do."""
        await room.search(filter=pb.AuditFilter(person="corp/alice"))
        await room.search(filter=pb.AuditFilter(person="plain/bob"))
        assert [{"person": room.pseudonyms.named(CORP, "alice")}, {"person": "plain|bob"}] == [
            wanted for wanted, _ in room.reads.told
        ]

    async def test_who_read(self, room: Room) -> None:
        """Each read is told, with all that was wanted and how many records were given."""
        await room.search(
            filter=pb.AuditFilter(events=["token_denied"], task_id=TASK, workload="spiffe://a.b/c", by="7", type="t")
        )
        await room.search(filter=pb.AuditFilter(denied=True, since_ms=1, until_ms=101))
        assert [
            (
                {"events": ["token_denied"], "task": TASK, "workload": "spiffe://a.b/c", "by": "7", "type": "t"},
                0,
            ),
            ({"denied": True, "since_ms": 1, "until_ms": 101}, 2),
        ] == room.reads.told

    @pytest.mark.parametrize(
        "wanted",
        [
            {"events": [f"e{n}" for n in range(33)]},
            {"events": ["x" * 129]},
            {"task_id": "x" * 129},
            {"task_id": TASK[:-1]},
            {"type": "x" * 129},
            {"workload": "x" * 2049},
            {"by": "x" * 2049},
            {"person": "x" * 2049},
            {"since_ms": -1},
            {"until_ms": -1},
            {"after_seq": 2**63},
            {"person": "nobody"},
        ],
        ids=lambda wanted: next(iter(wanted)),
    )
    async def test_what_is_refused(self, room: Room, wanted: dict[str, Any]) -> None:
        """What no good search has is refused, and is no read."""
        with pytest.raises(InvalidInput):
            await room.search(filter=pb.AuditFilter(**wanted))
        assert [] == room.reads.told

    async def test_an_unknown_issuer(self, room: Room) -> None:
        """A person of an issuer that is not configured is said to be unknown, and not looked for in vain."""
        with pytest.raises(NotFound):
            await room.search(filter=pb.AuditFilter(person="other/alice"))
