"""tasks/use_reports.py: what services say was used counts, also just after the end, and is on disk before they are answered."""

import asyncio
import json

import pytest
from fakes.clock import FakeClock
from fakes.task_room import DEADLINE_SECONDS, Room
from fakes.task_types import TICKETS, task_type
from sojourn.errors import InvalidToken, StoreFailed, TaskOver
from sojourn.limits import LATE_USE_RECORDS, TASK_USE_LATE_SECONDS
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.use_reports import UseReports
from sojourn.tasktoken.request_record import Served

READ = "ticket:read"


class Counting(Room):
    """A room in which uses are counted."""

    def __init__(self, clock, types):
        super().__init__(clock, types)
        self.uses = UseReports(self.engine, clock)

    async def token(self, task, actions=(READ,)):
        return await self.engine.token(task, TICKETS, actions)

    def written_calls(self, task):
        return json.loads(self.store.documents[task.id])["calls"]


@pytest.fixture
async def room():
    types = {"triage": task_type(), "thrifty": task_type("thrifty", max_reported_calls=3)}
    async with Counting(FakeClock(), types).running() as made:
        yield made


@pytest.fixture
async def token(room, task):
    return await room.token(task)


class TestLive:
    async def test_on_disk_when_it_is_answered(self, room, task, token):
        """What was counted of a task that lives outlives the agent, without a record of its own in the journal."""
        before = room.store.names
        assert room.uses.count(task, token, READ, 3)
        await room.uses.written()
        assert (3, before) == (room.written_calls(task), room.store.names)

    async def test_while_it_is_suspended(self, room, task, token):
        """Calls from before a suspension count; the task stays suspended, also on disk."""
        task.suspend("operator", "test")
        assert room.uses.count(task, token, READ, 1)
        await room.uses.written()
        assert (1, "suspended", 0) == (task.calls, task.state, room.written_calls(task))

    async def test_what_was_given_up_since(self, room, task):
        """Calls from before a task gave their action up count all the same."""
        token = await room.token(task, ("ticket:write",))
        task.authority = task.authority.__class__(
            tuple(grant.__class__(grant.resource, (READ,)) for grant in task.authority.grants[:1])
        )
        assert room.uses.count(task, token, "ticket:write", 2)
        assert 2 == task.calls

    async def test_the_one_too_many(self, room):
        """The call that spends the budget is counted and ends the task, and so counts once."""
        task = await room.begin("thrifty")
        token = await room.token(task)
        assert not room.uses.count(task, token, READ, 4)
        assert ("revoked", 4) == (task.state, task.calls)

    async def test_all_who_wait_are_on_disk(self, room, task, token):
        """Whoever is answered has its uses on disk, also those that another had begun to write."""
        room.store.gate = asyncio.Event()
        room.uses.count(task, token, READ, 1)
        writing = [asyncio.ensure_future(room.uses.written()) for _ in range(2)]
        await asyncio.wait(writing, timeout=0.05)
        assert not any(each.done() for each in writing)
        room.store.gate.set()
        await asyncio.wait_for(asyncio.gather(*writing), DEADLINE_SECONDS)
        assert 1 == room.written_calls(task)

    async def test_a_disk_that_fails(self, room, task, token):
        """What could not be written is said to whoever reports, and is written with the next report."""
        room.store.failure = StoreFailed("test")
        room.uses.count(task, token, READ, 1)
        with pytest.raises(StoreFailed):
            await room.uses.written()
        room.store.failure = None
        await room.uses.written()
        assert 1 == room.written_calls(task)


