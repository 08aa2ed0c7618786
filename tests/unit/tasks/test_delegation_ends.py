"""delegation.py: what is handed on ends and is cut with what it came from, and outlives a restart."""

import asyncio
import json

import pytest
from fakes.delegations import PAGES, READ, W0, W1, ends, until
from fakes.families import WORKER_IDS, handed_on
from fakes.next_run import NextRun
from fakes.task_room import TRIAGE_ENTRY
from fakes.task_types import TICKETS
from sojourn.errors import (
    FailedPrecondition,
    LimitExceeded,
    PolicyDenied,
    StoreFailed,
    TaskOver,
)
from sojourn.limits import REATTACH_SECONDS
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.shadow_policy import Shadow
from sojourn.tasks.task import CASCADED
from sojourn.tasktoken.end_reasons import OPERATOR, PARENT, RESTART


@pytest.fixture
async def room(make):
    return await make()


class TestTogether:
    async def test_suspended_and_resumed(self, room):
        """All that came of a task is suspended with it, and comes back with it, each decided again."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        grandchild = await room.hand_on(child, 1)
        tokens = [await room.engine.token(each, TICKETS, ()) for each in (child, grandchild)]
        await room.changing.suspend(task, OPERATOR, "test")
        for each in (child, grandchild):
            assert ("suspended", "parent_suspended") == (each.state, each.reason)
        await room.changing.resume(task, OPERATOR)
        await until(lambda: grandchild.state == "active")
        for each in tokens:
            with pytest.raises(TaskOver):
                room.engine.check_token(each)
        room.engine.check_token(await room.engine.token(grandchild, TICKETS, ()))

    async def test_a_child_with_a_cause_of_its_own(self, room):
        """A child that an operator suspended stays so when its parent comes back, and its own children with it."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        grandchild = await room.hand_on(child, 1)
        await room.changing.suspend(child, OPERATOR, "test")
        await room.changing.suspend(task, OPERATOR, "test")
        await room.changing.resume(task, OPERATOR)
        await until(lambda: PARENT not in child.suspensions)
        assert ("suspended", {PARENT}) == (child.state, set(grandchild.suspensions))
        with pytest.raises(FailedPrecondition):
            await room.changing.resume(grandchild, OPERATOR)
        await room.changing.resume(child, OPERATOR)
        await until(lambda: grandchild.state == "active")

    async def test_suspended_again_while_a_child_is_resumed(self, room):
        """A child that is just being resumed when its parent is suspended again is not active afterwards."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        for turns in range(12):
            await room.changing.suspend(task, OPERATOR, "test")
            await room.changing.resume(task, OPERATOR)
            for _ in range(turns):
                await asyncio.sleep(0)
            suspending = asyncio.ensure_future(room.changing.suspend(task, OPERATOR, "again"))
            await asyncio.sleep(0)
            for _ in range(30):
                await asyncio.sleep(0)
                assert "suspended" == child.state
            await suspending
            assert ("suspended", child.version) == room.store.rows[child.id]
            await room.changing.resume(task, OPERATOR)
            await until(lambda: child.state == "active")

    async def test_suspended_again_before_a_child_is_resumed(self, room, monkeypatch):
        """A child whose resumption waits for what is written of it before is not active if its parent is suspended again."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        await room.changing.suspend(task, OPERATOR, "test")
        await room.engine.journal.drain()
        written, count = asyncio.Event(), room.store.count

        async def once_let_go(records, events):
            await written.wait()
            await count(records, events)

        monkeypatch.setattr(room.store, "count", once_let_go)
        room.engine.journal.later(child.record(), None)
        await room.changing.resume(task, OPERATOR)
        for _ in range(30):
            await asyncio.sleep(0)
        suspending = asyncio.ensure_future(room.changing.suspend(task, OPERATOR, "again"))
        await asyncio.sleep(0)
        written.set()
        for _ in range(200):
            await asyncio.sleep(0)
            assert "suspended" == child.state
        await suspending
        await room.changing.resume(task, OPERATOR)
        await until(lambda: child.state == "active")

    async def test_a_resumption_that_cannot_be_written(self, room):
        """A child stays suspended while its resumption cannot be written, and comes back once it can."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        await room.changing.suspend(task, OPERATOR, "test")
        await room.engine.journal.drain()
        await room.changing.resume(task, OPERATOR)
        room.store.failure = StoreFailed("the disk is full")
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert "suspended" == child.state
        room.store.failure = None
        await until(lambda: child.state == "active")

    async def test_policy_leaves_nothing_when_it_is_resumed(self, make):
        """A child of which policy leaves nothing ends when its parent comes back."""
        room = await make(
            handed_on(
                '@id("root") permit (principal, action, resource) when { principal.depth == 0 };'
                '@id("new") permit (principal, action, resource) when { principal.reported_calls < 1 };'
            )
        )
        task = await room.begin()
        child = await room.hand_on(task, 0)
        room.engine.report_use(task, TICKETS, "ticket:read")
        await room.changing.suspend(task, OPERATOR, "test")
        await room.changing.resume(task, OPERATOR)
        await until(lambda: not child.live)
        assert ("active", "revoked", "policy_changed") == (task.state, child.state, child.reason)

    async def test_narrowed(self, room):
        """What a task gives up its children lose, down to the last; one that is left nothing ends."""
        task = await room.begin()
        child, reader = await room.hand_on(task, 0), await room.hand_on(task, 0, PAGES)
        grandchild = await room.hand_on(child, 1)
        token = await room.engine.token(grandchild, TICKETS, ())
        await room.changing.narrow(task, READ, "holder")
        assert (READ, READ) == (child.authority, grandchild.authority)
        assert (CASCADED, "parent_narrowed") == (reader.state, reader.reason)
        with pytest.raises(TaskOver):
            room.engine.check_token(token)

    async def test_the_type_changes(self, room):
        """When the type's delegation is taken back its children end; its roots live on."""
        task = await room.begin()
        kept, gone = await room.hand_on(task, 0), await room.hand_on(task, 1)
        types = TypeSet({"triage": handed_on(delegation={"to": f'["{WORKER_IDS[0]}"]'})})
        await PolicyReload(room.engine, room.changing).apply(types)
        assert ("active", "active", "revoked", "policy_changed") == (task.state, kept.state, gone.state, gone.reason)
        await PolicyReload(room.engine, room.changing).apply(TypeSet({"triage": handed_on(max_duration='"60s"')}))
        assert task.deadline == kept.deadline == room.clock.boot() + 60
        await PolicyReload(room.engine, room.changing).apply(TypeSet())
        assert ("revoked", CASCADED) == (task.state, kept.state)

    async def test_a_ticket_after_a_change_of_the_type(self, room):
        """A ticket from before a change is good only for what the type lets be handed on now."""
        task = await room.begin()
        ticket, other = await room.ticket(task, 0), await room.ticket(task, 1)
        types = TypeSet({"triage": handed_on(delegation={"to": f'["{WORKER_IDS[1]}"]', "max_children": 1})})
        await PolicyReload(room.engine, room.changing).apply(types)
        with pytest.raises(PolicyDenied):
            await room.accept(ticket, 0)
        with pytest.raises(LimitExceeded):
            await room.accept(other, 1)

    async def test_the_candidate_is_asked_at_the_same_depth(self, room):
        """A candidate set that agrees about children shows no difference."""
        room.engine.shadow = Shadow(room.clock, lambda *_: None)
        room.engine.shadow.replace(TypeSet({"triage": handed_on()}))
        await room.hand_on(await room.begin(), 0)
        assert ({}, 0) == (room.engine.shadow.differences, room.engine.shadow.errors)


