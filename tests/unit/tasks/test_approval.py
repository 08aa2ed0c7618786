"""approval.py: tasks that wait until someone agrees, and what nobody but a person may do for them."""

import asyncio
from dataclasses import replace

import pytest
from fakes.approvals import BOB, DENIED, TYPES, approve, deny, person, request_of
from fakes.task_room import READ_TICKETS, TRIAGE_ENTRY, Room
from fakes.task_types import PERMIT_ALL, TICKETS, task_type
from sojourn.errors import (
    ApprovalRequired,
    FailedPrecondition,
    LimitExceeded,
    NeedsApproval,
    NotFound,
    PolicyDenied,
    StoreFull,
    TaskOver,
)
from sojourn.limits import APPROVALS_WAITING_PER_UID
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.approval import Approvals
from sojourn.tasks.begin import BeginRequest, BeginService, Bond
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.requester import Remote
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.type_sets import PolicyReload
from sojourn.tasktoken.end_reasons import OPERATOR


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


@pytest.fixture
async def task(room):
    return await room.begin("asked")


class TestPending:
    async def test_has_no_authority(self, room, task):
        """A pending task gives no token and takes no use, and the refusal says what it waits for."""
        for use in (
            room.engine.token(task, TICKETS, ()),
            asyncio.to_thread(room.engine.report_use, task, TICKETS, "ticket:read"),
        ):
            with pytest.raises(ApprovalRequired, match=request_of(task).id):
                await use
        assert ("pending", task.version) == room.store.rows[task.id]
        (record,) = room.store.fields("task_pending")
        assert (request_of(task).id, request_of(task).digest, ["operator"]) == (
            record["approval"],
            record["digest"],
            record["approvers"],
        )
        assert [] == room.store.fields("task_begun")

    async def test_validators_do_not_hear_of_it(self, room):
        """Who heard of a pending task would believe it over: they hear of it when it has begun."""
        with room.engine.feed.watch([TICKETS]) as watcher:
            task = await room.begin("asked")
            assert [] == watcher.take()
            await approve(room, task)
            assert [(task.id, True)] == [(state.id, state.live) for state in watcher.take()]

    async def test_its_life_begins_when_it_does(self, clock, room, task):
        """While it waits neither its own time nor its idle time runs; both do from the approval on."""
        clock.advance(45)
        room.alarms.ring_due()
        assert "pending" == task.state
        await approve(room, task)
        assert (clock.boot() + 900, clock.boot() + 30) == (task.deadline, task.idle_deadline)
        assert (clock.now(), 900) == (task.created_at, (task.expires_at - task.created_at).total_seconds())
        clock.advance(29)
        room.alarms.ring_due()
        assert await room.engine.token(task, TICKETS, ())
        clock.advance(31)
        room.alarms.ring_due()
        assert ("expired", "idle") == (task.state, task.reason)

    async def test_time_over(self, clock, room, task):
        """Nobody decides: the request expires, and cannot be decided after that."""
        clock.advance(61)
        with pytest.raises(TaskOver, match="approval_expired"):
            await approve(room, task)
        room.alarms.ring_due()
        assert ("expired", "approval_expired") == (task.state, task.reason)
        with pytest.raises(NotFound):
            await approve(room, task)

    async def test_a_step_of_the_wall_clock_changes_nothing(self, clock, room, task):
        """A wall clock that is set back does not let a request wait longer."""
        clock.step_wall(-86_400)
        clock.advance(61)
        room.alarms.ring_due()
        assert ("expired", "approval_expired") == (task.state, task.reason)

    async def test_the_holder_gives_up_or_dies(self, room):
        """A request ends with its holder, and when the holder takes it back."""
        first, second = await room.begin("asked"), await room.begin("asked")
        await room.engine.complete(first, failed=False)
        assert ("completed", "cancelled") == (first.state, first.reason)
        room.process.kill()
        await room.ended(second)
        assert ("revoked", "holder_exited") == (second.state, second.reason)
        assert 0 == len(room.engine.waiting)

    async def test_cannot_be_suspended(self, room, task):
        """Nobody gets around approval by way of suspended: resumed it would be active."""
        changing = TaskChanges(room.engine)
        with pytest.raises(FailedPrecondition, match="waits for approval"):
            await changing.suspend(task, OPERATOR, "a moment")
        with pytest.raises(FailedPrecondition, match="not suspended"):
            await changing.resume(task, OPERATOR)
        assert "pending" == task.state

    async def test_what_it_gives_up_it_does_not_get(self, room, task):
        """A pending task may be narrowed; what is left is what begins."""
        await TaskChanges(room.engine).narrow(task, READ_TICKETS, "holder")
        await approve(room, task)
        assert READ_TICKETS == task.authority

    async def test_a_reload_ends_it(self, room, task):
        """Another digest of its type is another question: the request is over, and the other types' go on."""
        other = await room.begin("two")
        types = TypeSet({**TYPES, "asked": task_type("asked", PERMIT_ALL, approval='{within = "61s"}')})
        await PolicyReload(room.engine, TaskChanges(room.engine)).apply(types)
        assert ("revoked", "policy_changed", "pending") == (task.state, task.reason, other.state)

    async def test_the_agent_stops(self, room, task):
        """A pending task does not outlive the agent."""
        room.engine.close()
        assert ("revoked", "agent_stopped") == (task.state, task.reason)

    async def test_policy_comes_first(self, room):
        """What policy denies is denied; nobody is asked."""
        with pytest.raises(PolicyDenied):
            await room.begin("picky", params={"level": "9"})
        assert 0 == len(room.engine.waiting)

    async def test_nobody_here_would_hold_it(self, room):
        """A task whose client is on another machine does not wait: nobody here would hold it until then."""
        request, bond = BeginRequest("asked", {}), Bond(NoProcess(), "one-shot")
        with pytest.raises(NeedsApproval, match="at the agent's socket"):
            await room.beginning.begin(Remote(), (TRIAGE_ENTRY,), request, bond)
        assert (0, []) == (len(room.holders), room.engine.tasks.all())

    async def test_not_everyone_can_bury_approvers(self, room):
        """A user has so many requests waiting, by all of his uids together, and no more."""
        room.engine.waiting._user_of = lambda uid: 14001 if uid >= 165536 else uid
        peers = [replace(room.peer, uid=165536 + number) for number in range(APPROVALS_WAITING_PER_UID + 1)]
        *first, last = peers
        waiting = [await room.begin("asked", peer=peer) for peer in first]
        with pytest.raises(LimitExceeded, match="approval"):
            await room.begin("asked", peer=last)
        await room.engine.complete(waiting[0], failed=False)
        await room.begin("asked", peer=last)

    async def test_nobody_decides_what_is_not_on_disk(self, room):
        """A request is found once it is journaled, and not at all if that fails."""
        room.store.gate = asyncio.Event()
        beginning = asyncio.ensure_future(room.begin("asked"))
        await room.store.writing.wait()
        assert ([], 1) == (room.engine.waiting.all(), len(room.engine.waiting))
        room.store.gate.set()
        task = await beginning
        assert [task] == room.engine.waiting.all()
        room.store.failure = StoreFull("no room")
        with pytest.raises(StoreFull):
            await room.begin("asked")
        assert 1 == len(room.engine.waiting)

    async def test_by_class(self, room):
        """The agent's configuration makes a whole class need an operator's approval; others are as before."""
        room.approving = Approvals(room.engine, room.reviews, room.audit, ["high"])
        room.beginning = BeginService(room.engine, room.approving)
        high, normal = await room.begin("high"), await room.begin("triage")
        assert ("pending", ("operator",), 1, "active") == (
            high.state,
            request_of(high).approvers,
            request_of(high).count,
            normal.state,
        )


