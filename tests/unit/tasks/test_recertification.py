"""tasks/recertification.py: when types are to be reviewed, who may decide, and what a decision is made on."""

import asyncio
from pathlib import Path

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from fakes.task_types import task_type
from sojourn.audit.journal import Audit
from sojourn.errors import (
    InvalidInput,
    NotFound,
    OwnReview,
    ReasonNeeded,
    ReviewNotShown,
    ReviewOverdue,
    ReviewStale,
    StoreFailed,
)
from sojourn.jose.canonical_json import canonical
from sojourn.operating_limits import (
    REVIEW_CHANGERS,
    REVIEW_REASON_MAX,
    REVIEW_SETTLED_SECONDS,
    REVIEW_SHOWN_EACH,
    REVIEW_SHOWN_SECONDS,
    REVIEW_SOON_SECONDS,
    REVIEW_WRITTEN,
)
from sojourn.oversight.review_items import Inventory
from sojourn.oversight.review_rules import Wanted
from sojourn.policy.approval_request import Person
from sojourn.store.audit import AuditTable
from sojourn.store.reviews import ReviewTable
from sojourn.tasks.recertification import Recertification
from structlog.testing import capture_logs

DAY = 86_400
SOMEBODY = Person(0, 4711, 1)
BLOCKED = {"review_every": '"90d"', "when_overdue": '"block_new"'}


