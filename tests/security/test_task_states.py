"""What changes a task at the same moment: whoever loses leaves nothing behind that the next start would believe.

The store holds a write up for as long as a test says: whatever happens meanwhile, the journal tells in the end what is
true in memory, and nothing that has ended, or was given up, comes back.
"""

import asyncio
import json

import pytest
from fakes import task_worlds
from fakes.families import handed_on
from fakes.task_room import READ_TICKETS
from fakes.task_types import PERMIT_ALL, TICKETS, task_type
from sojourn.errors import StoreFailed, TaskOver
from sojourn.policy.task_types import TypeSet
from sojourn.tasktoken.end_reasons import FACTS, OPERATOR, PARENT

UNLESS_FROZEN = (
    PERMIT_ALL
    + '@id("frozen") forbid (principal, action, resource) when { context.facts has freeze && context.facts.freeze };'
)
FREEZE = '{freeze = {type = "boolean", on_deny = "suspend"}}'
TYPES = TypeSet(
    triage=handed_on(UNLESS_FROZEN, facts=FREEZE, params=None),
    asked=task_type("asked", approval='{within = "60s"}'),
    glass=task_type("glass", approval='{within = "60s"}', break_glass="true"),
    frozen=task_type("frozen", UNLESS_FROZEN, facts=FREEZE),
    idle=task_type("idle"),
)


class World(task_worlds.World):
    """One whose journal can be held up."""

    def hold_up(self):
        """From now on nothing is written."""
        self.store.gate = asyncio.Event()
        self.store.writing.clear()

    def let_go(self):
        if self.store.gate is not None:
            self.store.gate.set()
            self.store.gate = None


async def turns(number=20):
    """Let others have their turn."""
    for _ in range(number):
        await asyncio.sleep(0)


async def outcome(task):
    """What became of something: its error, or None."""
    async with asyncio.timeout(20):
        (found,) = await asyncio.gather(task, return_exceptions=True)
    return found if isinstance(found, BaseException) else None


def check_journal(world, task):
    """The next start would read of a task what is true now."""
    record = task.record()
    assert (record.state, record.version) == world.store.rows[task.id]
    document = json.loads(world.store.documents[task.id])
    for name in ("grants", "suspensions", "reason", "deadline", "spent"):
        assert json.loads(json.dumps(record.document[name])) == document[name], name


async def opened(stack, types=TYPES):
    world = World(types)
    stack.callback(world.end_everything)
    writer = asyncio.ensure_future(world.engine.journal.run())

    async def stop():
        world.let_go()
        await world.quiet()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)

    stack.push_async_callback(stop)
    return world


@pytest.fixture
async def world(stack):
    return await opened(stack)


class TestApproving:
    async def test_ended_while_an_earlier_change_is_written(self, world):
        """What ends while its approval waits for the disk stays ended there: no later record says that it has begun."""
        task = await world.begin("asked")
        record = world.store.record

        async def decided(event):
            await record(event)
            world.hold_up()
            world.changing.take(task, READ_TICKETS, "holder")

        world.store.record = decided
        approving = asyncio.ensure_future(world.approve(task))
        async with asyncio.timeout(20):
            await world.store.writing.wait()
        await turns()
        world.engine.end(task, "revoked", "test")
        await turns()
        world.let_go()
        assert isinstance(await outcome(approving), TaskOver)
        await world.quiet()
        assert "revoked" == task.state
        check_journal(world, task)
        assert "task_begun" not in world.store.names

    async def test_ended_while_its_review_is_written(self, world):
        """Broken glass: what ends while the review that it owes is being written does not begin on disk."""
        task = await world.begin("glass")
        owed = world.review_store.save

        async def save(values, event):
            await owed(values, event)
            if event.event == "review_owed":
                await world.deny(task)  # on disk before the approval goes on

        world.review_store.save = save
        assert isinstance(await outcome(asyncio.ensure_future(world.approve(task))), TaskOver)
        await world.quiet()
        assert "revoked" == task.state
        check_journal(world, task)
        assert [] == world.reviews.all()
        assert "task_begun" not in world.store.names

    @pytest.mark.parametrize("name", ["asked", "glass"])
    async def test_too_late(self, world, name):
        """An approval whose time is up while it is written does not begin after a crash."""
        task = await world.begin(name)
        original = world.store.save

        async def save(record, event):
            await original(record, event)
            if event.event == "task_begun":
                world.clock.advance(61)  # and no alarm has rung

        world.store.save = save
        assert isinstance(await outcome(asyncio.ensure_future(world.approve(task))), TaskOver)
        await world.quiet()
        assert not task.live
        check_journal(world, task)


