"""delegation.py, family.py, delegation_tickets.py: a family ends, pauses, shrinks and comes back together."""

import asyncio
from dataclasses import replace

import pytest
from fakes.children import holder_of
from fakes.delegations import PAGES, READ, W0, W1
from fakes.families import WORKER_IDS, WORKERS, handed_on
from fakes.registrations import entry
from fakes.task_types import TICKETS
from sojourn.errors import (
    ActionOutsideType,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    StoreFailed,
    TaskOver,
)
from sojourn.errors.oauth import ShuttingDown
from sojourn.limits import DELEGATION_TICKET_SECONDS, DELEGATION_TICKETS
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.blocks import Block
from sojourn.tasks.delegation_tickets import digest_of
from sojourn.tasks.task import CASCADED
from sojourn.tasktoken.end_reasons import ATTESTATION_CHANGED, OPERATOR
from sojourn.tasktoken.grants import Authority, Grant


@pytest.fixture
async def room(make):
    return await make()


class TestTickets:
    async def test_lives_a_minute_or_as_long_as_its_task(self, room):
        """A ticket lives a minute, or as long as its task if that is less; it is gone from memory then."""
        for life, seconds in ((900, DELEGATION_TICKET_SECONDS), (10, 10)):
            each = await room.begin(max_seconds=life)
            issued = await room.delegating.delegate(each, W0.spiffe_id, None)
            assert seconds == (issued.expires_at - room.clock.now()).total_seconds()
            room.clock.advance(seconds - 0.5)
            assert room.engine.tickets.find(issued.ticket) is not None
            room.clock.advance(0.5)
            assert room.engine.tickets.find(issued.ticket) is None
            room.alarms.ring_due()
            assert 0 == len(room.engine.tickets)

    async def test_a_step_of_the_wall_clock_is_nothing(self, room):
        """A ticket lives by the boot clock: setting the wall clock back keeps none alive."""
        ticket = await room.ticket(await room.begin(), 0)
        room.clock.advance(DELEGATION_TICKET_SECONDS)
        room.clock.step_wall(-3600)
        with pytest.raises(NotFound):
            await room.accept(ticket, 0)

    async def test_there_are_so_many(self, room, monkeypatch):
        """One user's tasks have half of all tickets at most; what is used, or lost, makes room."""
        monkeypatch.setattr("sojourn.tasks.delegation_tickets.DELEGATION_TICKETS", 4)
        assert DELEGATION_TICKETS > 4
        task = await room.begin()
        tickets = [await room.ticket(task, 0) for _ in range(2)]
        with pytest.raises(LimitExceeded, match="outstanding"):
            await room.ticket(task, 0)
        await room.accept(tickets[0], 0)
        await room.ticket(task, 0)


