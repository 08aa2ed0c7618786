"""store/audit_index.py: what the index finds is what is there, both ways, whatever was pruned, killed or set back."""

import itertools
import json
import random
from collections.abc import Iterator

import pytest
from fakes.databases import opened
from sojourn.audit.events import DENIALS
from sojourn.audit.journal import Event
from sojourn.audit.searchable import SVID, WORKLOAD
from sojourn.store import audit_index
from sojourn.store.audit import AuditTable
from sojourn.store.audit_index import BLOCK, AuditIndex, BlockMaking, places_in, unpacked
from sojourn.store.audit_pages import AuditPages, AuditQuery
from sojourn.store.database import Database
from sojourn.store.tables import audit, audit_blocks, audit_terms
from sqlalchemy import Connection, func, select, update

COUNT = 3 * BLOCK + 500
TASKS = [f"tsk_{number:022}" for number in range(700)]
RARE = "tsk_" + "R" * 22


def fields_of(number: int, chance: random.Random) -> tuple[str, dict[str, object]]:
    workload = f"spiffe://example.org/w{number % 7}"
    task = RARE if number == BLOCK + 3 else chance.choice(TASKS)
    match number % 5:
        case 0:
            return "task_begun", {"task": task, "type": "deploy", "spiffe_id": workload, "uid": 1000}
        case 1:
            person = f"psn_{number % 11:022}"
            return "token_denied", {"task": task, "type": "mail", "spiffe_id": workload, "uid": 7, "person": person}
        case 2:
            return "x509_svid_issued", {"serial": f"{number:x}", "spiffe_id": workload, "entry_id": f"e{number % 9}"}
        case 3:
            return "task_revoked_by_operator", {"task": task, "by_uid": number % 3, "reason": f"of {task}"}
        case _:
            return "call_denied", {"uid": number % 13, "pid": 7, "reason": "no", "address": "192.0.2.1"}


def events(first: int, count: int) -> Iterator[Event]:
    """One each second, of all sorts."""
    chance = random.Random(first)
    for number in range(first, first + count):
        event, fields = fields_of(number, chance)
        yield Event(1_000 * number, event, json.dumps(fields, separators=(",", ":"), sort_keys=True))


@pytest.fixture
async def full(journal: AuditTable) -> AuditTable:
    """Three whole blocks, and a part of a fourth."""
    await journal.append([*events(1, COUNT)])
    return journal


async def indexed(database: Database) -> int:
    """Index all that is whole, and say how many blocks that were."""
    index, blocks = AuditIndex(database), 0
    while await index.step():
        blocks += 1
    return blocks


async def forward(pages: AuditPages, wanted: AuditQuery, seq: int = 0) -> list[int]:
    found: list[int] = []
    while True:
        page = await pages.after(seq, wanted)
        assert page.seq > seq or page.end
        found, seq = [*found, *(record.seq for record in page.records)], page.seq
        if page.end:
            return found


async def backward(pages: AuditPages, wanted: AuditQuery, low: int = 0) -> list[int]:
    found: list[int] = []
    seq = await pages.last()
    while True:
        page = await pages.before(seq, low, wanted, 10_000)
        assert page.seq < seq or page.end
        found, seq = [*(record.seq for record in page.records), *found], page.seq
        if page.end:
            return found


