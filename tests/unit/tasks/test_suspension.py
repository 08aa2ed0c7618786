"""suspension.py, and what else a task goes through while it lives: suspended, resumed, narrowed, idle, spent, repeated."""

import asyncio
from dataclasses import replace

import pytest
from fakes.families import FamilyRoom
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import PERMIT_ALL, TICKETS, WIKI, task_type
from sojourn.errors import (
    ActionOutsideType,
    BudgetSpent,
    FailedPrecondition,
    InvalidInput,
    StoreFailed,
    TaskOver,
    UnknownTaskType,
)
from sojourn.errors.oauth import NotOnDisk
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.end_reasons import ADMIN, OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

EVERYTHING = Authority((Grant(TICKETS, ("ticket:read", "ticket:write")), Grant(WIKI, ("page:read",))))
NO_WRITES = PERMIT_ALL + '@id("no") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'
TYPES = {
    "triage": task_type(),
    "idle": task_type("idle", idle_timeout='"60s"'),
    "spare": task_type("spare", max_tokens="2", max_reported_calls="3"),
    "once": task_type("once", '@id("once") permit (principal, action, resource) when { principal.tokens_issued < 1 };'),
}


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


@pytest.fixture
def changing(room):
    return TaskChanges(room.engine)


class TestSuspended:
    async def test_no_token_and_none_is_good(self, room, changing, task):
        """A suspended task gives no token, and those that are out are refused, here and at validators."""
        token = await room.engine.token(task, TICKETS, ())
        with room.engine.feed.watch([TICKETS]) as watcher:
            await changing.suspend(task, OPERATOR, "looking into it")
            assert [(False, True)] == [(state.live, state.suspended) for state in watcher.take()]
        with pytest.raises(TaskOver, match="suspended: looking into it"):
            await room.engine.token(task, TICKETS, ())
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        assert ("suspended", task.version) == room.store.rows[task.id]

    async def test_resuming_revives_no_token(self, room, changing, task):
        """After it was resumed a task gives tokens, and the ones from before stay dead."""
        old = await room.engine.token(task, TICKETS, ())
        await changing.suspend(task, OPERATOR, "a moment")
        await changing.resume(task, OPERATOR)
        with pytest.raises(TaskOver, match="changed"):
            room.engine.check_token(old)
        room.engine.check_token(await room.engine.token(task, TICKETS, ()))
        assert ("active", task.version) == room.store.rows[task.id]
        assert ["task_suspended", "task_resumed"] == [
            name for name in room.store.names if name in {"task_suspended", "task_resumed"}
        ]

    async def test_policy_is_asked_again(self, room, changing):
        """What policy no longer allows is gone after a resume; if that is all, the task is over."""
        task = await room.begin("once")
        await room.engine.token(task, TICKETS, ())
        await changing.suspend(task, OPERATOR, "a moment")
        with pytest.raises(TaskOver, match="policy_changed"):
            await changing.resume(task, OPERATOR)
        assert ("revoked", "policy_changed") == (task.state, task.reason)

    async def test_each_cause_must_go(self, room, changing, task):
        """A task that is suspended for two causes is active when both are gone."""
        await changing.suspend(task, OPERATOR, "one")
        await changing.suspend(task, "facts", "two")
        await changing.resume(task, OPERATOR)
        assert ("suspended", "two") == (task.state, task.reason)
        await changing.resume(task, "facts")
        assert "active" == task.state

    async def test_before_anybody_has_it(self, room, changing):
        """A task that an operator suspends while its beginning is written ends by an operator; their text stands beside
        that, and is not the reason itself.
        """
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        beginning = asyncio.ensure_future(room.begin())
        await room.store.writing.wait()
        (task,) = room.engine.tasks.all()
        suspending = asyncio.ensure_future(changing.suspend(task, OPERATOR, "ann@example.org is away"))
        await asyncio.sleep(0)
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await beginning
        await suspending
        assert ("revoked", ADMIN, "ann@example.org is away") == (task.state, task.reason, task.explanation)

    async def test_a_journal_that_fails(self, room, changing, task):
        """A suspension holds before it is written; a resume that cannot be written does not happen."""
        room.store.failure = StoreFailed("no")
        suspending = asyncio.ensure_future(changing.suspend(task, OPERATOR, "now"))
        await asyncio.sleep(0)
        assert "suspended" == task.state
        with pytest.raises(StoreFailed):
            await room.engine.journal.now(task.record(), room.engine.event("x", task))
        room.store.failure = None
        await suspending
        room.store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await changing.resume(task, OPERATOR)
        assert "suspended" == task.state

    async def test_an_end_while_it_is_resumed(self, room, changing, task):
        """A task that ends while its resuming is written stays ended, in memory and in the journal."""
        await changing.suspend(task, OPERATOR, "now")
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        resuming = asyncio.ensure_future(changing.resume(task, OPERATOR))
        await room.store.writing.wait()
        room.engine.end(task, "revoked", "because")
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await resuming
        await room.engine.journal.drain()
        assert ("revoked", "revoked") == (task.state, room.store.rows[task.id][0])

    @pytest.mark.parametrize("cedar", [PERMIT_ALL, NO_WRITES])
    async def test_another_policy_while_it_is_resumed(self, room, changing, task, cedar):
        """If what policy says became another while a resuming was written, the task is active only if that is the same."""
        await changing.suspend(task, OPERATOR, "now")
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        resuming = asyncio.ensure_future(changing.resume(task, OPERATOR))
        await room.store.writing.wait()
        task.type = task_type(cedar=cedar)
        room.store.gate.set()
        if cedar == PERMIT_ALL:
            await resuming
        else:
            with pytest.raises(TaskOver, match="what policy reads has changed meanwhile"):
                await resuming
        await room.engine.journal.drain()
        expected = "active" if cedar == PERMIT_ALL else "suspended"
        assert (expected, EVERYTHING, (expected, task.version)) == (
            task.state,
            task.authority,
            room.store.rows[task.id],
        )
        times = 1 if cedar == PERMIT_ALL else 2  # what is undone is recorded as the suspension it is
        assert [(OPERATOR, "now")] * times == [
            (each["cause"], each["reason"]) for each in room.store.fields("task_suspended")
        ]

    async def test_the_deadline_goes_on(self, room, changing, task, clock):
        """Time goes on while a task is suspended."""
        await changing.suspend(task, OPERATOR, "now")
        clock.advance(15 * 60)
        room.alarms.ring_due()
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_twice_for_the_same(self, room, changing, task):
        """A task that is suspended for a cause already is left as it is; for another it is suspended too."""
        await changing.suspend(task, OPERATOR, "one")
        version = task.version
        await changing.suspend(task, OPERATOR, "two")
        assert (version, "one") == (task.version, task.reason)
        await changing.suspend(task, "facts", "three")
        assert [(OPERATOR, "one"), ("facts", "three")] == [
            (each["cause"], each["reason"]) for each in room.store.fields("task_suspended")
        ]

    async def test_what_cannot_be_resumed(self, changing, task):
        """A task that is not suspended by this cause, or has ended, is not resumed."""
        with pytest.raises(FailedPrecondition):
            await changing.resume(task, OPERATOR)
        await changing.suspend(task, "facts", "x")
        with pytest.raises(FailedPrecondition, match="not suspended by operator, it is suspended: x"):
            await changing.resume(task, OPERATOR)

    async def test_an_ended_task(self, room, changing, task):
        """An ended task is neither suspended nor resumed nor narrowed."""
        await room.engine.revoke(task, "because")
        await changing.suspend(task, OPERATOR, "too late")
        for change in (changing.resume(task, OPERATOR), changing.narrow(task, READ_TICKETS, "x")):
            with pytest.raises(TaskOver):
                await change
        assert "revoked" == task.state


