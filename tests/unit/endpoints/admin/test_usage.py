"""endpoints/admin/usage.py: reports in parts, of the time that was asked for, and what is refused."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from fakes.registrations import FakeEntryStore, entry
from fakes.task_types import TICKETS, TRIAGE, task_type
from fakes.usage_records import ended, event, use
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit
from sojourn.credentials.index import Index
from sojourn.endpoints.admin import usage as usage_module
from sojourn.endpoints.admin.usage import UsageApi
from sojourn.errors import InvalidInput, InvalidSpiffeId, LimitExceeded, NoTaskTypes, StoreFull, UnknownTaskType
from sojourn.identity.registry import Registry
from sojourn.operating_limits import USAGE_DAYS
from sojourn.oversight.sums import DAY_MS
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.store.audit import AuditTable
from sojourn.store.audit_pages import AuditPages
from sojourn.store.usage import UsageTable
from sojourn.store.usage_upkeep import UsageUpkeep

CALL: Any = SimpleNamespace(peer=SimpleNamespace(who=0))
NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/a")


class Engine:
    """As far as it is asked for types."""

    def __init__(self, *types):
        self.types = {each.name: each for each in types}
        self.none = False

    def check_types(self):
        if self.none:
            raise NoTaskTypes("none are in force")

    def type_named(self, name):
        if name not in self.types:
            raise UnknownTaskType("there is none")
        return self.types[name]


class Place:
    def __init__(self, database):
        self.clock = FakeClock()
        self.journal = AuditTable(database)
        self.usage = UsageTable(database, self.journal)
        self.engine: Any = Engine(task_type(), task_type("export"))
        self.audit = Audit(self.journal, self.clock)
        self.credentials: Any = Index()
        upkeep = UsageUpkeep(database, self.usage, lambda: self.engine.types, timedelta(days=400), self.clock)
        served = entry("/agent/triage", parent_id=NODE, created_at=1)
        domain = TrustDomain("example.org")
        registry = Registry(FakeEntryStore([served]), domain, [NODE], self.clock, Alarms(self.clock))
        pages = AuditPages(database)
        self.api = UsageApi(
            self.engine, self.usage, upkeep, self.journal, pages, registry, self.credentials, self.audit, self.clock
        )

    @property
    def now(self):
        return int(self.clock.now().timestamp() * 1_000)

    async def get(self, **asked):
        return [each async for each in self.api.get(CALL, pb.GetUsageRequest(**asked))]

    async def types(self, **asked):
        return {each.type: each for part in await self.get(**asked) for each in part.types}

    async def standing(self, **asked):
        return [each async for each in self.api.list_standing(CALL, pb.ListStandingRequest(**asked))]

    async def end(self, *rows, days=0, **fields):
        named = self.engine.types["triage"].named
        said = {**named, "spiffe_id": TRIAGE, **fields}
        await self.journal.append([ended(*rows, at_ms=self.now - days * DAY_MS, **said)])


@pytest.fixture
async def place(tmp_path):
    with opened(tmp_path / "sojourn.db") as database:
        made = Place(database)
        await made.usage.begin(made.now - 80 * DAY_MS)
        await made.api._upkeep.note_types()
        yield made


class TestTime:
    async def test_ninety_days(self, place):
        """A report is of ninety days, from the first one's beginning, and says since when all was counted."""
        (first, *_) = await place.get()
        assert (place.now - USAGE_DAYS * DAY_MS) // DAY_MS * DAY_MS == first.time.since_ms
        assert (place.now, place.now - 80 * DAY_MS) == (first.time.until_ms, first.time.counted_since_ms)
        assert not first.time.from_journal
        assert not first.time.behind

    @pytest.mark.parametrize("from_journal", [False, True])
    async def test_days_that_are_asked_for(self, place, from_journal):
        """What was on the first and on the last day counts, what was before and behind them does not."""
        place.clock.advance(10 * 86_400)
        for days in range(6):
            await place.end(use(tokens=1), days=days)
        asked = {"since_ms": place.now - 3 * DAY_MS, "until_ms": place.now - DAY_MS, "from_journal": from_journal}
        assert 3 == (await place.types(**asked))["triage"].tasks

    @pytest.mark.parametrize(
        "asked", [{"since_ms": -1}, {"until_ms": 2**60}, {"since_ms": 2**53}, {"since_ms": 10**12, "until_ms": 10**11}]
    )
    async def test_a_time_that_is_none(self, place, asked):
        """A time that is out of range, or ends before it begins, is refused."""
        with pytest.raises(InvalidInput):
            await place.get(**asked)

    async def test_a_journal_that_was_pruned(self, place):
        """Counted again from the journal, a report says from when on that has records."""
        await place.end(use())
        (first, *_) = await place.get(from_journal=True)
        assert place.now == first.time.journal_since_ms


