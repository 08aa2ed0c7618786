"""transitions.py: whatever happens at whatever step of a change that grants something, nobody has what is not so."""

import asyncio
import json
from contextlib import suppress

import pytest
from fakes.approvals import approve
from fakes.children import holder_of
from fakes.families import WORKERS, FamilyRoom, handed_on
from fakes.persons import ScriptedTokens, good_until, person
from fakes.registrations import entry
from fakes.task_room import DEADLINE_SECONDS
from fakes.task_types import PERMIT_ALL, TICKETS, task_type
from harness.looking import idle
from sojourn.errors import SojournError, StoreFailed, TaskOver
from sojourn.facts.publications import Publication
from sojourn.policy.task_type_tables import OPERATOR
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.announcements import Announcements, Place
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasks.reevaluation import Reevaluation
from sojourn.tasks.task import ACTIVE
from sojourn.tasktoken.grants import Authority, Grant

UNLESS_FROZEN = (
    PERMIT_ALL
    + '@id("frozen") forbid (principal, action, resource) when { context.facts has freeze && context.facts.freeze };'
)
FREEZE = '{freeze = {type = "boolean"}}'
TYPES = TypeSet(
    triage=handed_on(UNLESS_FROZEN, facts=FREEZE, person='{need = "optional"}'),
    asked=task_type("asked", UNLESS_FROZEN, approval="{}", facts=FREEZE),
)
READ = Authority((Grant(TICKETS, ("ticket:read",)),))
WORKER = entry(WORKERS[0]).spiffe_id
ORIGIN = "https://model.example.org"
ALICE = person("alice")
LATER = good_until(ALICE, ALICE.expires_at + 200, issued_at=ALICE.issued_at + 200)


@pytest.fixture
async def room(clock):
    async with FamilyRoom(clock, types=TYPES).running() as made:
        yield made
        await made.facts.quiet()


# --- changes: how the task comes to where the change is asked for, the change, and whether it was made ----------------


async def suspended(room):
    task = await room.begin()
    await room.changing.suspend(task, "operator", "wait")
    return task


async def pending(room):
    return await room.begin("asked")


async def begun(room):
    return await room.begin()


async def begun_for_alice(room):
    return await room.begin(person=ALICE)


async def renew(room, task):
    renewal = PersonRenewal(room.engine, room.changing, ScriptedTokens({}))
    await renewal.renew_verified(task, LATER, "digest")


CHANGES = {
    "resume": (
        suspended,
        lambda room, task: room.changing.resume(task, "operator"),
        lambda _room, task: task.state == ACTIVE,
    ),
    "approve": (pending, approve, lambda _room, task: task.state == ACTIVE),
    "hand on": (
        begun,
        lambda room, task: room.delegating.delegate(task, WORKER, None),
        lambda room, _task: len(room.engine.tickets) > 0,
    ),
    "let through": (
        begun,
        lambda room, task: room.changing.note_passes(task, [ORIGIN]),
        lambda _room, task: task.passes == (ORIGIN,),
    ),
    "renew": (begun_for_alice, renew, lambda _room, task: task.person == LATER),
    "token": (
        begun,
        lambda room, task: room.engine.token(task, TICKETS, ["ticket:read"]),
        lambda _room, task: task.tokens_issued > 0,
    ),
}


# --- what happens meanwhile -------------------------------------------------------------------------------------------


async def ends(room, task, _asking):
    room.engine.end(task, "revoked", "test")


async def is_suspended(room, task, _asking):
    if task.state == "pending":
        room.engine.end(task, "revoked", "test")
    else:
        room.changing.hold(task, "facts", "test")


async def is_narrowed(room, task, _asking):
    room.changing.take(task, READ, "test")


async def is_superseded(room, task, _asking):
    room.changing.supersede(task)


async def is_frozen(room, _task, _asking):
    now = room.facts.happens_now("freeze", "", OPERATOR)
    said = Publication("freeze", "", value=True, source=OPERATOR, valid_seconds=None, happened_at=now)
    asyncio.ensure_future(room.facts.publish(said, {"by_uid": 0}))  # noqa: RUF006  # it waits for the same disk
    await asyncio.sleep(0)


async def loses_its_holder(room, task, _asking):
    room.engine.holding.gone(task)


async def the_clock_runs_out(room, task, _asking):
    room.clock.advance(task.deadline - room.clock.boot() + 1)
    room.alarms.ring_due()


async def is_written_as_it_was(room, task, _asking):
    """Its child has ended, say, and what that has used is written of the family."""
    room.engine.journal.later(task.record(), room.engine.event("family_used", task))


