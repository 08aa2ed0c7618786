"""Validators that hold many feeds, or do not read what they asked for: what that costs the agent, and others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room
from fakes.task_types import TICKETS, task_type
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.endpoints.api import validation as module
from sojourn.endpoints.api.validation import ValidationApi
from sojourn.errors import LimitExceeded
from sojourn.limits import FEEDS_PER_CALLER, STREAMS_WOKEN_AT_ONCE
from sojourn.oauth.resource_servers import Audiences

HOSTILE, HONEST = 61001, 61002
TASKS = 60
REQUEST = pb.WatchTasksRequest(audiences=[TICKETS])


class Standing:
    identities = ()

    async def check(self, *, anew: bool) -> None: ...
    def pushed(self) -> None: ...


class Everyone:
    """Callers that may all watch."""

    @asynccontextmanager
    async def standing(self, _call: object) -> AsyncIterator[Standing]:
        yield Standing()


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room(FakeClock(), {"triage": task_type()})
    yield made
    made.end_everything()


def api(room: Room) -> Any:
    callers: Any = Everyone()
    return ValidationApi(None, room.engine, Audiences(), room.clock, callers, None)  # type: ignore[arg-type]  # judges nothing


def feed(api: Any, who: int | str) -> Any:
    """A feed's messages, as its stream asks for them: for the next when it has sent the one before."""
    return api.watch_tasks(SimpleNamespace(visitor=SimpleNamespace(who=who)), REQUEST)


async def hear(messages: Any) -> pb.TaskFeed:
    async with asyncio.timeout(20):
        said = await anext(messages)
    return pb.TaskFeed.FromString(said) if isinstance(said, bytes) else said


class TestNotRead:
    async def test_snapshots(self, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is held of snapshots that a caller does not take is bounded, and counts against that caller alone."""
        await room.begin()
        async with aclosing(feed(api(room), HONEST)) as one:
            size = len(await anext(one))
        monkeypatch.setattr(module, "SNAPSHOTS_HELD_BYTES", 3 * size)
        tested = api(room)
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(aclosing(feed(tested, HOSTILE))) for _ in range(3)]
            for each in held:
                assert 1 == len((await hear(each)).snapshot.tasks)
            with pytest.raises(LimitExceeded, match="snapshots of tasks that it does not read"):
                await hear(feed(tested, HOSTILE))
            other = await stack.enter_async_context(aclosing(feed(tested, HONEST)))
            assert 1 == len((await hear(other)).snapshot.tasks)
            assert (await hear(held[0])).HasField("heartbeat")  # it has taken its snapshot
            again = await stack.enter_async_context(aclosing(feed(tested, HOSTILE)))
            assert 1 == len((await hear(again)).snapshot.tasks)

    async def test_feeds(self, room: Room) -> None:
        """A caller has so many feeds and no more, and others have theirs."""
        tested = api(room)
        async with AsyncExitStack() as stack:
            for _ in range(FEEDS_PER_CALLER):
                await hear(await stack.enter_async_context(aclosing(feed(tested, HOSTILE))))
            with pytest.raises(LimitExceeded, match="too many feeds"):
                await hear(feed(tested, HOSTILE))
            await hear(await stack.enter_async_context(aclosing(feed(tested, HONEST))))
        async with aclosing(feed(tested, HOSTILE)) as after:
            await hear(after)


class TestSnapshots:
    async def test_in_parts(self, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a snapshot is made others have their turn; what ends meanwhile is told as over behind it, if in it."""
        monkeypatch.setattr(module, "SNAPSHOT_TASKS_AT_ONCE", 10)
        tasks = [await room.begin() for _ in range(TASKS)]
        async with aclosing(feed(api(room), HONEST)) as messages:
            first = asyncio.create_task(hear(messages))
            for _ in range(3):
                await asyncio.sleep(0)
            assert not first.done()
            room.engine.end(tasks[0], "revoked", "admin")
            room.engine.end(tasks[-1], "revoked", "admin")
            late = await room.begin()
            live = {each.id: each.live for each in (await first).snapshot.tasks}
            assert {task.id for task in tasks[:-1]} == set(live)
            assert all(live.values())
            live.update((each.id, each.live) for each in (await hear(messages)).delta.tasks)
            assert {late.id, *(task.id for task in tasks[1:-1])} == {name for name, lives in live.items() if lives}

    async def test_in_messages(self, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
        """A snapshot of more tasks than a message takes comes in several parts, of which all but the last say
        that more follow: no task is missing.
        """
        monkeypatch.setattr(module, "SNAPSHOT_TASKS_PER_MESSAGE", 25)
        tasks = {(await room.begin()).id for _ in range(TASKS)}
        async with aclosing(feed(api(room), HONEST)) as messages:
            first, *others = parts = [await hear(messages) for _ in range(3)]
            assert (await hear(messages)).HasField("heartbeat")
        assert [(25, True), (25, True), (10, False)] == [
            (len(each.snapshot.tasks), each.snapshot.more) for each in parts
        ]
        assert tasks == {each.id for part in parts for each in part.snapshot.tasks if each.live}
        assert all(each.epoch == first.epoch for each in others)
        assert first.issuer
        assert first.keys
        assert others[-1].steady_seconds

    async def test_one_callers_in_turn(self, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of one caller one snapshot is made at a time; another caller's does not wait for those."""
        monkeypatch.setattr(module, "SNAPSHOT_TASKS_AT_ONCE", 10)
        for _ in range(TASKS):
            await room.begin()
        tested = api(room)
        feeds = [feed(tested, HOSTILE) for _ in range(10)]
        first = [asyncio.create_task(hear(each)) for each in feeds]
        last = feed(tested, HONEST)
        assert TASKS == len((await hear(last)).snapshot.tasks)
        assert 1 >= sum(each.done() for each in first)
        await asyncio.gather(*first)
        for each in (*feeds, last):
            await each.aclose()


class TestWoken:
    async def test_callers_in_turn(self, room: Room) -> None:
        """However many feeds one caller has, another hears of an end at once, and all of them do after a while."""
        task = await room.begin()
        with ExitStack() as stack:
            many = [stack.enter_context(room.engine.feed.watch([TICKETS], HOSTILE)) for _ in range(FEEDS_PER_CALLER)]
            one = stack.enter_context(room.engine.feed.watch([TICKETS], HONEST))
            room.engine.end(task, "revoked", "admin")
            assert one.changed.is_set()
            assert STREAMS_WOKEN_AT_ONCE - 1 == sum(each.changed.is_set() for each in many)
            for _ in range(FEEDS_PER_CALLER // STREAMS_WOKEN_AT_ONCE + 1):
                await asyncio.sleep(0)
            assert all(each.changed.is_set() for each in many)
            assert {(task.id, False)} == {(state.id, state.live) for each in (*many, one) for state in each.take()}

    async def test_before_those_that_still_wait(self, room: Room) -> None:
        """A second end reaches another caller at once too, while many feeds are still to be told of the first."""
        first, second = await room.begin(), await room.begin()
        with ExitStack() as stack:
            for _ in range(10 * STREAMS_WOKEN_AT_ONCE):
                stack.enter_context(room.engine.feed.watch([TICKETS], HOSTILE))
            one = stack.enter_context(room.engine.feed.watch([TICKETS], HONEST))
            room.engine.end(first, "revoked", "admin")
            assert [first.id] == [state.id for state in one.take()]
            room.engine.end(second, "revoked", "admin")
            await asyncio.sleep(0)  # the next turn
            assert one.changed.is_set()
            assert [second.id] == [state.id for state in one.take()]