class TestTypes:
    async def test_all_and_one(self, place):
        """All types are reported by their names, or the one that is named."""
        await place.end(use(tokens=1, calls=2))
        assert ["export", "triage"] == list(await place.types())
        (found,) = (await place.types(type="triage")).values()
        (row,) = found.actions
        assert (TICKETS, 1, 1, 1, 2, "") == (row.resource, row.granted, row.taken, row.called, row.calls, row.blind)
        assert not row.HasField("limit")

    async def test_of_a_workload(self, place):
        """Only what one workload had is reported; what is no SPIFFE ID is refused."""
        await place.end(use())
        assert 1 == (await place.types(workload=TRIAGE))["triage"].tasks
        assert 0 == (await place.types(workload="spiffe://example.org/other"))["triage"].tasks
        with pytest.raises(InvalidSpiffeId):
            await place.get(workload="triage")

    async def test_types_that_there_are_not(self, place):
        """A type that there is not, or no set of types at all, is said."""
        with pytest.raises(UnknownTaskType):
            await place.get(type="other")
        place.engine.none = True
        with pytest.raises(NoTaskTypes):
            await place.get()

    async def test_very_many_actions(self, place, monkeypatch):
        """A type with very many actions comes in parts, none of which is too long for a message."""
        monkeypatch.setattr(usage_module, "USAGE_ROWS_A_MESSAGE", 4)
        await place.end(*(use(f"a:{each:02}") for each in range(10)))
        parts = [each for part in await place.get(type="triage") for each in part.types]
        assert [4, 4, 2] == [len(each.actions) for each in parts]
        assert [f"a:{each:02}" for each in range(10)] == [row.action for each in parts for row in each.actions]

    async def test_late_over_midnight(self, place):
        """A number of tokens is never less than nothing, wherever a day is cut."""
        rows = [use(tokens=2, calls=1)]
        named = self.named(place)
        await place.journal.append([ended(*rows, at_ms=place.now, **named)])
        late = {"late": [[TICKETS, "ticket:read", 1]], "use": rows, "calls": 1, "spent": [2, 1]}
        await place.journal.append([event("task_used", place.now, **late, **named)])
        (row,) = (await place.types(type="triage"))["triage"].actions
        assert 0 == row.unused_tokens

    def named(self, place):
        return {**place.engine.types["triage"].named, "spiffe_id": TRIAGE}


class TestTroubles:
    async def test_a_disk_that_takes_nothing(self, place, monkeypatch):
        """While the disk takes no writes, what is on it is reported, and that something is not."""
        await place.end(use())
        assert 1 == (await place.types())["triage"].tasks

        async def full(*_):
            raise StoreFull("test")

        monkeypatch.setattr(place.usage, "flush", full)
        (first, *rest) = await place.get()
        assert first.time.behind
        assert [0, 1] == [each.tasks for part in rest for each in part.types]

    async def test_too_many_reports(self, place, monkeypatch):
        """One user has few reports under way: each reads what it says anew."""
        under_way = [place.api.get(CALL, pb.GetUsageRequest()) for _ in range(3)]
        for each in under_way[:2]:
            await anext(each)
        with pytest.raises(LimitExceeded):
            await anext(under_way[2])
        for each in under_way:
            await each.aclose()
        assert await place.get()

    async def test_others(self, place):
        """Tasks and grants of names that their day had no room for are told as a number."""
        await place.end(use(), type="", type_version="", spiffe_id="")
        (first, *rest) = await place.get()
        assert 2 == first.time.others
        assert [0, 0] == [each.tasks for part in rest for each in part.types]


class TestStanding:
    async def test_what_stands(self, place):
        """Entries without an SVID and types without a task stand there, the longest first."""
        first, *rest = await place.standing()
        found = [each for part in rest for each in part.standing]
        assert (place.now - 80 * DAY_MS) == first.counted_since_ms
        assert ["entry", "type", "type"] == [each.kind for each in found]
        assert sorted(each.since_ms for each in found) == [each.since_ms for each in found]
        await place.end(use())
        _, *rest = await place.standing()
        assert ["export"] == [each.name for part in rest for each in part.standing if each.kind == "type"]

    async def test_outside_credentials(self, place):
        """A credential of a provider that outlives its task stands there until it expires; one of a live task does not."""
        over = place.clock.now()
        grant = SimpleNamespace(resource="https://cloud.example")
        for number, over_at in enumerate((None, over)):
            each = SimpleNamespace(
                id=f"c{number}", over_at=over_at, provider="cloud", grant=grant, spiffe_id=TRIAGE,
                expires_at=over + timedelta(hours=1),
            )  # fmt: skip
            place.credentials._all[each.id] = each
        _, *rest = await place.standing()
        (found,) = [each for part in rest for each in part.standing if each.kind == "credential"]
        assert ("c1", place.now, place.now + 3_600_000) == (found.name, found.since_ms, found.until_ms)
        assert "cloud: https://cloud.example of " in found.about