QUERIES = [
    AuditQuery(task=RARE),
    AuditQuery(task=TASKS[5]),
    AuditQuery(task="tsk_" + "N" * 22),
    AuditQuery(type="deploy"),
    AuditQuery(type="deplo"),
    AuditQuery(workload="spiffe://example.org/w3"),
    AuditQuery(workload="spiffe://example.org/w3", events=("token_denied",)),
    AuditQuery(workload="spiffe://example.org/w3", events=("token_denied", "x509_svid_issued"), by="7"),
    AuditQuery(by="2"),
    AuditQuery(by="2", events=("task_revoked_by_operator",)),
    AuditQuery(by="192.0.2.1"),
    AuditQuery(people=(f"psn_{4:022}",)),
    AuditQuery(people=(f"psn_{4:022}", f"psn_{5:022}"), type="mail"),
    AuditQuery(denied=True),
    AuditQuery(denied=True, events=("task_begun", "call_denied")),
    AuditQuery(denied=True, events=("task_begun",)),
    AuditQuery(svid=f"{BLOCK * 5 // 5 + 2:x}"),
    AuditQuery(svid="e4", since_ms=1_000_500),
    AuditQuery(since_ms=2_500_500, until_ms=4_500_000),
    AuditQuery(since_ms=2_500_500, until_ms=4_500_000, type="deploy"),
    AuditQuery(until_ms=3_000),
    AuditQuery(since_ms=10**12),
]


def expected(wanted: AuditQuery) -> list[int]:
    """What has to be found, told by another way than the code's."""
    found = []
    for seq, event in enumerate(events(1, COUNT), 1):
        fields = json.loads(event.fields)
        acted = [fields["by_uid"]] if "by_uid" in fields else [fields.get(n) for n in ("uid", "spiffe_id", "address")]
        if (
            (not wanted.events or event.event in wanted.events)
            and (not wanted.denied or event.event in DENIALS)
            and wanted.task in event.fields
            and wanted.type in {"", fields.get("type")}
            and wanted.workload in {"", fields.get("spiffe_id")}
            and (not wanted.by or wanted.by in map(str, acted))
            and (not wanted.people or fields.get("person") in wanted.people)
            and wanted.svid in {"", fields.get("serial"), fields.get("entry_id")}
            and wanted.since_ms <= event.at_ms < (wanted.until_ms or 10**13)
        ):
            found.append(seq)
    return found