class Room:
    """Types in force, and their reviews over a real store."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self.clock = clock
        self.types = {}
        self.path = path

    def begin(self, database):
        self.journal = AuditTable(database)
        self.store = ReviewTable(database, self.journal)
        self.audit = Audit(self.journal, self.clock)
        self.made = Recertification(self.store, lambda: self.types, self.audit, self.clock)

    async def bring(self, name="triage", by=None, **keys):
        self.types = {**self.types, name: task_type(name, **keys)}
        await self.made.types_changed(self.types, by or {})
        return self.types[name]

    @property
    def items(self):
        return {item.id: item for item in Inventory(self.types, [], []).items()}

    async def shown(self, item="type:triage", *, used=True):
        evidence = {"used": used, "reviewed": self.items[item].subject, "at": self.clock.now().timestamp()}
        (made,) = await self.made.show([(item, canonical(evidence))])
        return made.digest

    async def decide(self, *wanted, person=SOMEBODY, **options):
        return await self.made.decide(wanted, person, self.items, **options)

    async def decided(self, decision="keep", reason="", **options):
        """What is wrong with one decision by evidence that was just shown."""
        digest = await self.shown(**{name: options.pop(name) for name in ("used",) if name in options})
        (fault,) = await self.decide(Wanted("type:triage", decision, digest, reason), **options)
        return fault

    def overdue(self, kind):
        try:
            self.made.check(kind)
        except ReviewOverdue:
            return True
        return False


def held(store, monkeypatch):
    """Have the next write wait: what tells that it has begun, and what it waits for."""
    save, begun, go_on = store.save, asyncio.Event(), asyncio.Event()

    async def slow(states, events=()):
        monkeypatch.setattr(store, "save", save)
        begun.set()
        await go_on.wait()
        await save(states, events)

    monkeypatch.setattr(store, "save", slow)
    return begun, go_on


@pytest.fixture
def room(tmp_path, clock):
    made = Room(tmp_path / "reviews.db", clock)
    with opened(made.path) as database:
        made.begin(database)
        yield made


class TestDates:
    async def test_since_it_is_known(self, room):
        """A type that nobody has decided on is due so long after this agent first knew a type of its name, and no
        change of its files moves that.
        """
        await room.bring()
        room.clock.advance(60 * DAY)
        kind = await room.bring(**BLOCKED)
        room.clock.advance(30 * DAY - 1)
        assert not room.overdue(kind)
        room.clock.advance(1)
        assert room.overdue(kind)
        assert not room.overdue(await room.bring(review_every='"90d"'))  # it is only told

    @pytest.mark.parametrize(("decision", "moves"), [("keep", True), ("narrow", True), ("retire", False)])
    async def test_a_decision_moves_it(self, room, decision, moves):
        """What is kept or narrowed is due so long after that; what is to be retired stays overdue until it is gone."""
        kind = await room.bring(**BLOCKED)
        room.clock.advance(91 * DAY)
        assert await room.decided(decision, "seen") is None
        assert moves != room.overdue(kind)
        room.clock.advance(90 * DAY)
        assert room.overdue(kind)

    async def test_soon(self, room):
        """A review counts as due for two weeks, and then as overdue."""
        await room.bring(review_every='"90d"')
        room.clock.advance(90 * DAY - REVIEW_SOON_SECONDS - 1)
        assert (0, []) == (room.made.due(), room.made.overdue())
        room.clock.advance(1)
        assert (1, []) == (room.made.due(), room.made.overdue())
        room.clock.advance(REVIEW_SOON_SECONDS)
        assert (0, 1) == (room.made.due(), len(room.made.overdue()))

    async def test_what_a_set_would_block(self, room):
        """A set that would have types blocked by reviews that are overdue already is told before it is in force; those
        that are blocked without it are not told once more.
        """
        await room.bring()
        await room.bring("blocked", **BLOCKED)
        await room.bring("told", review_every='"90d"')
        room.clock.advance(90 * DAY)
        changed = {"triage": task_type("triage", **BLOCKED), "new": task_type("new", **BLOCKED)}
        assert ["triage"] == room.made.newly_blocked({**room.types, **changed}, room.types)

    async def test_it_is_told_once(self, room, tmp_path, clock):
        """What becomes overdue is logged and recorded once for each date, and not again by a next run."""
        await room.bring(owner='"support"', review_every='"90d"')
        room.clock.advance(90 * DAY)
        with capture_logs() as logs:
            await room.made.look()
            await room.made.look()
            again = Recertification(room.store, lambda: room.types, room.audit, clock)
            await again.look()
        told = [each for each in logs if each["event"] == "review_overdue"]
        due = int(room.clock.now().timestamp())
        assert [("type:triage", "support", due)] == [(each["item"], each["owner"], each["due"]) for each in told]
        await room.decided("keep")
        room.clock.advance(90 * DAY)
        with capture_logs() as logs:
            await room.made.look()
        assert 1 == sum(each["event"] == "review_overdue" for each in logs)

    async def test_a_type_that_comes_back(self, room, clock):
        """A type that was taken away for years comes back with its date, and a next run knows it."""
        await room.bring(**BLOCKED)
        kind, room.types = room.types["triage"], {}
        await room.made.types_changed({}, {})
        clock.advance(100 * DAY)
        room.made = Recertification(room.store, lambda: room.types, room.audit, clock)
        room.types = {"triage": kind}
        await room.made.types_changed(room.types, {})
        assert room.overdue(kind)

    async def test_what_is_long_gone_is_forgotten(self, room):
        """Of what is gone for years the dates go; those of types in force stay, however old."""
        await room.bring("old")
        await room.bring("triage")
        del room.types["old"]
        room.clock.advance(801 * DAY)
        await room.made.look()
        assert ["type:triage"] == list(room.store.load())

    @pytest.mark.parametrize("decided", [True, False])
    async def test_a_clock_that_was_ahead(self, room, decided):
        """What was noted while the clock was ahead for years is of the moment in which that is seen for sure; so it is
        due as all else, and a next run knows that. It is said once.
        """
        await room.bring()
        if not decided:
            room.types = {}
        room.clock.step_wall(3_650 * DAY)
        if decided:
            await room.decided()
        kind = await room.bring("triage" if decided else "other", **BLOCKED)
        room.clock.step_wall(-3_650 * DAY)
        await room.made.look()
        with capture_logs() as logs:
            for _ in range(2):
                room.clock.advance(REVIEW_SETTLED_SECONDS)
                await room.made.look()
        assert ["review_dates_ahead"] == [each["event"] for each in logs]
        room.clock.advance(90 * DAY - REVIEW_SETTLED_SECONDS - 1)
        assert not room.overdue(kind)
        room.clock.advance(1)
        again = Recertification(room.store, lambda: room.types, room.audit, room.clock)
        assert room.overdue(kind)
        assert again.is_overdue(kind)

    async def test_a_clock_that_is_set_back(self, room):
        """What was told as overdue stays so, though the clock is set back: it is no way round a review."""
        kind = await room.bring(**BLOCKED)
        room.clock.advance(90 * DAY)
        await room.made.look()
        room.clock.step_wall(-2 * DAY)
        assert room.overdue(kind)
        assert (0, ["triage"]) == (room.made.due(), [each.name for _, each in room.made.overdue()])
        assert await room.decided() is None
        assert not room.overdue(kind)

    async def test_a_clock_that_goes_wrong_for_a_while(self, room):
        """While the clock has just been set nothing is told as overdue and no date goes: it may be set right again."""
        await room.bring("gone")
        kind = await room.bring(**BLOCKED)
        del room.types["gone"]
        room.clock.advance(REVIEW_SETTLED_SECONDS)
        await room.made.look()
        room.clock.step_wall(900 * DAY)
        await room.made.look()
        room.clock.step_wall(-900 * DAY)
        await room.made.look()
        assert not room.overdue(kind)
        assert {"type:gone", "type:triage"} == set(room.store.load())

    async def test_a_start_by_a_wrong_clock(self, room):
        """A machine that starts with a clock years ahead, and has it set a minute later, loses no date."""
        await room.bring("gone")
        room.types = {}
        room.clock.step_wall(900 * DAY)
        room.made = Recertification(room.store, lambda: room.types, room.audit, room.clock)
        await room.made.look()
        assert ["type:gone"] == list(room.store.load())

    async def test_a_disk_that_fails(self, room, monkeypatch):
        """What could not be written is in force all the same, and is written once the disk takes it again."""
        save = room.store.save

        async def fail(*_):
            raise StoreFailed("no")

        monkeypatch.setattr(room.store, "save", fail)
        with capture_logs() as logs:
            await room.bring(by={"by_uid": 0, "by_login_uid": 4711})
        assert ["reviews_not_kept"] == [each["event"] for each in logs]
        assert isinstance(await room.decided("narrow"), OwnReview)
        monkeypatch.setattr(room.store, "save", save)
        await room.made.look()
        assert 4711 == room.store.load()["type:triage"].changed_login_uid

    async def test_the_check_costs_next_to_nothing(self, room, monkeypatch):
        """Whether a type is overdue is asked at each beginning, and neither the store nor other types are looked at."""
        kind = await room.bring(**BLOCKED)
        monkeypatch.setattr(room.made, "_store", None)
        monkeypatch.setattr(room.made, "_types", None)
        room.made.check(kind)
        room.clock.advance(90 * DAY)
        with pytest.raises(ReviewOverdue):
            room.made.check(kind)


class TestDecide:
    async def test_what_it_is_made_on(self, room):
        """A decision is by evidence that was shown of this very item, and not long ago."""
        await room.bring()
        await room.bring("other")
        (fault,) = await room.decide(Wanted("type:triage", "keep", "0" * 64, ""))
        assert isinstance(fault, ReviewNotShown)
        (fault,) = await room.decide(Wanted("type:triage", "keep", await room.shown("type:other"), ""))
        assert isinstance(fault, ReviewNotShown)
        digest = await room.shown()
        assert [None] == await room.decide(Wanted("type:triage", "keep", digest, ""), dry_run=True)
        assert room.made.state("type:triage").last is None
        old = await room.shown("type:other")
        room.clock.advance(REVIEW_SHOWN_SECONDS + 1)
        await room.shown()
        (fault,) = await room.decide(Wanted("type:other", "keep", old, ""))
        assert isinstance(fault, ReviewNotShown)

    @pytest.mark.parametrize("days", [61, 300, -1])
    async def test_how_old_it_may_be(self, room, days):
        """Evidence that is older than 60 days, or of a future, is not decided by, though nothing else was shown since."""
        await room.bring()
        digest = await room.shown()
        room.clock.step_wall(days * DAY)
        (fault,) = await room.decide(Wanted("type:triage", "keep", digest, ""))
        assert isinstance(fault, ReviewNotShown)

    async def test_each_is_decided_by_once(self, room):
        """Evidence by which somebody has decided, or that was shown before that, decides nothing once more."""
        await room.bring()
        before, digest = await room.shown(used=False), await room.shown()
        room.clock.advance(1)
        assert [None] == await room.decide(Wanted("type:triage", "keep", digest, ""))
        for each in before, digest:
            (fault,) = await room.decide(Wanted("type:triage", "keep", each, "again"))
            assert isinstance(fault, ReviewStale)
        room.clock.advance(1)
        assert await room.decided() is None

    async def test_what_was_shown_by_a_clock_that_was_ahead(self, room):
        """Evidence that was shown while the clock was ahead does not drive out what is shown once it is right."""
        await room.bring()
        room.clock.step_wall(1_000 * DAY)
        for _ in range(REVIEW_SHOWN_EACH + 1):
            room.clock.advance(1)
            await room.shown()
        room.clock.step_wall(-1_000 * DAY)
        assert await room.decided() is None

    async def test_what_was_changed_since(self, room):
        """A type that was changed since its evidence was shown is not decided on by that."""
        await room.bring()
        digest = await room.shown()
        await room.bring(max_tokens="5")
        (fault,) = await room.decide(Wanted("type:triage", "keep", digest, ""))
        assert isinstance(fault, ReviewStale)

    @pytest.mark.parametrize(
        ("person", "may"),
        [
            (Person(0, 4711, 1), False),
            (Person(0, 4712, 1), True),
            (Person(0, None, 1), False),  # it may be the same
            (Person(4711, None, 1), False),
            (Person(4713, 4712, 1), True),
        ],
    )
    async def test_whoever_reloaded_it(self, room, person, may):
        """Whoever reloaded a type as it is does not decide: told apart by login, where that is known of both."""
        await room.bring(by={"by_uid": 0, "by_login_uid": 4711})
        assert may == (await room.decided("narrow", person=person) is None)

    @pytest.mark.parametrize("by", [None, {"by_uid": 0, "by_login_uid": 4712}])
    async def test_each_change_counts(self, room, by):
        """Whoever changed a type since it was last kept does not decide, though another, or nobody who is known, has
        changed it once more; and whoever changed another type may.
        """
        await room.bring(by={"by_uid": 0, "by_login_uid": 4711})
        await room.bring("other", by={"by_uid": 0, "by_login_uid": 4713})
        await room.bring(owner='"support"', by=by)
        assert isinstance(await room.decided("keep"), OwnReview)
        other = Person(0, 4713, 1)
        assert await room.decided("narrow", person=other) is None
        room.clock.advance(1)
        assert isinstance(await room.decided("keep"), OwnReview)
        assert await room.decided("keep", person=other) is None
        room.clock.advance(1)
        assert await room.decided("keep") is None

    async def test_very_many_who_changed_it(self, room):
        """So many who changed a type are known, the last ones, and a next run knows them."""
        for uid in range(1, REVIEW_CHANGERS + 2):
            await room.bring(max_tokens=str(uid), by={"by_uid": 0, "by_login_uid": uid})
            await room.bring(max_tokens=str(uid), owner='"x"', by={"by_uid": 0, "by_login_uid": uid})
        room.made = Recertification(room.store, lambda: room.types, room.audit, room.clock)
        for uid in range(1, REVIEW_CHANGERS + 2):
            fault = await room.decided("keep", person=Person(0, uid, 1), dry_run=True)
            assert (uid > 1) == isinstance(fault, OwnReview)

    async def test_a_change_while_it_is_decided(self, room, monkeypatch):
        """A type that is reloaded while a decision is written is not decided on by whoever reloaded it, nor by a next
        run of the agent; and the decision that was made is known.
        """
        await room.bring()
        begun, go_on = held(room.store, monkeypatch)
        deciding = asyncio.ensure_future(room.decided())
        await begun.wait()
        changing = asyncio.ensure_future(room.bring(max_tokens="5", by={"by_uid": 0, "by_login_uid": 4711}))
        await asyncio.sleep(0)
        go_on.set()
        assert await deciding is None
        await changing
        room.clock.advance(1)
        assert "keep" == room.made.state("type:triage").last.decision
        assert isinstance(await room.decided(), OwnReview)
        room.made = Recertification(room.store, lambda: room.types, room.audit, room.clock)
        assert isinstance(await room.decided(), OwnReview)
        assert "keep" == room.made.state("type:triage").last.decision

    async def test_a_change_while_it_is_told(self, room, monkeypatch):
        """A type that is reloaded while its review is told as overdue has it known by whom, and is told once."""
        await room.bring(**BLOCKED)
        room.clock.advance(90 * DAY)
        begun, go_on = held(room.store, monkeypatch)
        looking = asyncio.ensure_future(room.made.look())
        await begun.wait()
        changing = asyncio.ensure_future(room.bring(**BLOCKED, max_tokens="5", by={"by_uid": 0, "by_login_uid": 4711}))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(looking, changing)
        with capture_logs() as logs:
            await room.made.look()
        assert [] == logs
        assert 4711 == room.store.load()["type:triage"].changed_login_uid
        assert isinstance(await room.decided(), OwnReview)

    async def test_a_change_before_its_turn(self, room):
        """A type that has changed since the items were listed is not decided on, whatever was shown of it; nor is one
        that is in force and of which it is not known yet who changed it.
        """
        await room.bring()
        items, wanted = room.items, Wanted("type:triage", "keep", await room.shown(), "")
        await room.bring(max_tokens="5")
        (fault,) = await room.made.decide([wanted], SOMEBODY, items)
        assert isinstance(fault, ReviewStale)
        room.types = {"triage": task_type("triage", max_tokens="6")}
        assert isinstance(await room.decided(), ReviewStale)

    @pytest.mark.full
    async def test_a_change_between_two_parts(self, room, monkeypatch):
        """A reload does not wait for all of a large spreadsheet, and what it changes is not decided on after it."""
        room.types = {f"t{number:04}": task_type(f"t{number:04}") for number in range(2 * REVIEW_WRITTEN)}
        await room.made.types_changed(room.types, {})
        items = room.items
        shown = await room.made.show(
            [(name, canonical({"used": True, "reviewed": item.subject})) for name, item in items.items()]
        )
        begun, go_on = held(room.store, monkeypatch)
        wanted = [Wanted(each.item, "keep", each.digest, "") for each in shown]
        deciding = asyncio.ensure_future(room.made.decide(wanted, SOMEBODY, items))
        await begun.wait()
        last = wanted[-1].item.partition(":")[2]
        changing = asyncio.ensure_future(room.bring(last, max_tokens="5", by={"by_uid": 0, "by_login_uid": 4711}))
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(ReviewStale) as refused:
            await deciding
        assert f"{REVIEW_WRITTEN} of {len(wanted)} decisions were made before" in refused.value.public
        await changing
        assert 4711 == room.store.load()[f"type:{last}"].changed_login_uid
        assert REVIEW_WRITTEN == sum(each.last is not None for each in room.store.load().values())

    async def test_no_workload(self, room):
        """A process that is a workload decides nothing."""
        await room.bring()
        fault = await room.decided("narrow", person=Person(0, 4711, 1, frozenset({"spiffe://example.org/a"})))
        assert isinstance(fault, OwnReview)
        assert "spiffe://example.org/a" in fault.public

    @pytest.mark.parametrize(
        ("decision", "reason", "used", "wrong"),
        [
            ("keep", "", True, None),
            ("keep", " ", False, ReasonNeeded),
            ("keep", "at the year's end", False, None),
            ("narrow", "", True, None),
            ("narrow", "", False, ReasonNeeded),
            ("narrow", "less of it", False, None),
            ("retire", "", False, None),
            ("grant", "", True, InvalidInput),
            ("keep", "x" * (REVIEW_REASON_MAX + 1), True, InvalidInput),
        ],
    )
    async def test_what_is_needed(self, room, decision, reason, used, wrong):
        """What nobody used is kept or narrowed with a reason alone, and nothing is decided but what is known."""
        await room.bring()
        fault = await room.decided(decision, reason, used=used)
        assert wrong == (None if fault is None else type(fault))

    async def test_all_or_none(self, room):
        """Of several decisions none is made if one is wrong, and each that is wrong is told."""
        await room.bring()
        digest = await room.shown()
        good = Wanted("type:triage", "keep", digest, "")
        faults = await room.decide(good, Wanted("type:none", "keep", digest, ""), good)
        assert [None, NotFound, InvalidInput] == [None if each is None else type(each) for each in faults]
        assert room.made.state("type:triage").last is None

    async def test_very_many(self, room):
        """A spreadsheet of thousands is decided in parts, and leaves the loop to others meanwhile."""
        room.types = {f"t{number}": task_type(f"t{number}") for number in range(2 * REVIEW_WRITTEN)}
        await room.made.types_changed(room.types, {})
        items = room.items
        evidence = [(name, canonical({"used": True, "reviewed": item.subject})) for name, item in items.items()]
        shown = await room.made.show(evidence)
        wanted = [Wanted(each.item, "keep", each.digest, "") for each in shown]
        deciding = asyncio.ensure_future(room.made.decide(wanted, SOMEBODY, items))
        turns = 0
        while not deciding.done():
            turns += 1
            await asyncio.sleep(0)
        assert [None] * len(wanted) == deciding.result()
        assert turns > 2
        assert len(wanted) == sum(each.last is not None for each in room.store.load().values())
