"""recovery.py and reattachment.py: tasks of an earlier run come up suspended, and go back to their holders."""

import asyncio
from dataclasses import replace

import pytest
from fakes.children import child
from fakes.recovery_room import ENTRIES, ends, restart_fixture, room_fixture  # noqa: F401 - fixtures
from fakes.task_room import EPOCH
from fakes.task_types import TICKETS, WIKI
from sojourn.errors import LimitExceeded, StoreFailed, TaskOver, Unavailable
from sojourn.limits import REATTACH_SECONDS
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.end_reasons import OPERATOR, RESTART
from sojourn.tasktoken.grants import Authority, Grant


class TestComesBack:
    async def test_suspended_as_it_was(self, room, restart):
        """A task comes up suspended, with all that it had, under a later version, and that is on disk."""
        task = await room.begin(params={"ticket": "T-1", "level": "3", "urgent": "true"}, session=True)
        token = await room.engine.token(task, TICKETS, ["ticket:read"])
        later = await restart()
        found = later.only
        for name in ("id", "spiffe_id", "entry_id", "uid", "authority", "params", "created_at", "expires_at",
                     "deadline", "binding", "session", "last_used", "selectors", "tokens_issued", "calls", "uses"):  # fmt: skip
            assert getattr(task, name) == getattr(found, name), name
        assert ("suspended", RESTART, EPOCH + 1) == (found.state, found.reason, found.version >> 32)
        assert ("suspended", found.version) == room.store.rows[task.id]
        assert [{"cause": RESTART, "reason": RESTART, "task": task.id}] == [
            {name: each[name] for name in ("cause", "reason", "task")} for each in room.store.fields("task_suspended")
        ]
        with pytest.raises(TaskOver):
            later.engine.check_token(token)
        with pytest.raises(TaskOver):
            await later.engine.token(found, TICKETS, ())

    async def test_back_to_its_holder(self, room, restart):
        """The holder's call gives it the task back; new tokens are good, and those of before stay dead."""
        task = await room.begin()
        old = await room.engine.token(task, TICKETS, ())
        later = await restart()
        version = later.only.version
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert ("active", {}, version + 1) == (found.state, found.suspensions, found.version)
        assert ("active", version + 1) == room.store.rows[task.id]
        later.engine.check_token(await later.engine.token(found, TICKETS, ()))
        with pytest.raises(TaskOver):
            later.engine.check_token(old)

    async def test_many_calls_at_once(self, room, restart):
        """Fifty calls at once give the task back once, and all of them get it."""
        task = await room.begin()
        later = await restart()
        asked = [later.attaching.of_caller(room.peer, ENTRIES, task.id) for _ in range(50)]
        assert {"active"} == {each.state for each in await asyncio.gather(*asked)}
        assert 1 == room.store.names.count("task_resumed")

    async def test_a_caller_that_gave_up(self, room, restart):
        """A call that is given up meanwhile takes the task away from no other."""
        task = await room.begin()
        later = await restart()
        first, second = (
            asyncio.ensure_future(later.attaching.of_caller(room.peer, ENTRIES, task.id)) for _ in range(2)
        )
        await asyncio.sleep(0)
        first.cancel()
        assert "active" == (await second).state

    async def test_versions_grow_over_restarts(self, room, restart):
        """However often the agent starts, each version is later than all before it."""
        task = await room.begin()
        versions = [task.version]
        for epoch in range(EPOCH + 1, EPOCH + 5):
            later = await restart(epoch=epoch)
            versions.append(later.only.version)
            if epoch % 2:  # an agent may go again before the holder was back
                versions.append((await later.attaching.of_caller(room.peer, ENTRIES, task.id)).version)
        assert sorted(set(versions)) == versions
        assert [] == ends(room.store)

    async def test_what_policy_denies_now_is_gone(self, room, restart):
        """Policy is asked again on what the task has: what it denies now does not come back."""
        task = await room.begin("once")
        await room.engine.token(task, TICKETS, ["ticket:read"])
        later = await restart()
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert Authority((Grant(WIKI, ("page:read",)),)) == found.authority

    async def test_nothing_is_left(self, room, restart):
        """A task of which policy leaves nothing ends when its holder comes back."""
        task = await room.begin("untouched")
        await room.engine.token(task, TICKETS, ["ticket:read"])
        later = await restart()
        with pytest.raises(TaskOver):
            await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert [("revoked", "policy_changed")] == ends(room.store)

    async def test_a_budget_stays_spent(self, room, restart):
        """Tokens count over a restart, on disk before they are given."""
        task = await room.begin("spare")
        await room.engine.token(task, TICKETS, ())
        later = await restart()
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        await later.engine.token(found, TICKETS, ())
        with pytest.raises(LimitExceeded):
            await later.engine.token(found, TICKETS, ())

    async def test_an_operators_suspension_outlives_it(self, room, restart):
        """A task that an operator has suspended stays so when its holder is back."""
        task = await room.begin()
        await TaskChanges(room.engine).suspend(task, OPERATOR, "looking into it")
        later = await restart()
        found = await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert ("suspended", {OPERATOR: "looking into it"}) == (found.state, found.suspensions)
        await later.changing.resume(found, OPERATOR)
        assert "active" == found.state

    async def test_not_written_not_given(self, room, restart):
        """While the journal cannot be written the task stays suspended; then it may be had."""
        task = await room.begin()
        later = await restart()
        room.store.failure = StoreFailed("not now")
        with pytest.raises(StoreFailed):
            await later.attaching.of_caller(room.peer, ENTRIES, task.id)
        assert "suspended" == later.only.state
        room.store.failure = None
        assert "active" == (await later.attaching.of_caller(room.peer, ENTRIES, task.id)).state

    async def test_a_start_that_cannot_write(self, room, restart):
        """Where what becomes of the tasks cannot be written the agent does not start."""
        await room.begin()
        room.store.failure = StoreFailed("not now")
        with pytest.raises(StoreFailed):
            await restart()
        room.store.failure = None

    async def test_the_holder_is_held(self, room, restart):
        """A waiting task ends with its holder, and lets go of it."""
        with child() as process:
            task = await room.begin(holder=process)
            later = await restart()
            found = later.only
            process.kill()
            async with asyncio.timeout(20):
                while found.live:
                    await asyncio.sleep(0.01)
        assert ("revoked", "holder_exited", 0) == (found.state, found.reason, len(later.holders))
        assert task.id == found.id