class TestResuming:
    async def test_narrowed_while_an_earlier_change_is_written(self, world):
        """What is given up while a resumption waits for the disk is given up on disk too."""
        task = await world.begin("idle")
        world.hold_up()
        world.changing.hold(task, OPERATOR, "test")
        await turns()
        resuming = asyncio.ensure_future(world.changing.resume(task, OPERATOR))
        await turns()
        narrowing = asyncio.ensure_future(world.changing.narrow(task, READ_TICKETS, "holder"))
        await turns()
        world.let_go()
        await outcome(resuming)
        assert await outcome(narrowing) is None
        await world.quiet()
        assert READ_TICKETS == task.authority
        check_journal(world, task)

    async def test_ended_while_an_earlier_change_is_written(self, world):
        """What ends while a resumption waits for the disk is over on disk too."""
        task = await world.begin("idle")
        world.hold_up()
        world.changing.hold(task, OPERATOR, "test")
        await turns()
        resuming = asyncio.ensure_future(world.changing.resume(task, OPERATOR))
        await turns()
        world.engine.end(task, "revoked", "test")
        world.let_go()
        assert isinstance(await outcome(resuming), TaskOver)
        await world.quiet()
        check_journal(world, task)

    async def test_whoever_resumes_goes_away(self, world):
        """A resumption that is under way is finished, whether or not the caller waits: memory and disk agree."""
        task = await world.begin("idle")
        await world.changing.suspend(task, OPERATOR, "test")
        world.hold_up()
        resuming = asyncio.ensure_future(world.changing.resume(task, OPERATOR))
        await world.store.writing.wait()
        resuming.cancel()
        await turns()
        world.let_go()
        await outcome(resuming)
        await world.quiet()
        await turns()
        check_journal(world, task)

    @pytest.mark.parametrize("waits", [False, True])
    async def test_suspended_again(self, world, waits):
        """Whoever suspends a task that is just being resumed has the last word."""
        task = await world.begin("idle")
        await world.changing.suspend(task, OPERATOR, "test")
        world.hold_up()
        if waits:  # for an earlier change
            world.changing.take(task, READ_TICKETS, "holder")
        resuming = asyncio.ensure_future(world.changing.resume(task, OPERATOR))
        await turns()
        suspending = asyncio.ensure_future(world.changing.suspend(task, OPERATOR, "again"))
        await turns()
        world.let_go()
        assert isinstance(await outcome(resuming), TaskOver)
        assert await outcome(suspending) is None
        assert ("suspended", "again") == (task.state, task.reason)
        await world.quiet()
        check_journal(world, task)
        await world.changing.resume(task, OPERATOR)
        assert "active" == task.state

    async def test_idle_for_too_long(self, stack):
        """A task that is over by the clock is not resumed, though no alarm has rung yet: as after the machine slept."""
        world = await opened(stack, TypeSet(idle=task_type("idle", idle_timeout='"60s"')))
        task = await world.begin("idle")
        await world.changing.suspend(task, OPERATOR, "test")
        world.clock.advance(100)
        with pytest.raises(TaskOver):
            await world.changing.resume(task, OPERATOR)
        assert ("expired", "idle") == (task.state, task.reason)

    async def test_reloaded_meanwhile(self, world):
        """A task that was suspended for its facts is not active by what an older policy said."""
        task = await world.begin("frozen")
        await world.say("freeze", True)
        assert [FACTS] == list(task.suspensions)
        world.fact_store.gate = asyncio.Event()
        world.fact_store.writing.clear()
        saying = asyncio.ensure_future(world.say("freeze", False))
        await world.fact_store.writing.wait()
        world.hold_up()
        world.fact_store.gate.set()
        await turns(50)  # the task is being resumed
        closed = '@id("closed") forbid (principal, action, resource) when { context.facts has freeze };' + PERMIT_ALL
        types = TypeSet({**world.engine.types, "frozen": task_type("frozen", closed, facts=FREEZE)})
        reloading = asyncio.ensure_future(world.reloading.apply(types))
        await turns(50)
        world.let_go()
        assert await outcome(saying) is None
        assert await outcome(reloading) is None
        await world.quiet()
        assert [FACTS] == list(task.suspensions)
        assert "suspended" == task.state
        check_journal(world, task)