class TestNarrowed:
    async def test_less_and_never_more(self, room, changing, task):
        """A narrowed task has what is left, its tokens from before are dead, and nothing brings the rest back."""
        wide = await room.engine.token(task, TICKETS, ())
        with room.engine.feed.watch([WIKI]) as watcher:
            await changing.narrow(task, READ_TICKETS, "holder")
            assert [task.version] == [state.version for state in watcher.take()]
        assert READ_TICKETS == task.authority
        with pytest.raises(TaskOver):
            room.engine.check_token(wide)
        assert ("ticket:read",) == (await room.engine.token(task, TICKETS, ())).actions
        with pytest.raises(ActionOutsideType):
            await changing.narrow(task, EVERYTHING, "holder")
        assert READ_TICKETS == task.authority
        [fields] = room.store.fields("task_narrowed")
        assert (task.id, "holder") == (fields["task"], fields["reason"])

    async def test_nothing_left(self, changing, task):
        """To give up all is to complete; a narrowing to nothing is refused."""
        with pytest.raises(InvalidInput, match="complete"):
            await changing.narrow(task, Authority(()), "holder")

    async def test_the_same(self, changing, task):
        """A narrowing to what the task has changes nothing."""
        before = task.version
        await changing.narrow(task, task.authority, "holder")
        assert before == task.version