MEANWHILE = {
    each.__name__: each
    for each in (
        ends,
        is_suspended,
        is_narrowed,
        is_superseded,
        is_frozen,
        loses_its_holder,
        the_clock_runs_out,
        is_written_as_it_was,
    )
}


async def written(room):
    """Let everything that waits for the disk be written."""
    if room.store.gate is not None:
        room.store.gate.set()
        room.store.gate = None
    await room.engine.journal.drain()
    await room.facts.quiet()


def as_on_disk(room, task):
    """A live task is on disk as it is; one that has ended is not there as a live one."""
    state, version = room.store.rows[task.id]
    if task.live:
        document = json.loads(room.store.documents[task.id])
        assert (task.state, task.version) == (state, version)
        assert (task.authority.document(), list(task.passes)) == (document["grants"], document["passes"])
    else:
        assert state == task.state


class TestUndisturbed:
    @pytest.mark.parametrize("name", CHANGES)
    async def test_is_made_once_it_is_on_disk(self, room, name):
        """A change is made when its record is on disk, and not before."""
        prepare, change, made = CHANGES[name]
        task = await prepare(room)
        room.store.gate, before = asyncio.Event(), made(room, task)
        asking = asyncio.ensure_future(change(room, task))
        await asyncio.wait_for(room.store.writing.wait(), 20)
        await idle()
        assert (False, name in {"hand on", "token"}) == (before, made(room, task))  # nobody has those yet
        await written(room)
        await asking
        assert made(room, task)
        as_on_disk(room, task)

    @pytest.mark.parametrize("name", CHANGES)
    async def test_is_not_made_if_it_cannot_be_written(self, room, name):
        """A change that the disk does not take is not made, and the next try makes it."""
        prepare, change, made = CHANGES[name]
        task = await prepare(room)
        room.store.failure = StoreFailed("test")
        with pytest.raises(StoreFailed):
            await change(room, task)
        assert not made(room, task)
        room.store.failure = None
        await change(room, task)
        assert made(room, task)

    @pytest.mark.parametrize("name", CHANGES)
    async def test_waits_for_no_disk_that_takes_nothing(self, room, name):
        """Where an earlier change of the task is not on disk, and the disk takes nothing, a change is refused at once."""
        prepare, change, made = CHANGES[name]
        task = await prepare(room)
        room.store.failure = StoreFailed("test")
        room.engine.journal.later(task.record(), room.engine.event("family_used", task))
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(StoreFailed):
                await change(room, task)
        assert not made(room, task)
        room.store.failure = None
        await written(room)
        await change(room, task)
        assert made(room, task)


class TestMeanwhile:
    @pytest.mark.parametrize("happens", MEANWHILE)
    @pytest.mark.parametrize("name", CHANGES)
    async def test_nobody_has_what_is_not_so(self, room, name, happens):
        """Whatever becomes of a task while a change is written: it is made of the task as it is then, or not at all."""
        prepare, change, made = CHANGES[name]
        task = await prepare(room)
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        asking = asyncio.ensure_future(change(room, task))
        await asyncio.wait_for(room.store.writing.wait(), 20)
        await MEANWHILE[happens](room, task, asking)
        await written(room)
        given = True
        try:
            await asking
        except SojournError:
            given = False
        await written(room)
        if not given:
            assert not (made(room, task) and name != "let through")
        if happens in {"ends", "loses_its_holder", "the_clock_runs_out"} or (happens, name) == (
            "is_suspended",
            "approve",
        ):
            assert not given
            with pytest.raises(TaskOver):
                room.engine.check_active(task)
        if happens == "is_frozen" and name in {"resume", "approve", "token"}:
            assert not given
        if happens == "is_suspended":
            assert not given
            assert task.state != ACTIVE
        if happens == "is_written_as_it_was":
            assert given
        await written(room)
        as_on_disk(room, task)

    @pytest.mark.parametrize("name", CHANGES)
    async def test_the_caller_goes(self, room, name):
        """Whoever asked may go while it is written: the task is then on disk as it is, whichever way that is."""
        prepare, change, _made = CHANGES[name]
        task = await prepare(room)
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        asking = asyncio.ensure_future(change(room, task))
        await asyncio.wait_for(room.store.writing.wait(), 20)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await written(room)
        await room.changing.quiet()
        await room.store.quiet()
        as_on_disk(room, task)
        assert 0 == len(room.engine.tickets)
        assert 0 == task.tokens_issued


# --- beginnings, which are no transitions: nobody knew of the task before ---------------------------------------------


async def nothing(_room):
    return None


async def ticket(room):
    return await room.ticket(await room.begin(), 0)


