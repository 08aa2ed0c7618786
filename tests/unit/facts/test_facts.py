"""facts.py: what is known, from whom, for how long, and what of it a task type reads."""

import asyncio
import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from fakes.facts import FakeFactStore
from fakes.journals import FakeAuditStore
from sojourn.audit.journal import Audit
from sojourn.errors import InvalidInput, LimitExceeded, StoreFailed
from sojourn.facts import facts as facts_module
from sojourn.facts import readings
from sojourn.facts.facts import Facts
from sojourn.facts.publications import Publication
from sojourn.policy.task_type_tables import OPERATOR, FactRule
from sojourn.runtime.clock import Alarms
from sojourn.store.audit import AuditTable
from sojourn.store.facts import FactTable

MONITOR, ISSUER = "spiffe://example.org/monitor", "https://risk.example.org"
WORKLOAD = "spiffe://example.org/agent/triage"
TASK = "tsk_" + "A" * 22


class Ground:
    def __init__(self, clock=None, store=None):
        self.clock = clock or FakeClock()
        self.alarms = Alarms(self.clock)
        self.journal = FakeAuditStore()
        self.store = store or FakeFactStore(self.journal)
        self.facts = Facts(self.store, Audit(self.journal, self.clock), self.clock, self.alarms)

    async def say(self, name="n", value=1, *, subject="", source=OPERATOR, valid=None, ago=0.0):
        happened = self.clock.now() - timedelta(seconds=ago)
        return await self.facts.publish(Publication(name, subject, value, source, valid, happened), {"by_uid": 7})

    def read(self, *, name="n", subjects=(TASK, WORKLOAD, ""), **rule):
        context = self.facts.context({}, {name: FactRule(**{"type": "long", **rule})}, subjects)
        return context.facts[name].value if name in context.facts else context.absent[name]

    async def settle(self):
        self.alarms.ring_due()
        await self.facts.quiet()

    async def again(self, *, same_boot=True, boot=None, step=0.0):
        """The same store, after a restart of the agent."""
        self.store.same_boot = same_boot
        now = self.clock.now() + timedelta(seconds=step)
        other = Ground(FakeClock(now, self.clock.boot() if boot is None else boot), self.store)
        other.journal = self.journal
        other.facts = Facts(self.store, Audit(self.journal, other.clock), other.clock, other.alarms)
        await other.facts.start()
        return other


@pytest.fixture
def ground():
    return Ground()