class TestIdle:
    async def test_ends_when_it_is_not_used(self, room, clock):
        """A task that is not used for as long as its type allows is over."""
        task = await room.begin("idle")
        clock.advance(59)
        room.alarms.ring_due()
        assert task.live
        clock.advance(1)
        room.alarms.ring_due()
        assert ("expired", "idle") == (task.state, task.reason)

    @pytest.mark.parametrize("how", ["token", "validation", "report"])
    async def test_use_keeps_it_alive(self, room, clock, how):
        """Getting a token, a validation of one and a reported call are use."""
        task = await room.begin("idle")
        token = await room.engine.token(task, TICKETS, ())
        for _ in range(3):
            clock.advance(50)
            room.alarms.ring_due()
            if how == "token":
                await room.engine.token(task, TICKETS, ())
            elif how == "validation":
                room.engine.check_token(token)
            else:
                room.engine.report_use(task, TICKETS, "ticket:read")
        assert task.live
        clock.advance(60)
        room.alarms.ring_due()
        assert not task.live

    async def test_counts_before_the_alarm_rings(self, room, clock):
        """Past its idle deadline a task gives no token, even if the alarm has not rung yet."""
        task = await room.begin("idle")
        clock.advance(60)
        with pytest.raises(TaskOver, match="not used"):
            await room.engine.token(task, TICKETS, ())