class TestLate:
    async def test_beside_the_end(self, room, task, token):
        """Calls that are told behind the end count, and a record with all of them stands behind that of the end."""
        room.uses.count(task, token, READ, 1)
        await room.engine.complete(task, failed=False)
        assert room.uses.count(task, token, READ, 2)
        await room.uses.written()
        assert ["task_ended", "task_used"] == room.store.names[-2:]
        (told,) = room.store.fields("task_used")
        assert (task.id, 3) == (told["task"], told["calls"])
        assert [3, 0] == [each["calls"] for each in told["use"] if each["resource"] == TICKETS]

    async def test_the_end_waits_for_nobody(self, room, task, token):
        """A task that ends has ended at once, whatever its services have still to tell."""
        room.engine.end(task, "revoked", "test")
        assert not task.live
        assert "revoked" == task.state
        assert room.uses.count(task, token, READ, 1)

    async def test_before_the_end_is_on_disk(self, room, task, token):
        """The record of late calls never stands before that of the end, however early they come."""
        room.store.gate = asyncio.Event()
        room.engine.end(task, "revoked", "test")
        room.uses.count(task, token, READ, 1)
        writing = asyncio.ensure_future(room.uses.written())
        await asyncio.sleep(0)
        room.store.gate.set()
        await asyncio.wait_for(writing, DEADLINE_SECONDS)
        assert ["task_ended", "task_used"] == room.store.names[-2:]

    async def test_too_late(self, room, task, token):
        """After TASK_USE_LATE_SECONDS nothing counts any more: services tell at once."""
        await room.engine.complete(task, failed=False)
        room.clock.advance(TASK_USE_LATE_SECONDS + 1)
        assert not room.uses.count(task, token, READ, 1)
        assert 0 == task.calls

    async def test_records_are_few(self, room, task, token):
        """However often something is told of a task that is over, so many records of it there are, and no more."""
        await room.engine.complete(task, failed=False)
        for _ in range(LATE_USE_RECORDS + 5):
            room.uses.count(task, token, READ, 1)
            await room.uses.written()
        assert LATE_USE_RECORDS == len(room.store.fields("task_used")) == task.calls

    async def test_of_many_who_tell_together(self, room, task, token):
        """Reports that come together share a record."""
        await room.engine.complete(task, failed=False)
        for _ in range(10):
            room.uses.count(task, token, READ, 1)
        await asyncio.gather(*(room.uses.written() for _ in range(10)))
        assert [10] == [each["calls"] for each in room.store.fields("task_used")]

    async def test_each_record_says_what_is_new(self, room, task, token):
        """A record of late calls says how many no record before it has: so whoever adds them up counts none twice."""
        room.uses.count(task, token, READ, 1)
        await room.engine.complete(task, failed=False)
        for calls in (2, 3):
            room.uses.count(task, token, READ, calls)
            await room.uses.written()
        assert [[[TICKETS, READ, 2]], [[TICKETS, READ, 3]]] == [each["late"] for each in room.store.fields("task_used")]

    async def test_what_could_not_be_written(self, room, task, token):
        """What a record that failed would have said is said by the next one."""
        await room.engine.complete(task, failed=False)
        room.store.failure = StoreFailed("test")
        room.uses.count(task, token, READ, 2)
        with pytest.raises(StoreFailed):
            await room.uses.written()
        room.store.failure = None
        room.uses.count(task, token, READ, 3)
        await room.uses.written()
        assert [[[TICKETS, READ, 5]]] == [each["late"] for each in room.store.fields("task_used")]

    async def test_what_was_given_up_on(self, room, task, token, monkeypatch):
        """A write that took too long and came to its end all the same is not written again by the next."""
        monkeypatch.setattr("sojourn.tasks.use_reports.USE_WRITE_SECONDS", 0.01)
        await room.engine.complete(task, failed=False)
        room.store.gate = asyncio.Event()
        room.uses.count(task, token, READ, 2)
        for _ in range(2):
            with pytest.raises(StoreFailed, match="could not be written yet"):
                await room.uses.written()
        room.uses.count(task, token, READ, 3)
        monkeypatch.setattr("sojourn.tasks.use_reports.USE_WRITE_SECONDS", DEADLINE_SECONDS)
        room.store.gate.set()
        await room.uses.written()
        assert [[[TICKETS, READ, 2]], [[TICKETS, READ, 3]]] == [each["late"] for each in room.store.fields("task_used")]

    async def test_what_is_remembered_is_bounded(self, room):
        """Tasks that ended long ago are not remembered for this."""
        for _ in range(3):
            await room.engine.complete(await room.begin(), failed=False)
            room.clock.advance(TASK_USE_LATE_SECONDS + 1)
        assert 1 == len(room.uses._over)