class TestDigest:
    async def test_is_of_all_that_is_asked(self, room):
        """Another parameter, other grants or another type make another digest; the same request does not."""
        asked = [
            await room.begin("asked", params={"ticket": "1"}),
            await room.begin("asked", params={"ticket": "2"}),
            await room.begin("asked", params={"ticket": "1"}, wanted=READ_TICKETS),
            await room.begin("two", params={"ticket": "1"}),
        ]
        again = await room.begin("asked", params={"ticket": "1"})
        assert 4 == len({request_of(task).digest for task in asked})
        assert request_of(asked[0]).digest == request_of(again).digest

    async def test_what_was_shown_is_decided(self, room, task):
        """A decision on another digest than the request's changes nothing."""
        other = await room.begin("asked", params={"ticket": "1"})
        with pytest.raises(FailedPrecondition, match="digest"):
            await approve(room, task, digest=request_of(other).digest)
        assert "pending" == task.state


class TestDeciding:
    async def test_approved(self, room, task):
        """Approved, the task is active with a later version, and the journal knew it before."""
        before = task.version
        await approve(room, task, BOB)
        assert ("active", True) == (task.state, task.version > before)
        assert ("active", task.version) == room.store.rows[task.id]
        assert await room.engine.token(task, TICKETS, ())
        names = [name for name in room.store.names if name in {"task_pending", "approval_decided", "task_begun"}]
        assert ["task_pending", "approval_decided", "task_begun"] == names
        (decision,) = room.store.fields("approval_decided")
        assert ("approve", 9, 502, 1, "operator") == tuple(
            decision[name] for name in ("verdict", "by_uid", "by_login_uid", "by_pid", "by_role")
        )

    async def test_denied(self, room, task):
        """Denied, the task is over, with the words of whoever denied it."""
        await deny(room, task, reason="not on a Friday")
        assert ("revoked", "approval_denied", "not on a Friday") == (task.state, task.reason, task.approval.denial)
        assert ("revoked", task.version) == room.store.rows[task.id]
        await room.audit.flush()
        (decision,) = room.store.fields("approval_decided")
        assert ("deny", "not on a Friday") == (decision["verdict"], decision["reason"])

    @pytest.mark.parametrize("first", [approve, deny])
    async def test_once(self, room, task, first):
        """What was decided is not decided again."""
        await first(room, task)
        for again in (approve, deny):
            with pytest.raises(NotFound):
                await again(room, task, BOB)

    async def test_is_for_one_request(self, room, task):
        """An approval is for its request: one that is equal in all waits for its own."""
        equal = await room.begin("asked")
        await approve(room, task)
        assert ("active", "pending") == (task.state, equal.state)
        later = await room.begin("asked")
        assert "pending" == later.state

    async def test_policy_is_asked_again(self, room):
        """What policy denies by the time of the approval is gone; if that is all, the task is over."""
        narrowed, over = await room.begin("asked"), await room.begin("asked")
        kind = task_type(
            "asked",
            '@id("read") permit (principal, action == Sojourn::Action::"ticket:read", resource);',
            approval='{within = "60s"}',
            idle_timeout='"30s"',
        )
        narrowed.type.__dict__["policy"] = kind.policy  # the same type in a world that has changed
        try:
            await approve(room, narrowed)
            assert READ_TICKETS == narrowed.authority
            over.type.__dict__["policy"] = DENIED.policy
            with pytest.raises(TaskOver, match="policy denies"):
                await approve(room, over)
        finally:
            over.type.__dict__["policy"] = TYPES["two"].policy
        assert ("revoked", "policy_changed") == (over.state, over.reason)

    async def test_fifty_at_once(self, room):
        """Of fifty who approve and deny at once the outcome is one: begun once, or over for good."""
        for seed in range(4):
            task = await room.begin("asked")
            racers = [
                (approve if (number + seed) % 2 else deny)(room, task, person(600 + number)) for number in range(50)
            ]
            outcomes = await asyncio.gather(*racers, return_exceptions=True)
            won = [each for each in outcomes if each is task]
            assert 1 == len(won)
            assert all(
                isinstance(each, NotFound | FailedPrecondition | TaskOver) for each in outcomes if each is not task
            )
            begun = [each for each in room.store.fields("task_begun") if each["task"] == task.id]
            assert (task.state == "active") <= (len(begun) == 1)
            assert (task.state, task.version) == room.store.rows[task.id]

    async def test_fifty_approvers(self, room, task):
        """Of fifty who approve at once one approval is used, and the task begins once."""
        outcomes = await asyncio.gather(
            *(approve(room, task, person(600 + number)) for number in range(50)), return_exceptions=True
        )
        assert [task] == [each for each in outcomes if each is task]
        assert ("active", 1) == (task.state, len(room.store.fields("task_begun")))
        assert 1 == len(task.approval.given)

    @pytest.mark.parametrize("writes", [0, 1])
    async def test_the_disk_is_full(self, room, task, writes):
        """An approval that cannot be written is none: the task stays pending, and may be approved later."""
        room.store.fail_after(writes, StoreFull("no room"))
        with pytest.raises(StoreFull):
            await approve(room, task)
        assert ("pending", []) == (task.state, task.approval.given)
        with pytest.raises(ApprovalRequired):
            await room.engine.token(task, TICKETS, ())
        room.store.failure = None
        await approve(room, task)
        assert "active" == task.state

    async def test_denied_while_it_is_approved(self, room, task):
        """A denial that comes while an approval is being written wins: it takes away."""
        room.store.gate = asyncio.Event()
        approving = asyncio.ensure_future(approve(room, task))
        await room.store.writing.wait()
        denying = asyncio.ensure_future(deny(room, task, BOB))
        await asyncio.sleep(0)
        assert ("revoked", "approval_denied") == (task.state, task.reason)
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await approving
        await denying
        assert ("revoked", task.version) == room.store.rows[task.id]

    async def test_the_approver_goes_away(self, room, task):
        """A decision that is under way is finished, whether or not the caller waits for it."""
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        approving = asyncio.ensure_future(approve(room, task))
        await room.store.writing.wait()
        approving.cancel()
        room.store.gate.set()
        async with asyncio.timeout(20):
            await room.engine.waiting.settled(task, 20)
        assert "active" == task.state

    async def test_waiting_for_it(self, room, task):
        """Whoever waits hears of the decision at once, and otherwise goes on after a while."""
        await room.engine.waiting.settled(task, 0.01)
        waiting = asyncio.ensure_future(room.engine.waiting.settled(task, 20))
        await asyncio.sleep(0)
        await deny(room, task)
        async with asyncio.timeout(10):
            await waiting