class TestLookup:
    async def test_subjects(self, ground):
        """What is said of the task counts before what is said of its workload, and that before what is so everywhere."""
        for value, subject in ((1, ""), (2, WORKLOAD), (3, TASK)):
            await ground.say(value=value, subject=subject)
            assert value == ground.read()
        assert (2, 1) == (ground.read(subjects=(WORKLOAD, "")), ground.read(subjects=("spiffe://example.org/x", "")))

    async def test_sources(self, ground):
        """Of one subject the source that the type names first counts; one that it does not name never does."""
        await ground.say(value=1, source=ISSUER)
        await ground.say(value=2, source=MONITOR)
        assert 2 == ground.read(sources=(MONITOR, ISSUER))
        assert 1 == ground.read(sources=(ISSUER, MONITOR))
        assert "missing" == ground.read(sources=(OPERATOR,))

    async def test_sources_before_subjects(self, ground):
        """What a source that ranks before said generally is not overruled by what a later one says of a single one."""
        await ground.say(value=0, subject=WORKLOAD, source=MONITOR)
        await ground.say(value=0, subject=TASK, source=MONITOR)
        await ground.say(value=9)
        assert 9 == ground.read(sources=(OPERATOR, MONITOR))
        assert 0 == ground.read(sources=(MONITOR, OPERATOR))
        await ground.say(value=5, subject=WORKLOAD)
        assert 5 == ground.read(sources=(OPERATOR, MONITOR))

    async def test_what_counts_before(self, ground):
        """What is said is told from what counts before it and differs: by its source, or of fewer by the same one."""
        await ground.say(value=9)
        await ground.say(value=0, subject=WORKLOAD)
        await ground.say(value=9, subject=TASK)
        await ground.say(value=1, subject="spiffe://example.org/x", source=MONITOR)
        await ground.say(value="x", source=MONITOR)
        said, others = ground.facts.find(("n", "", OPERATOR)), ground.facts.all()
        for sources, expected in (
            ((OPERATOR,), {0}),
            ((OPERATOR, MONITOR), {0}),
            ((MONITOR, OPERATOR), {0, 1}),
            ((MONITOR,), set()),
        ):
            rule = FactRule(type="long", sources=sources)
            found = readings.before(said, rule, others, ground.clock.boot())
            assert expected == {fact.value for fact in found}
        ground.clock.advance(60)
        stale = FactRule(type="long", sources=(MONITOR, OPERATOR), max_age="1m")
        assert [] == readings.before(said, stale, others, ground.clock.boot())

    @pytest.mark.full
    @pytest.mark.parametrize(
        "wrong",
        [{"subject": "corp|alice@example.org"}, {"name": "corp/alice@example.org"}, {"source": "alice@example.org"}],
    )
    async def test_nobody_is_quoted(self, ground, wrong):
        """What is refused for a wrong name, subject or source is not quoted: a person's name may stand there, and the
        error goes to the log.
        """
        with pytest.raises(InvalidInput) as caught:
            await ground.say(**wrong)
        assert "alice" not in caught.value.public + caught.value.detail

    async def test_the_next_best(self, ground):
        """A fact that is stale, or of another type, gives way to the next source and the next subject."""
        await ground.say(value=1)
        await ground.say(value=2, source=MONITOR, ago=400)
        await ground.say(value="x", subject=TASK, source=MONITOR)
        assert 1 == ground.read(sources=(MONITOR, OPERATOR), max_age="5m")

    @pytest.mark.parametrize(
        ("value", "kind"),
        [(True, "long"), (1, "boolean"), ("true", "boolean"), ("1", "long"), (1, "string"), (False, "long")],
    )
    async def test_types(self, ground, value, kind):
        """A value of another type is none: a boolean is no number, and a text that looks like one is neither."""
        await ground.say(value=value)
        assert "of another type" == ground.read(type=kind)

    async def test_stale(self, ground):
        """A fact is good until it is as old as the type takes, by the boot clock; then the reason tells both."""
        await ground.say()
        ground.clock.advance(299.9)
        assert 1 == ground.read(max_age="5m")
        ground.clock.advance(100.1)
        assert "stale: 400 s old, at most 300 s" == ground.read(max_age="5m")
        assert 1 == ground.read()

    async def test_over(self, ground):
        """At its end a fact is none, even before the alarm has rung."""
        await ground.say(valid=10)
        ground.clock.advance(10)
        assert ("expired", []) == (ground.read(), ground.facts.all())
        await ground.settle()
        assert ("missing", {}) == (ground.read(), ground.store.rows)

    async def test_age_counts_from_when_it_happened(self, ground):
        """What took long to arrive is as old as that, and what was over on the way is not taken."""
        assert await ground.say(source=ISSUER, ago=250, valid=300)
        assert 1 == ground.read(sources=(ISSUER,), max_age="5m")
        ground.clock.advance(50)
        assert ground.read(sources=(ISSUER,)) == "expired"
        assert not await ground.say("late", source=ISSUER, ago=301, valid=300)


class TestOrder:
    async def test_what_is_older(self, ground):
        """What a source said before is not taken after what it said later; what others said is of no account."""
        assert await ground.say(value=1, source=ISSUER, ago=10)
        assert not await ground.say(value=2, source=ISSUER, ago=11)
        assert await ground.say(value=3, source=MONITOR, ago=11)
        assert await ground.say(value=4, source=ISSUER, ago=10)
        assert 4 == ground.read(sources=(ISSUER,))

    @pytest.mark.parametrize("over", ["unset", "expired"])
    async def test_nothing_comes_back(self, ground, over):
        """What a source has taken back, or what is over, does not come back by being sent again."""
        await ground.say(source=ISSUER, ago=10, valid=60 if over == "expired" else None)
        if over == "unset":
            await ground.facts.unset("n", "", ISSUER, {})
        else:
            ground.clock.advance(50)
            await ground.settle()
        assert not await ground.say(source=ISSUER, ago=70)
        assert "missing" == ground.read(sources=(ISSUER,))

    async def test_the_future(self, ground):
        """Who claims that something happens in the future does not have the last word until then."""
        await ground.say(value=1, source=ISSUER, ago=-86_400)
        ground.clock.advance(1)
        assert await ground.say(value=2, source=ISSUER)
        assert 2 == ground.read(sources=(ISSUER,))

    async def test_a_clock_that_is_ahead(self, ground):
        """What a clock that is some seconds ahead says in one order, and arrives in another, ends as it was said."""
        assert await ground.say(value=2, source=ISSUER, ago=-20)
        assert not await ground.say(value=1, source=ISSUER, ago=-10)
        assert 2 == ground.read(sources=(ISSUER,))

    @pytest.mark.parametrize("ahead", [5, 50])
    async def test_a_later_one_after_one_that_was_ahead(self, ground, ahead):
        """What was dated ahead keeps nothing out that comes after it and is of now, also once it is over and taken back."""
        assert await ground.say(value=1, source=ISSUER, ago=-ahead)
        assert await ground.say(value=2, source=ISSUER)
        assert 2 == ground.read(sources=(ISSUER,))
        assert await ground.say(value=1, source=ISSUER, ago=-ahead)
        await ground.facts.unset("n", "", ISSUER, {})
        assert await ground.say(value=2, source=ISSUER)
        assert await ground.say(value=1, source=ISSUER, ago=-ahead)
        later = await ground.again()
        assert await later.say(value=2, source=ISSUER)
        assert not await later.say(value=1, source=ISSUER, ago=1)
        assert 2 == later.read(sources=(ISSUER,))

    async def test_a_clock_that_is_ahead_over_a_restart(self, ground):
        """The order of what a clock ahead has said is known after a restart too."""
        assert await ground.say(value=2, source=ISSUER, ago=-20)
        later = await ground.again()
        assert not await later.say(value=1, source=ISSUER, ago=-10)

    async def test_at_once(self, ground):
        """Of what is said at the same time the last word counts, in memory and on disk."""
        saying = [ground.say(value=value) for value in range(20)]
        await asyncio.gather(*saying)
        assert 19 == ground.read()
        assert 19 == json.loads(ground.store.rows["n", "", OPERATOR])["value"]
        assert ground.facts.is_written(("n", "", OPERATOR))

    async def test_said_and_taken_back_at_once(self, ground):
        """What is taken back while it is being written is not there afterwards."""
        saying = asyncio.ensure_future(ground.say())
        await asyncio.sleep(0)
        assert await ground.facts.unset("n", "", OPERATOR, {})
        await saying
        assert ("missing", {}, []) == (ground.read(), ground.store.rows, ground.facts.all())