class TestFamily:
    async def test_late_calls_of_a_child(self, make):
        """Late calls of a task that was handed on are spent by the family, on disk as well; one too many ends the root."""
        room = await make(task_type(max_reported_calls=3, delegation='{to = ["spiffe://example.org/agent/w0"]}'))
        uses = UseReports(room.engine, room.clock)
        task = await room.begin()
        child = await room.hand_on(task, 0)
        token = await room.engine.token(child, TICKETS, (READ,))
        await room.engine.complete(child, failed=False)
        assert uses.count(child, token, READ, 3)
        await uses.written()
        spent = json.loads(room.store.documents[task.id])["spent"]
        assert (True, 1, 3) == (task.live, spent["tokens"], spent["calls"])
        assert uses.count(child, token, READ, 1)
        assert ("revoked", "budget") == (task.state, task.reason)


class TestServed:
    async def test_recorded(self, room):
        """What a request is, is on disk when the call returns, with the task's own values of what was compared."""
        task = await room.begin(params={"ticket": "42"})
        token = await room.token(task)
        said = Served.of(READ, "GET", "/tickets/42?key=secret", ["ticket", "unknown"])
        await room.uses.served(token, said)
        (told,) = room.store.fields("token_used")
        assert (task.id, READ, "GET", "/tickets/42?key", {"ticket": "42"}) == (
            told["task"],
            told["action"],
            told["method"],
            told["target"],
            told["params"],
        )
        assert "secret" not in json.dumps(told)

    async def test_what_nobody_checked(self, room):
        """What the service says its route does not have is on record as that, if the task has it at all."""
        task = await room.begin(params={"ticket": "42"})
        token = await room.token(task)
        await room.uses.served(token, Served.of(READ, "GET", "/tickets", [], ["ticket", "unknown"]))
        (told,) = room.store.fields("token_used")
        assert ({}, ["ticket"]) == (told["params"], told["unchecked"])

    async def test_kept_out_of_the_journal(self, clock):
        """Of a parameter that its type keeps out of the journal the record of a request has no value either."""
        hidden = task_type(params='{ticket = {type = "string", in_journal = false}}')
        async with Counting(clock, TypeSet(triage=hidden)).running() as room:
            token = await room.token(await room.begin(params={"ticket": "T-42"}))
            await room.uses.served(token, Served.of(READ, "GET", "/tickets", ["ticket"]))
            (told,) = room.store.fields("token_used")
            assert {"hmac"} == set(told["params"]["ticket"])
            assert "T-42" not in " ".join(each.fields for each in room.store.events)

    async def test_a_disk_that_fails(self, room, token):
        """If it cannot be written nothing is served for it."""
        room.store.failure = StoreFailed("test")
        with pytest.raises(StoreFailed):
            await room.uses.served(token, Served())

    async def test_of_a_task_that_ends_meanwhile(self, room, task, token):
        """A task that ends while the record is written lets nothing more through, and its end does not wait for that."""
        room.store.gate = asyncio.Event()
        serving = asyncio.ensure_future(room.uses.served(token, Served()))
        await asyncio.wait_for(room.store.writing.wait(), DEADLINE_SECONDS)
        room.engine.end(task, "revoked", "test")
        assert not task.live
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await asyncio.wait_for(serving, DEADLINE_SECONDS)

    async def test_of_a_task_that_is_forgotten(self, room, task, token):
        """Of a task that the agent does not know nothing is served."""
        room.engine.forget(task)
        with pytest.raises(InvalidToken):
            await room.uses.served(token, Served())