class TestWindow:
    async def test_nobody_came(self, room, restart):
        """A task whose holder is not back in time ends; one whose holder is, does not."""
        task, other = await room.begin(), await room.begin()
        later = await restart()
        later.advance(REATTACH_SECONDS - 1)
        found = await later.attaching.of_caller(room.peer, ENTRIES, other.id)
        later.advance(1)
        assert (("revoked", RESTART), "active") == (
            (later.engine.tasks.find(task.id).state, later.engine.tasks.find(task.id).reason),
            found.state,
        )
        with pytest.raises(TaskOver):
            await later.engine.token(await later.attaching.of_caller(room.peer, ENTRIES, task.id), TICKETS, ())

    async def test_the_deadline_is_kept(self, room, restart):
        """A deadline is the same moment before and after."""
        await room.begin(max_seconds=60)
        room.clock.advance(55)
        later = await restart()
        later.advance(5)
        await later.engine.journal.drain()
        assert [("expired", "deadline")] == ends(room.store)

    async def test_idle_time_goes_on(self, room, restart):
        """A task that is not used for too long ends, the restart included."""
        task = await room.begin("idle")
        room.clock.advance(40)
        await room.engine.token(task, TICKETS, ())
        room.clock.advance(55)
        later = await restart()
        later.advance(5)
        await later.engine.journal.drain()
        assert [("expired", "idle")] == ends(room.store)


class TestStop:
    async def test_tasks_stay(self, room):
        """An agent that stops leaves tasks as they are, tells their streams, and begins nothing more."""
        task = await room.begin()
        row, told = room.store.rows[task.id], []
        room.engine.announcements.to_holder(task, lambda: told.append(room.engine.closing))
        room.engine.close()
        await room.engine.journal.drain()
        assert ("active", row, [True]) == (task.state, room.store.rows[task.id], told)
        with pytest.raises(Unavailable):
            await room.begin()

    async def test_one_shot_ends(self, room):
        """Tasks that cannot come back end with the agent."""
        task = await room.begin()
        task.origin = replace(task.origin, binding="one-shot")
        room.engine.close()
        await room.engine.journal.drain()
        assert [("revoked", "agent_stopped")] == ends(room.store)