async def exchange(room, parent):
    bond = Bond(holder_of(room.worker), "process")
    request, grant = BeginRequest("", {}, max_seconds=60), Grant(TICKETS, ("ticket:read",))
    return await room.delegating.exchange(parent, room.worker_peer, entry(WORKERS[0]), grant, request, bond, jti="a")


BEGINNINGS = {
    "begin": (nothing, lambda room, _: room.begin()),
    "pending": (nothing, lambda room, _: room.begin("asked")),
    "accept": (ticket, lambda room, given: room.accept(given, 0)),
    "exchange": (begun, exchange),
}


class TestBeginnings:
    async def being_written(self, room, name):
        """A task whose beginning is on its way to the disk, and who waits for it."""
        prepare, begin = BEGINNINGS[name]
        given = await prepare(room)
        before = {task.id for task in room.engine.tasks.all()}
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        asking = asyncio.ensure_future(begin(room, given))
        await asyncio.wait_for(room.store.writing.wait(), 20)
        (task,) = (task for task in room.engine.tasks.all() if task.id not in before)
        assert not asking.done()
        return task, asking

    @pytest.mark.parametrize("happens", MEANWHILE)
    @pytest.mark.parametrize("name", BEGINNINGS)
    async def test_nobody_has_what_is_not_so(self, room, name, happens):
        """Whatever becomes of a task while its beginning is written: who began it has it as it is then, or it is over."""
        reevaluation = Reevaluation(room.engine, room.changing, room.facts, room.alarms)
        task, asking = await self.being_written(room, name)
        await MEANWHILE[happens](room, task, asking)
        await written(room)
        begun = None
        with suppress(SojournError):
            begun = await asking
        await written(room)
        await reevaluation.quiet()
        assert begun is (task if task.live else None)
        survives = happens in {"is_narrowed", "is_superseded", "is_written_as_it_was"}
        survives |= (name, happens) == ("pending", "is_frozen")  # policy is asked once somebody agrees
        assert survives is task.live
        if happens == "is_narrowed":
            assert READ == task.authority
        as_on_disk(room, task)

    @pytest.mark.parametrize("name", BEGINNINGS)
    async def test_is_not_begun_if_it_cannot_be_written(self, room, name):
        """A task that the disk does not take has not begun and is not there, and the next try begins it."""
        prepare, begin = BEGINNINGS[name]
        given = await prepare(room)
        before = room.engine.tasks.all()
        handed_on_before = [task.handed_on for task in before]
        room.store.failure = StoreFailed("test")
        with pytest.raises(StoreFailed):
            await begin(room, given)
        assert before == room.engine.tasks.all()
        assert [] == room.engine.tasks.ended()
        room.store.failure = None
        if name == "accept":  # it was good once
            assert [0] == [task.handed_on for task in before]
            return
        assert handed_on_before == [task.handed_on for task in before]
        assert (await begin(room, given)).live

    @pytest.mark.parametrize("name", BEGINNINGS)
    async def test_the_caller_goes(self, room, name):
        """A task whose caller goes while its beginning is written is over, and so it is on disk."""
        task, asking = await self.being_written(room, name)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await written(room)
        await room.store.quiet()
        assert not task.live
        as_on_disk(room, task)


class TestAnnouncements:
    async def test_in_their_order(self, room):
        """Who hears of a change hears in the order of the places, whoever said first that it wants to; its holder last."""
        heard = []
        announcements, task = Announcements(), await room.begin()
        for place in reversed(Place):
            announcements.subscribe(place, lambda _task, _before, place=place: heard.append(place))
        announcements.to_holder(task, lambda: heard.append("holder"))
        announcements.announce(task)
        assert [*Place, "holder"] == heard

    async def test_of_a_pending_task(self, room):
        """Of a task that waits for approval its holder alone hears."""
        heard = []
        announcements, task = Announcements(), await room.begin("asked")
        announcements.subscribe(Place.VALIDATORS, lambda *_: heard.append("validators"))
        announcements.to_holder(task, lambda: heard.append("holder"))
        announcements.announce(task)
        assert ["holder"] == heard

    async def test_once_for_each_change(self, room):
        """Each change is announced once, and an end is the last of them."""
        task, heard = await room.begin(), []
        room.engine.announcements.subscribe(Place.VALIDATORS, lambda task, _before: heard.append(task.state))
        room.engine.announcements.to_holder(task, lambda: heard.append("holder"))
        room.changing.hold(task, "operator", "wait")
        await room.changing.resume(task, "operator")
        room.engine.end(task, "completed", "success")
        assert ["suspended", "holder", "active", "holder", "completed", "holder"] == heard
        room.engine.announce(task)
        assert ["completed"] == heard[6:]