class TestByToken:
    """A service that was given a token begins a task of its own under the token's, for a call of its own."""

    async def exchange(self, room, parent, actions=("ticket:read",), *, worker=0, max_seconds=30.0):
        return await room.delegating.exchange(
            parent, room.worker_peer, entry(WORKERS[worker]), Grant(TICKETS, actions),
            BeginRequest("triage", {}, max_seconds=max_seconds, svids={("x509", WORKER_IDS[worker]): 7.0}),
            Bond(holder_of(room.worker), "process"), jti="j1",
        )  # fmt: skip

    async def test_under_its_parent(self, room):
        """It has what it asks for of the token, lives no longer, stands under the parent, and is due to its SVIDs."""
        parent = await room.begin()
        child = await self.exchange(room, parent)
        assert (READ, parent.id, 1, True) == (child.authority, child.parent_id, child.depth, child.live)
        assert (1, [child]) == (parent.handed_on, room.engine.family.children(parent))
        assert room.clock.boot() + 30 == child.deadline
        assert {("x509", WORKER_IDS[0]): 7.0} == child.svids
        await room.engine.journal.drain()
        [fields] = room.store.fields("delegation_accepted")
        assert ("j1", parent.id, 1, READ.document()) == (
            fields["by_token"], fields["parent"], fields["depth"], fields["grants"],
        )  # fmt: skip
        assert (str(parent.spiffe_id), [WORKER_IDS[0]]) == (fields["subject"], fields["actors"])

    async def test_its_holder_goes(self, room):
        """It ends when the process that holds it exits, and its parent lives on."""
        parent = await room.begin()
        child = await self.exchange(room, parent)
        room.worker.kill()
        await room.ended(child)
        assert ("holder_exited", True) == (child.reason, parent.live)

    @pytest.mark.parametrize(
        ("actions", "worker", "error"),
        [(("ticket:write",), 0, ActionOutsideType), (("ticket:read",), 1, LimitExceeded)],
    )
    async def test_refused(self, make, actions, worker, error):
        """What the parent has not, and more children than its type allows, is refused, and holds nobody."""
        room = await make(handed_on(delegation={"max_children": 1}))
        parent = await room.begin(wanted=READ)
        if error is LimitExceeded:
            await self.exchange(room, parent)
        before = parent.handed_on, len(room.engine.tasks), len(room.holders)
        with pytest.raises(error):
            await self.exchange(room, parent, actions, worker=worker)
        assert before == (parent.handed_on, len(room.engine.tasks), len(room.holders))

    async def test_a_parent_that_is_not_active(self, room):
        """Under a task that is suspended, or over, nothing begins."""
        parent = await room.begin()
        await room.changing.suspend(parent, OPERATOR, "a moment")
        with pytest.raises(TaskOver, match="suspended"):
            await self.exchange(room, parent)
        await room.engine.revoke(parent, "admin")
        with pytest.raises(TaskOver, match="over"):
            await self.exchange(room, parent)
        assert 0 == parent.handed_on

    async def test_what_is_not_written(self, room):
        """If it cannot be written it never began, and its parent has handed on nothing."""
        parent = await room.begin()
        await room.engine.journal.drain()
        room.store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await self.exchange(room, parent)
        assert (0, []) == (parent.handed_on, room.engine.family.children(parent))
        room.store.failure = None
        assert (await self.exchange(room, parent)).live