class TestFound:
    @pytest.mark.full
    @pytest.mark.parametrize("wanted", QUERIES, ids=str)
    async def test_with_and_without(self, database: Database, full: AuditTable, wanted: AuditQuery) -> None:
        """With the index exactly the records are found that are found without, both ways: those that are there."""
        pages, these = AuditPages(database), expected(wanted)
        assert (these, these) == (await forward(pages, wanted), await backward(pages, wanted))
        assert 3 == await indexed(database)
        assert (these, these) == (await forward(pages, wanted), await backward(pages, wanted))
        behind = BLOCK + 77
        later = [seq for seq in these if seq > behind]
        assert (later, later) == (await forward(pages, wanted, behind), await backward(pages, wanted, behind))

    async def test_what_is_rare_is_found_at_once(self, database: Database, full: AuditTable) -> None:
        """Of blocks that have nothing of what is wanted no record is read: one look finds what is rare."""
        await indexed(database)
        page = await AuditPages(database).after(0, AuditQuery(task=RARE))
        assert ([BLOCK + 3], 3 * BLOCK - 1) == ([each.seq for each in page.records], page.seq)

    async def test_by_an_svid(self, database: Database, full: AuditTable) -> None:
        """What was issued is found by its number, its entry and its workload, of all that is there and since a time."""
        await indexed(database)
        pages = AuditPages(database)
        issued = [seq for seq in range(1, COUNT + 1) if seq % 5 == 2]
        event = {"x509_svid_issued"}
        assert [issued[9]] == [each.seq for each in await pages.of_events(event, 0, (SVID, f"{issued[9]:x}"))]
        of_entry = [each.seq for each in await pages.of_events(event, 0, (SVID, "e4"))]
        assert [seq for seq in issued if seq % 9 == 4] == of_entry
        of_workload = [
            each.seq for each in await pages.of_events(event, 2_000_000, (WORKLOAD, "spiffe://example.org/w1"))
        ]
        assert [seq for seq in issued if seq % 7 == 1 and seq >= 2_000] == of_workload

    async def test_a_clock_that_was_set_back(self, database: Database, journal: AuditTable) -> None:
        """Records are found by the times that they say, in whatever order they were made."""
        late = [Event(10**9 + number, "task_begun", "{}") for number in range(BLOCK)]
        early = [Event(10**6 + number, "task_begun", "{}") for number in range(BLOCK)]
        await journal.append([*late, *early])
        await indexed(database)
        pages = AuditPages(database)
        assert [*range(1, BLOCK + 1)] == await forward(pages, AuditQuery(since_ms=10**9))
        assert [*range(BLOCK + 1, 2 * BLOCK + 1)] == await backward(pages, AuditQuery(until_ms=10**9))

    async def test_two_terms_with_one_digest(
        self, database: Database, full: AuditTable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A digest that two terms share finds no record that lacks what is wanted, and misses none."""
        monkeypatch.setattr(audit_index, "_TERM_BYTES", 1)
        await indexed(database)
        for wanted in (AuditQuery(task=TASKS[5]), AuditQuery(by="2")):
            assert expected(wanted) == await forward(AuditPages(database), wanted)


class TestBehind:
    async def test_only_whole_blocks(self, database: Database, journal: AuditTable) -> None:
        """A block is indexed once its last record is there, and no earlier; then the next one waits for its own."""
        await journal.append([*events(1, BLOCK - 2)])
        assert 0 == await indexed(database)
        await journal.append([*events(BLOCK - 1, 1)])
        assert (1, 0) == (await indexed(database), await indexed(database))
        await journal.append([*events(BLOCK, BLOCK)])
        assert 1 == await indexed(database)

    async def test_it_wakes_by_itself(self, database: Database, journal: AuditTable) -> None:
        """What is recorded is indexed without anybody asking for it, while the agent runs."""
        import asyncio

        index, loop = AuditIndex(database), asyncio.get_running_loop()
        database.on_commit(lambda _seconds: index.heard(loop, journal.written_seq))
        running = asyncio.create_task(index.run())
        try:
            for block in range(2):
                await journal.append([*events(1 + block * BLOCK, BLOCK)])
                async with asyncio.timeout(60):
                    while await database.read(audit_index.indexed_until) < (block + 1) * BLOCK - 1:
                        await asyncio.sleep(0.02)
        finally:
            running.cancel()

    async def test_a_crash_in_the_middle(self, path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was half written is written anew at the next start, and nothing of it is found twice or by half."""
        wanted = AuditQuery(workload="spiffe://example.org/w3")
        with opened(path) as database:
            await AuditTable(database).append([*events(1, COUNT)])
            monkeypatch.setattr(audit_index, "INDEX_WRITTEN", 100)
            monkeypatch.setattr(audit_index, "_finish", lambda *_: 1 / 0)
            with pytest.raises(Exception, match="the database work failed"):
                await AuditIndex(database).step()
            assert expected(wanted) == await forward(AuditPages(database), wanted)
        monkeypatch.undo()
        with opened(path) as database:
            assert await database.read(lambda c: c.execute(select(func.count()).select_from(audit_terms)).scalar())
            assert 3 == await indexed(database)
            assert expected(wanted) == await forward(AuditPages(database), wanted)

    async def test_damaged_records(self, database: Database, full: AuditTable) -> None:
        """A record whose fields are no JSON any more is found by its event, and holds up neither index nor search."""
        damage = update(audit).where(audit.c.seq.in_([6, 11])).values(fields='{"task":')
        await database.write(lambda connection: connection.execute(damage))
        assert 3 == await indexed(database)
        pages = AuditPages(database)
        assert {6, 11} <= set(await forward(pages, AuditQuery(events=("token_denied",))))
        assert not {6, 11} & set(await forward(pages, AuditQuery(type="mail")))

    async def test_what_it_takes(self, database: Database, journal: AuditTable) -> None:
        """The index takes less than a tenth of what the records take, where each has a task of its own."""
        filler = "x" * 300
        made = [
            Event(number, "task_begun", json.dumps({"task": f"tsk_{number:022}", "uid": 7, "inputs": filler}))
            for number in range(2 * BLOCK)
        ]
        await journal.append(made)
        before = await journal.size()
        await indexed(database)
        assert await journal.size() - before < 0.1 * before


class TestPruned:
    async def test_what_is_gone(self, database: Database) -> None:
        """With records goes what was indexed of them; the rest is found as before."""
        journal = AuditTable(database, kept_least=5)
        await journal.append([*events(1, COUNT)])
        await indexed(database)
        gone = 2 * BLOCK + 100
        assert gone == await journal.prune(gone, 0)

        def left(connection: Connection) -> tuple[set[int], set[int]]:
            terms = {row.block for row in connection.execute(select(audit_terms.c.block).distinct())}
            return {row.number for row in connection.execute(select(audit_blocks.c.number))}, terms

        assert ({2}, {2}) == await database.read(left)
        wanted = AuditQuery(workload="spiffe://example.org/w3")
        these = [seq for seq in expected(wanted) if seq > gone]
        pages = AuditPages(database)
        assert (these, these) == (await forward(pages, wanted), await backward(pages, wanted))

    async def test_very_much(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where very much is indexed of what goes, others do not wait for all of it: the rest goes the next times."""
        monkeypatch.setattr(audit_index, "INDEX_PRUNED", 300)
        journal = AuditTable(database, kept_least=5)
        await journal.append([*events(1, COUNT)])
        await indexed(database)
        await journal.prune(BLOCK, 0)
        old = select(func.count()).select_from(audit_terms).where(audit_terms.c.block == 0)
        counts = [await database.read(lambda connection: connection.execute(old).scalar())]
        while counts[-1]:
            await journal.prune(10, 0)
            counts.append(await database.read(lambda connection: connection.execute(old).scalar()))
        assert len(counts) > 2
        assert all(before - after <= 300 for before, after in itertools.pairwise(counts))

    async def test_before_anything_is_indexed(self, database: Database) -> None:
        """A journal whose beginning was pruned is indexed from where it begins now."""
        journal = AuditTable(database, kept_least=5)
        await journal.append([*events(1, COUNT)])
        await journal.prune(BLOCK + 10, 0)
        assert 2 == await indexed(database)
        wanted = AuditQuery(type="deploy")
        assert [seq for seq in expected(wanted) if seq > BLOCK + 10] == await forward(AuditPages(database), wanted)


class TestPlaces:
    @pytest.mark.parametrize("count", [1, 2, 126, 127, 128, 129, 2047, 2048])
    def test_there_and_back(self, count: int) -> None:
        """Few and many places come back as they were, lowest first and highest first."""
        places = sorted(random.Random(count).sample(range(BLOCK), count))
        making = BlockMaking(7)
        for place in places:
            making.add(7 * BLOCK + place, 1, "task_begun", "{}")
        [packed] = making.made().places.values()
        assert len(packed) <= BLOCK // 8
        bits = unpacked(packed)
        assert (places, places[::-1]) == ([*places_in(bits)], [*places_in(bits, descending=True)])


async def test_the_database_goes_from_block_to_block(database: Database, full: AuditTable) -> None:
    """A term is looked up in each block by the key of its table, and no table is read whole."""
    await indexed(database)
    plans: list[str] = []

    def work(connection: Connection) -> None:
        execute = connection.execute

        def explained(statement, *args, **options):
            compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
            plans.append(str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()))
            return execute(statement, *args, **options)

        connection.execute = explained  # type: ignore[method-assign]
        list(audit_index.candidates(connection, [[1, 2], [3]], range(3), (0, 10**12), descending=True))

    await database.read(work)
    [plan] = plans
    assert "SEARCH audit_blocks USING INTEGER PRIMARY KEY" in plan
    assert "SEARCH audit_terms USING PRIMARY KEY (block=? AND term=?)" in plan
    assert "TEMP B-TREE" not in plan