class TestInput:
    @pytest.mark.parametrize(
        "changes",
        [
            {"name": "with space"},
            {"name": ""},
            {"name": "a" * 65},
            {"name": 'x", "y'},
            {"name": "1st"},
            {"subject": "everywhere"},
            {"subject": "tsk_short"},
            {"subject": "spiffe://Example.org/x"},
            {"source": "operators"},
            {"source": "http://risk.example.org"},
            {"source": "https://"},
            {"source": "https://[bad"},
            {"value": 10**18},
            {"value": -(10**18)},
            {"value": "x" * 4097},
            {"value": "\ud800"},
            {"value": 1.5},
            {"value": None},
            {"valid": 0},
            {"valid": -1},
            {"valid": math.nan},
            {"valid": math.inf},
            {"valid": 31 * 86_400},
        ],
        ids=str,
    )
    async def test_refused(self, ground, changes):
        """What is no fact is refused with a sentence, and nothing is kept of it."""
        with pytest.raises(InvalidInput):
            await ground.say(**changes)
        assert ([], {}, []) == (ground.facts.all(), ground.store.rows, ground.journal.names)

    async def test_limits(self, ground, monkeypatch):
        """No source has more than its share, the operator has room whatever others do, and what ends makes room."""
        monkeypatch.setattr(facts_module, "FACTS_PER_WORKLOAD", 3)
        monkeypatch.setattr(facts_module, "FACTS_OF_OTHERS", 5)
        monkeypatch.setattr(facts_module, "FACTS", 6)
        for number in range(3):
            await ground.say(f"m{number}", source=MONITOR, valid=10 if number else None)
        with pytest.raises(LimitExceeded, match="may have 3 facts"):
            await ground.say("m3", source=MONITOR)
        assert await ground.say("m0", 2, source=MONITOR)
        for number in range(2):
            await ground.say(f"i{number}", source=ISSUER)
        with pytest.raises(LimitExceeded, match="too many"):
            await ground.say("i2", source=ISSUER)
        await ground.say("mine")
        with pytest.raises(LimitExceeded):
            await ground.say("mine_too")
        ground.clock.advance(10)
        await ground.settle()
        assert await ground.say("m3", source=MONITOR)
        assert await ground.say("mine_too")


class TestJournal:
    async def test_records(self, ground):
        """Each change has its record: what, of whom, by whom."""
        await ground.say(value=True, subject=WORKLOAD, valid=60)
        await ground.facts.unset("n", WORKLOAD, OPERATOR, {"by_uid": 8})
        named = {"fact": "n", "subject": WORKLOAD, "source": OPERATOR}
        [published], [unset] = ground.journal.fields("fact_published"), ground.journal.fields("fact_unset")
        assert {**named, "by_uid": 8} == unset
        assert {"value": True, "valid_seconds": 60, "by_uid": 7} == {
            name: published[name] for name in ("value", "valid_seconds", "by_uid")
        }

    async def test_what_cannot_be_written(self, ground):
        """Two worlds count until a change is on disk; a failed one is told, stays so, and the next one replaces it."""
        await ground.say(value=1)
        ground.store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed, match="no: what it forbids is in force until the agent stops"):
            await ground.say(value=2)
        rules = {"n": FactRule(type="long")}
        context = ground.facts.context({}, rules, ("",))
        assert (1, [2]) == (context.facts["n"].value, [each.facts["n"].value for each in context.also])
        assert not ground.facts.is_written(("n", "", OPERATOR))
        with pytest.raises(StoreFailed):
            await ground.facts.unset("n", "", OPERATOR, {})
        context = ground.facts.context({}, rules, ("",))
        assert (1, [{}]) == (context.facts["n"].value, [each.facts for each in context.also])
        ground.store.failure = None
        await ground.say(value=3)
        context = ground.facts.context({}, rules, ("",))
        assert (3, ()) == (context.facts["n"].value, context.also)

    async def test_several_unwritten(self, ground):
        """Of several changes that are not on disk each counts for itself, and all together."""
        ground.store.failure = StoreFailed("no")
        for name in ("a", "b"):
            with pytest.raises(StoreFailed):
                await ground.say(name)
        context = ground.facts.context({}, {name: FactRule(type="long") for name in ("a", "b", "c")}, ("",))
        assert ({}, [{"a"}, {"b"}, {"a", "b"}]) == (context.facts, [set(each.facts) for each in context.also])