class TestRefused:
    async def test_a_part_that_is_not_held(self, room):
        """What the task has not, or nothing at all, cannot be handed on."""
        task = await room.begin(wanted=READ)
        with pytest.raises(ActionOutsideType):
            await room.ticket(task, 0, PAGES)
        with pytest.raises(InvalidInput, match="nothing"):
            await room.ticket(task, 0, Authority(()))
        with pytest.raises(InvalidInput, match="at least"):
            await room.ticket(task, 0, None, 0.5)

    async def test_one_that_is_not_active(self, room):
        """A suspended task and one that is over hand nothing on."""
        task = await room.begin()
        await room.changing.suspend(task, OPERATOR, "test")
        with pytest.raises(TaskOver):
            await room.ticket(task, 0)
        room.engine.end(task, "revoked", "test")
        with pytest.raises(TaskOver):
            await room.ticket(task, 0)

    async def test_one_that_ends_while_it_is_recorded(self, room):
        """A ticket whose task ends before the record is on disk is none."""
        task = await room.begin()
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        asking = asyncio.ensure_future(room.ticket(task, 0))
        await room.store.writing.wait()
        room.engine.end(task, "revoked", "test")
        room.store.gate.set()
        room.store.gate = None
        with pytest.raises(TaskOver):
            await asking
        assert 0 == len(room.engine.tickets)

    async def test_a_one_shot_task(self, room):
        """A one-shot task is not handed on."""
        task = await room.begin()
        task.origin = replace(task.origin, binding="one-shot")
        with pytest.raises(PolicyDenied, match="one-shot"):
            await room.ticket(task, 0)

    async def test_a_binding_that_the_type_has_not(self, make):
        """A child is held only as its type says."""
        room = await make(handed_on(binding='["process", "stream"]'))
        ticket = await room.ticket(await room.begin(), 0)
        with pytest.raises(PolicyDenied, match="may not be held"):
            await room.accept(ticket, 0, binding="one-shot")
        await room.accept(ticket, 0, binding="stream")

    async def test_switched_off(self, room):
        """A workload that is switched off gets nothing that is handed on; it may once that is lifted."""
        ticket = await room.ticket(await room.begin(), 0)
        room.engine.blocks.replace([Block("spiffe_id", WORKER_IDS[0], "because", 0)])
        with pytest.raises(PolicyDenied, match="switched off"):
            await room.accept(ticket, 0)
        room.engine.blocks.replace([])
        await room.accept(ticket, 0)

    async def test_while_the_agent_stops(self, room):
        """An agent that is shutting down lets nothing begin."""
        ticket = await room.ticket(await room.begin(), 0)
        room.engine.closing = True
        with pytest.raises(ShuttingDown):
            await room.accept(ticket, 0)
        room.engine.closing = False
        await room.accept(ticket, 0)  # it was not used up: nothing was done

    async def test_what_policy_denies_the_other(self, make):
        """Policy is asked for the other workload at its depth: what it denies is left out, and all of it refuses."""
        room = await make(
            handed_on(
                '@id("root") permit (principal, action, resource) when { principal.depth == 0 };'
                '@id("handed") permit (principal, action == Sojourn::Action::"ticket:read", resource)'
                f' when {{ principal.depth == 1 && principal.workload == Sojourn::Workload::"{WORKER_IDS[0]}" }};'
            )
        )
        task = await room.begin()
        assert READ == (await room.hand_on(task, 0)).authority
        with pytest.raises(PolicyDenied, match="leaves nothing"):
            await room.hand_on(task, 1)
        assert 1 == len(room.engine.family.children(task))

    async def test_is_recorded(self, room):
        """What is refused to the one who hands on, and to the one who accepts, is recorded with who wanted what."""
        task = await room.begin(wanted=READ)
        with pytest.raises(ActionOutsideType) as caught:
            await room.ticket(task, 0, PAGES)
        with pytest.raises(NotFound) as told:
            await room.accept("dlg_none", 0)
        await room.engine.audit.flush()
        handing, accepting = room.store.fields("delegation_denied")
        assert (task.id, str(W0.spiffe_id), "action_outside_type", caught.value.public) == (
            handing["task"], handing["to"], handing["code"], handing["reason"],
        )  # fmt: skip
        peer = room.worker_peer
        assert {
            "uid": peer.uid, "pid": peer.process.pid, "ticket": digest_of("dlg_none")[:16], "reason": told.value.public,
        } == accepting  # fmt: skip

    async def test_what_a_ticket_says_is_recorded(self, room):
        """A ticket is recorded with whom it is for, and what it hands on."""
        task = await room.begin()
        issued = await room.delegating.delegate(task, W0.spiffe_id, READ)
        assert 0 == room.engine.tickets.find(issued.ticket).max_seconds  # as long as its parent
        [made] = room.store.fields("task_delegated")
        assert (task.id, str(W0.spiffe_id), READ.document()) == (made["task"], made["to"], made["grants"])

    async def test_as_whom(self, room):
        """Whoever accepts as another identity than the ticket's, though he has both, is told that there is none."""
        task = await room.begin()
        ticket = await room.ticket(task, 0)
        entries = (W0, W1)
        with pytest.raises(NotFound):
            await room.accept(ticket, 0, entries=entries, spiffe_id=W1.spiffe_id)
        assert (await room.accept(ticket, 0, entries=entries, spiffe_id=W0.spiffe_id)).live

    async def test_the_last_child(self, make):
        """A task is handed on as often as its type allows, and not once more, by tickets and by tokens alike."""
        room = await make(handed_on(delegation={"max_children": 2}))
        task = await room.begin()
        await room.hand_on(task, 0)
        await room.hand_on(task, 1)
        with pytest.raises(LimitExceeded, match="as often as its type allows"):
            await room.ticket(task, 0)

    async def test_nothing_is_held_after_a_refusal(self, room):
        """A refused caller's process is let go."""
        task = await room.begin()
        before = len(room.holders)
        with pytest.raises(NotFound):
            await room.accept("dlg_none", 0)
        assert before == len(room.holders)
        room.engine.end(task, "revoked", "test")