class TestBudgets:
    async def test_tokens(self, room):
        """A task gets as many tokens as its type allows, also when they are asked for at once; it lives on."""
        task = await room.begin("spare")
        asked = [room.engine.token(task, TICKETS, ()) for _ in range(5)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert (2, 3) == (task.tokens_issued, sum(isinstance(each, BudgetSpent) for each in found))
        assert task.live

    async def test_calls(self, room):
        """More calls than the type allows end the task."""
        task = await room.begin("spare")
        room.engine.report_use(task, TICKETS, "ticket:read", 3)
        with pytest.raises(TaskOver, match="budget"):
            room.engine.report_use(task, TICKETS, "ticket:read")
        assert ("revoked", "budget") == (task.state, task.reason)

    async def test_only_what_it_has(self, room, task):
        """A call that the task may not make is not counted as its use."""
        with pytest.raises(InvalidInput):
            room.engine.report_use(task, TICKETS, "ticket:delete")
        assert 0 == task.calls

    async def test_granted_against_used(self, room, task):
        """The end's record says what was granted and what was used of it."""
        await room.engine.token(task, TICKETS, ["ticket:read"])
        room.engine.report_use(task, TICKETS, "ticket:read", 2)
        await room.engine.complete(task, failed=False)
        [fields] = room.store.fields("task_ended")
        assert {
            (TICKETS, "ticket:read"): (1, 2), (TICKETS, "ticket:write"): (0, 0), (WIKI, "page:read"): (0, 0),
        } == {(row["resource"], row["action"]): (row["tokens"], row["calls"]) for row in fields["use"]}  # fmt: skip


class TestSuperseded:
    """Every token of a task dies, and what came of them, and the task lives on."""

    @pytest.fixture
    async def family(self, clock):
        async with FamilyRoom(clock).running() as room:
            yield room

    async def test_tokens_die(self, family):
        """The tokens that are out are refused, new ones are good; holder, validators and journal are told."""
        task = await family.begin()
        old, told = await family.engine.token(task, TICKETS, ()), []
        family.engine.announcements.to_holder(task, lambda: told.append(task))
        with family.engine.feed.watch([TICKETS]) as watcher:
            family.changing.supersede(task, by_uid=7)
            assert [(task.version, True, False)] == [
                (state.version, state.live, state.suspended) for state in watcher.take()
            ]
        with pytest.raises(TaskOver, match="changed"):
            family.engine.check_token(old)
        family.engine.check_token(await family.engine.token(task, TICKETS, ()))
        assert (task.version, 1) == (task.superseded, len(told))
        await family.engine.journal.drain()
        [fields] = family.store.fields("tokens_revoked")
        assert (task.id, 7) == (fields["task"], fields["by_uid"])

    async def test_of_a_task_for_one_token(self, family):
        """A one-shot task was for its token, and ends with it."""
        task = await family.begin()
        task.origin = replace(task.origin, binding=ONE_SHOT)
        family.changing.supersede(task, by_uid=7)
        assert ("revoked", "token_revoked", 0) == (task.state, task.reason, task.superseded)
        await family.engine.journal.drain()
        [fields] = family.store.fields("task_ended")
        assert 7 == fields["by_uid"]

    async def test_what_came_of_them(self, family):
        """The tokens of all that the task handed on die too; a one-shot task among them ends, with what came of it."""
        task = await family.begin()
        children = [await family.hand_on(task, worker) for worker in (0, 1, 2)]
        below = await family.hand_on(children[0], 3), await family.hand_on(children[2], 4)
        children[0].origin = replace(children[0].origin, binding=ONE_SHOT)
        family.changing.supersede(task)
        assert [("cascaded", "token_revoked"), ("active", ""), ("active", "")] == [
            (each.state, each.reason) for each in children
        ]
        assert ["cascaded", "active"] == [each.state for each in below]
        superseded = (task, *children[1:], below[1])
        assert [each.version for each in superseded] == [each.superseded for each in superseded]
        await family.engine.journal.drain()
        assert {each.id: task.id for each in superseded[1:]} == {
            each["task"]: each["parent"] for each in family.store.fields("tokens_revoked") if "parent" in each
        }


class TestSuspendedFamily:
    async def test_is_recorded(self, clock):
        """What came of a suspended task is suspended for that cause, and recorded so."""
        async with FamilyRoom(clock).running() as family:
            task = await family.begin()
            child = await family.hand_on(task, 0)
            await family.changing.suspend(task, OPERATOR, "a moment")
            await family.engine.journal.drain()
            assert {(task.id, OPERATOR, "a moment"), (child.id, "parent", "parent_suspended")} == {
                (each["task"], each["cause"], each["reason"]) for each in family.store.fields("task_suspended")
            }


class TestRecorded:
    async def test_each_cause(self, room, changing, task):
        """That a task was suspended and resumed is recorded by cause; the last cause that goes, with the decision."""
        await changing.suspend(task, OPERATOR, "one")
        await changing.suspend(task, "facts", "two")
        await changing.resume(task, OPERATOR)
        await changing.resume(task, "facts")
        await room.engine.journal.drain()
        assert [(OPERATOR, "one"), ("facts", "two")] == [
            (each["cause"], each["reason"]) for each in room.store.fields("task_suspended")
        ]
        first, last = room.store.fields("task_resumed")
        assert [OPERATOR, "facts"] == [first["cause"], last["cause"]]
        assert {"policy_set", "inputs"} <= set(last) - set(first)

    async def test_on_what(self, room, changing, task):
        """What a change was decided on is recorded with it."""
        changing.hold(task, "facts", "a fact", why="because")
        left = task.authority.within(Authority((Grant(TICKETS, ("ticket:read",)),)))
        changing.take(task, left, "a fact", why="as before")
        await room.engine.journal.drain()
        assert ["because"] == [each["why"] for each in room.store.fields("task_suspended")]
        assert [("a fact", "as before")] == [
            (each["reason"], each["why"]) for each in room.store.fields("task_narrowed")
        ]

    async def test_what_came_of_it(self, clock):
        """A task that is left less because its parent was is recorded so."""
        async with FamilyRoom(clock).running() as family:
            task = await family.begin()
            child = await family.hand_on(task, 0)
            await family.changing.narrow(task, Authority((Grant(TICKETS, ("ticket:read",)),)), "asked")
            assert {(task.id, "asked"), (child.id, "parent_narrowed")} == {
                (each["task"], each["reason"]) for each in family.store.fields("task_narrowed")
            }


class TestRepeated:
    async def test_fifty_at_once(self, room):
        """Of fifty requests with one key one begins a task, and all are answered with it."""
        found = await asyncio.gather(*(room.begin(key="k") for _ in range(50)))
        assert (1, 1, 1) == (len(set(found)), len(room.engine.tasks), room.store.names.count("task_begun"))

    async def test_after_its_end(self, room):
        """A repeated request is answered with the task also after that has ended."""
        task = await room.begin(key="k")
        await room.engine.complete(task, failed=False)
        assert task is await room.begin(key="k")

    async def test_another_request(self, room):
        """The key of another request is refused."""
        await room.begin(key="k")
        with pytest.raises(FailedPrecondition, match="another request"):
            await room.begin(key="k", wanted=READ_TICKETS)

    async def test_after_a_refusal(self, room):
        """What was refused may be tried again with the same key."""
        with pytest.raises(UnknownTaskType):
            await room.begin("nothing like it", key="k")
        assert (await room.begin(key="k")).live

    async def test_other_keys(self, room):
        """Other keys, and none, begin tasks of their own."""
        found = [await room.begin(key=key) for key in ("", "", "a", "b")]
        assert 4 == len(set(found))


async def test_a_resumption_behind_what_the_disk_did_not_take(room, changing, task):
    """A task whose suspension is not on disk is not resumed, and whoever asks for that does not wait: once it is on disk
    it can be.
    """
    room.store.failure = StoreFailed("not now")
    with pytest.raises(NotOnDisk):
        await changing.suspend(task, OPERATOR, "wait")
    with pytest.raises(StoreFailed, match="an earlier change of the task is not on disk yet") as refused:
        await changing.resume(task, OPERATOR)
    assert not isinstance(refused.value, NotOnDisk)
    assert "suspended" == task.state
    room.store.failure = None
    await room.engine.journal.drain()
    await changing.resume(task, OPERATOR)
    assert "active" == task.state