@pytest.fixture
def restart(room, stack):
    async def run(**changes):
        return await NextRun.after(room, stack, entries=(TRIAGE_ENTRY, W0, W1), **changes)

    return run


def damage(store, task, **changes):
    document = {**json.loads(store.documents[task.id]), **changes}
    store.documents[task.id] = json.dumps(
        {name: value for name, value in document.items() if value is not ...}
    ).encode()


class TestRestart:
    @pytest.fixture
    async def family(self, room):
        """A task, its child and its grandchild."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        return task, child, await room.hand_on(child, 1)

    async def test_comes_back_parents_first(self, room, restart, family):
        """Children re-attach on their own, and stay suspended until their parents are back; then policy is asked."""
        task, child, grandchild = family
        await room.engine.token(grandchild, TICKETS, ())
        later = await restart()
        for each in (child, grandchild):
            found = later.find(each)
            assert {RESTART, PARENT} == set(found.suspensions)
            assert (each.ancestors, each.parent_id, each.authority) == (
                found.ancestors,
                found.parent_id,
                found.authority,
            )
        found = await later.attach(room.worker_peer, child, W0)
        assert ("suspended", {PARENT}) == (found.state, set(found.suspensions))
        await later.attach(room.worker_peer, grandchild, W1)
        await later.attach(room.peer, task, TRIAGE_ENTRY)
        await until(lambda: later.find(grandchild).state == "active")
        token = await later.engine.token(later.find(grandchild), TICKETS, ())
        assert (WORKER_IDS[1], WORKER_IDS[0]) == tuple(map(str, token.actors))
        assert 1 == later.find(task).handed_on
        now = room.clock.now()
        assert 2 == later.find(task).principal(now).tokens_issued == later.find(grandchild).principal(now).tokens_issued

    async def test_the_parent_does_not_come_back(self, room, restart, family):
        """When the window closes on a parent its children end with it, though they were back."""
        task, child, grandchild = family
        later = await restart()
        for each, one in ((child, W0), (grandchild, W1)):
            await later.attach(room.worker_peer, each, one)
        room.clock.advance(REATTACH_SECONDS)
        later.alarms.ring_due()
        assert [] == later.engine.tasks.all()
        await later.engine.journal.drain()
        assert {
            (task.id, "revoked", RESTART),
            (child.id, CASCADED, "parent_ended"),
            (grandchild.id, CASCADED, "parent_ended"),
        } == ends(room.store)

    async def test_the_child_does_not_come_back(self, room, restart, family):
        """A child that is not fetched in time ends; its parent lives on."""
        task, child, grandchild = family
        later = await restart()
        await later.attach(room.peer, task, TRIAGE_ENTRY)
        room.clock.advance(REATTACH_SECONDS)
        later.alarms.ring_due()
        assert [task.id] == [each.id for each in later.engine.tasks.all()]
        assert ("revoked", CASCADED) == (later.find(child).state, later.find(grandchild).state)

    @pytest.mark.parametrize("order", [1, -1], ids=["as begun", "backwards"])
    async def test_the_parent_is_over(self, room, restart, family, order):
        """Without its parent a child is over, in whatever order the journal tells of them."""
        task, child, grandchild = family
        room.store.rows = dict(list(room.store.rows.items())[::order])
        damage(room.store, task, holder={**task.record().document["holder"], "start_time": 1})
        later = await restart()
        assert [] == later.engine.tasks.all()
        assert {
            (task.id, "revoked", "holder_exited"),
            (child.id, CASCADED, "parent_ended"),
            (grandchild.id, CASCADED, "parent_ended"),
        } == ends(room.store)

    async def test_a_parents_end_alone_was_written(self, room, restart, family):
        """A crash between the end of a parent on disk and its child's leaves no child."""
        task, _, _ = family
        room.store.rows[task.id] = ("revoked", room.store.rows[task.id][1])
        later = await restart()
        assert [] == later.engine.tasks.all()

    async def test_a_narrowing_of_the_parent_alone_was_written(self, room, restart, family):
        """A crash between a narrowing on disk and its child's gives the child no more than its parent has."""
        task, child, grandchild = family
        damage(room.store, task, grants=READ.document(), deadline=task.deadline - 100)
        damage(room.store, grandchild, grants=PAGES.document())
        later = await restart()
        assert (READ, task.deadline - 100) == (later.find(child).authority, later.find(child).deadline)
        assert {(grandchild.id, CASCADED, "parent_narrowed")} == ends(room.store)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("parent_id", 7),
            ("parent_id", ""),
            ("depth", 0),
            ("depth", 2),
            ("depth", True),
            ("depth", "1"),
            ("ancestors", []),
            ("ancestors", ["not an id"]),
            ("ancestors", [7]),
            ("ancestors", {}),
            ("ancestors", [WORKER_IDS[1]]),
            ("ancestors", ["spiffe://example.org/agent/triage"] * 9),
            ("handed_on", -1),
            ("handed_on", None),
            ("spent", [1]),
            ("spent", [1, "2"]),
            ("spiffe_id", "spiffe://example.org/agent/unknown"),
        ],
    )
    async def test_damage(self, room, restart, name, value):
        """A child of which the journal tells what cannot be ends, and its parent stays."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        damage(room.store, child, **{name: value})
        later = await restart()
        assert [task.id] == [each.id for each in later.engine.tasks.all()]
        [end] = ends(room.store)
        assert (child.id, "revoked") == end[:2]
        assert end[2] in {"journal_damaged", "attestation_changed"}

    async def test_a_type_that_hands_nothing_on(self, room, restart, family):
        """The parent's type is another now: all are over."""
        later = await restart(types={"triage": handed_on(delegation={"max_depth": 1})})
        assert [] == later.engine.tasks.all()