class TestChild:
    async def test_what_it_is(self, room):
        """A child has its parent's type and parameters, its own workload, and what the ticket says of the rest."""
        task = await make_with_params(room)
        child = await room.hand_on(task, 0, READ, 60)
        assert (task.type, task.params, READ, W0.spiffe_id, W0.id) == (
            child.type,
            child.params,
            child.authority,
            child.spiffe_id,
            child.entry_id,
        )
        assert (task.id, 1, (W0.spiffe_id,), task.spiffe_id) == (
            child.parent_id,
            child.depth,
            child.actors,
            child.subject,
        )
        assert 60 == child.deadline - room.clock.boot()
        [begun] = room.store.fields("delegation_accepted")
        [made] = room.store.fields("task_delegated")
        assert (child.id, task.id, made["ticket"]) == (begun["task"], begun["parent"], begun["ticket"])

    async def test_it_lives_no_longer_than_its_parent(self, room):
        """The parent's deadline counts, by the boot clock, also if the child's alarm is late."""
        task = await room.begin(max_seconds=30)
        child = await room.hand_on(task, 0, None, 900)
        assert (task.deadline, task.expires_at) == (child.deadline, child.expires_at)
        token = await room.engine.token(child, TICKETS, ())
        room.clock.advance(30)
        with pytest.raises(TaskOver):
            room.engine.check_token(token)

    async def test_an_idle_parent(self, make):
        """A parent that is idle is over although its child is in use, even before an alarm has rung."""
        room = await make(handed_on(idle_timeout='"60s"'))
        task = await room.begin()
        child = await room.hand_on(task, 0)
        room.clock.advance(40)
        token = await room.engine.token(child, TICKETS, ())
        room.clock.advance(25)
        with pytest.raises(TaskOver, match="cascaded"):
            room.engine.check_token(token)
        assert ("expired", "idle") == (task.state, task.reason)

    async def test_the_parents_holder_runs_another_program(self, room, monkeypatch):
        """A parent whose holder has changed ends as soon as its child is used."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        monkeypatch.setattr(room.holders, "lost", lambda hold: ATTESTATION_CHANGED if hold is task.holder else "")
        with pytest.raises(TaskOver):
            await room.engine.token(child, TICKETS, ())
        assert ("attestation_changed", CASCADED) == (task.reason, child.state)

    async def test_its_end_is_its_own(self, room):
        """Neither its parent nor its siblings end with a child."""
        task = await room.begin()
        children = [await room.hand_on(task, number) for number in range(2)]
        room.engine.end(children[0], "completed", "success")
        assert ("active", "active") == (task.state, children[1].state)
        assert [children[1]] == room.engine.family.children(task)

    async def test_everyone_hears_of_the_end(self, room):
        """Validators, streams and the journal hear of each task that ends with its parent."""
        task = await room.begin()
        child = await room.hand_on(await room.hand_on(task, 0), 1)
        heard = []
        room.engine.announcements.to_holder(child, lambda: heard.append(child))
        with room.engine.feed.watch([TICKETS]) as watcher:
            room.engine.end(task, "completed", "success")
            assert {"completed: success", "cascaded: parent_ended"} == {each.reason for each in watcher.take()}
        await room.engine.journal.drain()
        assert [child] == heard
        assert {"completed", CASCADED} == {state for state, _ in room.store.rows.values()}
        ends = room.store.fields("task_ended")
        assert [task.id, child.parent_id] == [each["parent"] for each in ends[1:]]

    async def test_ended_twice(self, room):
        """Whoever ends a whole list of tasks may meet one that has ended with its parent: it stays what it is."""
        task = await room.begin()
        child = await room.hand_on(task, 0)
        for each in (task, child):
            room.engine.end(each, "revoked", "blocked")
        assert (CASCADED, "parent_ended") == (child.state, child.reason)


async def make_with_params(room):
    room.engine.types = TypeSet({"triage": handed_on(params='{ticket = "string"}')})
    return await room.begin(params={"ticket": "T-1"})