class TestFacts:
    async def test_a_change_meanwhile_does_not_leave_it_behind(self, world):
        """A task is resumed after its fact although it is narrowed at that moment."""
        task = await world.begin("frozen")
        await world.say("freeze", True)
        original = world.store.save

        async def save(record, event):
            if event.event == "task_resumed" and "task_narrowed" not in world.store.names:
                world.changing.take(task, READ_TICKETS, "holder")
            await original(record, event)

        world.store.save = save
        await world.say("freeze", False)
        await world.quiet()
        assert ("active", READ_TICKETS) == (task.state, task.authority)
        check_journal(world, task)

    async def test_a_disk_that_was_full_does_not_leave_it_behind(self, world):
        """A task is resumed after its fact once the disk takes the record."""
        task = await world.begin("frozen")
        await world.say("freeze", True)
        original, times = world.store.save, 3

        async def save(record, event):
            nonlocal times
            if event.event == "task_resumed" and times:
                times -= 1
                raise StoreFailed("test")
            await original(record, event)

        world.store.save = save
        await world.say("freeze", False)
        await world.quiet()
        assert "active" == task.state
        check_journal(world, task)


class TestFamilies:
    async def test_a_child_is_not_left_behind(self, world):
        """A child follows its parent although it is changed while it is being resumed."""
        parent = await world.begin()
        child = await world.hand_on(parent, 0)
        await world.changing.suspend(parent, OPERATOR, "test")
        await world.quiet()
        assert [PARENT] == list(child.suspensions)
        original = world.store.save

        async def save(record, event):
            if record.id == child.id and event.event == "task_resumed" and "task_narrowed" not in world.store.names:
                world.changing.take(child, READ_TICKETS, "holder")
            await original(record, event)

        world.store.save = save
        await world.changing.resume(parent, OPERATOR)
        await world.quiet()
        assert ("active", READ_TICKETS) == (child.state, child.authority)
        check_journal(world, child)

    async def test_what_a_child_used_is_used(self, stack):
        """What a child used of the family's budget stays used when it has ended and the agent starts again."""
        world = await opened(stack, TypeSet(triage=handed_on(max_tokens="3")))
        root = await world.begin()
        middle = await world.hand_on(root, 0)
        child = await world.hand_on(middle, 1)
        for _ in range(3):
            await world.engine.token(child, TICKETS, ())
        await world.engine.complete(child, failed=False)
        await world.quiet()
        check_journal(world, root)


class TestEnded:
    async def test_a_reload_changes_nothing_that_it_ended(self, world):
        """A task that is idle too long by its new type is over, and its record is not touched again."""
        task = await world.begin("idle")
        world.clock.advance(100)
        narrower = task_type(
            "idle",
            '@id("few") permit (principal, action == Sojourn::Action::"ticket:read", resource);',
            idle_timeout='"60s"',
        )
        await world.reloading.apply(TypeSet({**world.engine.types, "idle": narrower}))
        await world.quiet()
        assert ("expired", "idle") == (task.state, task.reason)
        assert "task_narrowed" not in world.store.names
        assert 1 == world.store.names.count("task_ended")

    async def test_what_never_began_is_not_on_disk(self, world):
        """A task whose first record cannot be written leaves none, although it was suspended meanwhile."""
        world.hold_up()
        world.store.failure = StoreFailed("test")
        beginning = asyncio.ensure_future(world.begin("idle"))
        await world.store.writing.wait()
        (task,) = world.engine.tasks.all()
        world.changing.hold(task, OPERATOR, "test")
        gate = world.store.gate
        await turns()
        original = world.store.append

        async def append(events):
            if events[0].event != "task_begun":
                world.store.failure = None
            await original(events)

        world.store.append = append
        gate.set()
        assert isinstance(await outcome(beginning), StoreFailed)
        world.let_go()
        await world.quiet()
        assert not task.live
        state, _ = world.store.rows.get(task.id, ("revoked", 0))
        assert "revoked" == state