class TestRestart:
    async def test_on_the_same_boot(self, ground):
        """Facts outlive the agent: age and validity go on by the boot clock, whatever the wall clock says meanwhile."""
        await ground.say(valid=100)
        await ground.say("f", True, subject=WORKLOAD, source=MONITOR)
        ground.clock.advance(40)
        for step in (0.0, -(10**8), 10**8):
            later = await ground.again(step=step)
            assert (1, True) == (later.read(), later.read(name="f", type="boolean", sources=(MONITOR,)))
            assert "stale: 40 s old, at most 30 s" == later.read(max_age="30s")
            later.clock.advance(59)
            assert 1 == later.read()
            later.clock.advance(1)
            assert "expired" == later.read()

    async def test_on_another_boot(self, ground):
        """After a start of the machine the wall clock counts."""
        await ground.say(valid=100)
        later = await ground.again(same_boot=False, boot=5.0, step=40)
        assert "stale: 40 s old, at most 30 s" == later.read(max_age="30s")
        later.clock.advance(59)
        assert 1 == later.read()
        later.clock.advance(1)
        assert "expired" == later.read()

    async def test_on_another_boot_with_a_clock_that_went_back(self, ground):
        """A wall clock from before the fact revives nothing: what had a validity is over, and the rest is too old."""
        await ground.say(valid=100)
        await ground.say("f")
        later = await ground.again(same_boot=False, boot=5.0, step=-1)
        assert ("missing", 1) == (later.read(), later.read(name="f"))
        assert later.read(name="f", max_age="30d").startswith("stale")

    async def test_over_meanwhile(self, ground):
        """What was over while the agent was not there is dropped at the start, with its record."""
        await ground.say(valid=100)
        ground.clock.advance(100)
        later = await ground.again()
        assert ([], {}) == (later.facts.all(), ground.store.rows)
        assert ["expired"] == [each["reason"] for each in ground.journal.fields("fact_expired")]

    @pytest.mark.parametrize(
        "document",
        [
            {},
            {"value": 1},
            {"value": None, "happened_at": 1, "since": 1, "until": None},
            {"value": 10**30, "happened_at": 1, "since": 1, "until": None},
            {"value": 1, "happened_at": 1, "since": 10**9, "until": None},
            {"value": 1, "happened_at": 10**30, "since": 1, "until": None},
            {"value": 1, "happened_at": 1, "since": "1", "until": None},
            {"value": 1, "happened_at": 1, "since": 1, "until": True},
        ],
        ids=str,
    )
    async def test_damaged(self, ground, document):
        """A row that is none stops nothing: it is dropped, with a record, and the others are kept."""
        await ground.say("good")
        ground.store.rows["n", "", OPERATOR] = json.dumps(document)
        later = await ground.again()
        assert ["good"] == [fact.name for fact in later.facts.all()]
        assert "damaged" == ground.journal.fields("fact_expired")[0]["reason"]

    async def test_in_a_real_database(self, tmp_path):
        """What was answered is there after a restart, of two subjects and sources each their own."""
        with opened(tmp_path / "db") as database:
            ground = Ground(FakeClock(datetime.now(UTC)), FactTable(database, AuditTable(database)))
            await ground.say(value=1)
            await ground.say(value=2)
            await ground.say(value="ünï", subject=WORKLOAD, source=MONITOR, valid=1e5)
            await ground.say("gone")
            await ground.facts.unset("gone", "", OPERATOR, {})
            before = ground.facts.all()
        with opened(tmp_path / "db") as database:
            journal = AuditTable(database)
            later = Ground(ground.clock, FactTable(database, journal))
            await later.facts.start()
            assert before == later.facts.all()
            assert ["fact_published"] * 4 + ["fact_unset"] == [each.event for each in await journal.tail(10)]
            assert (5, 0, "") == await journal.verify()
