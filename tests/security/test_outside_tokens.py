"""What a provider gives for one task is never given to another, in whatever order things happen."""

import asyncio
import random

import pytest
from fakes.handing_room import CLOUD, ORDERS, OutsideRoom, outside_type
from sojourn.errors import LimitExceeded, SojournError
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

pytestmark = pytest.mark.full

REQUESTS, TASKS = 10_000, 60
ACTIONS = ((), ("orders:read",), ("orders:list",), ("orders:list", "orders:read"))


class Ground:
    """Tasks that begin, ask, change and end, over a provider that answers late, in any order, and often not."""

    def __init__(self, room: OutsideRoom, chance: random.Random) -> None:
        self.room = room
        self.chance = chance
        self.tasks = []
        self.given = 0
        self.refused = 0
        self.waiting: list[asyncio.Event] = []
        inner = room.corp.exchange

        async def exchange(wanted, mint):
            turn = asyncio.Event()
            self.waiting.append(turn)
            await turn.wait()
            number = self.chance.random()
            if number < 0.05:
                raise ProviderUnavailable("down", sent=self.chance.random() < 0.5)
            if number < 0.1:
                raise ProviderRefused("no")
            return await inner(wanted, mint)

        room.corp.exchange = exchange

    async def begin(self) -> None:
        self.tasks.append(await self.room.begin())

    async def ask(self) -> None:
        """Ask for a credential of some task; what is given is that task's own, and was given while it lived."""
        task = self.chance.choice(self.tasks)
        resource, actions = (CLOUD, ()) if self.chance.random() < 0.1 else (ORDERS, self.chance.choice(ACTIONS))
        version = task.version
        try:
            given = await self.room.give(task, resource, actions)
        except SojournError:
            self.refused += 1
            return
        self.given += 1
        owner, at, what, _ = given.token.split("|")
        assert (task.id, task.id, resource) == (owner, given.task_id, at)
        assert tuple(what.split(",")) == given.actions
        assert not actions or actions == given.actions
        assert set(given.actions) <= set(task.authority.at(resource))
        assert (version, "active") == (task.version, task.state)
        assert given.expires_at <= task.expires_at

    async def change(self) -> None:
        """Let some task end, be suspended, come back, or lose a part of what it has; another one begins."""
        task = self.chance.choice(self.tasks)
        what = self.chance.randrange(5)
        if what == 0 and task.live:
            self.room.engine.end(task, "completed", "success")
            self.tasks.remove(task)
            await self.begin()
        elif what == 1 and task.live:
            self.room.changing.hold(task, OPERATOR, "test")
        elif what == 2 and OPERATOR in task.suspensions:
            await self.room.changing.resume(task, OPERATOR)
        elif what == 3 and task.state == "active":
            self.room.changing.take(task, task.authority.within(KEPT), "test")
        elif what == 4 and task.live:
            self.room.changing.supersede(task)

    def answer(self) -> None:
        """Let the provider answer one that waits, the last as likely as the first."""
        if self.waiting:
            self.waiting.pop(self.chance.randrange(len(self.waiting))).set()


KEPT = Authority((Grant(ORDERS, ("orders:read",)), Grant(CLOUD, ("cloud:use",))))


@pytest.mark.parametrize("seed", [1, 2])
async def test_ten_thousand_requests_of_many_tasks(seed):
    """Ten thousand requests of tasks that begin, change and end meanwhile: each is given its own task's or nothing."""
    async with OutsideRoom({"triage": outside_type()}).running() as room:
        ground = Ground(room, random.Random(seed))
        for _ in range(TASKS):
            await ground.begin()
        running: set[asyncio.Future] = set()
        for number in range(REQUESTS):
            running.add(asyncio.ensure_future(ground.ask()))
            if ground.chance.random() < 0.02:
                running.add(asyncio.ensure_future(ground.change()))
            if ground.chance.random() < 0.05:
                next(iter(running)).cancel()  # one that goes away
            for _ in range(ground.chance.randrange(3)):
                ground.answer()
                await asyncio.sleep(0)
            if number % 500 == 499:
                room.clock.advance(20)
            running = await reaped(running)
        while running:
            ground.answer()
            await asyncio.sleep(0)
            running = await reaped(running)
        assert ground.given > REQUESTS / 4
        assert ground.refused > REQUESTS / 100
        while room.handing._flights:
            ground.answer()
            await asyncio.sleep(0)


async def reaped(running):
    """Those that still run. What the others found is raised."""
    done = {each for each in running if each.done()}
    for each in done:
        if not each.cancelled():
            each.result()
    return running - done


async def test_one_task_does_not_take_the_room_of_others():
    """A task whose credentials are as many as it may have fails by itself; another one is given its own."""
    async with OutsideRoom().running() as room:
        greedy, other = await room.begin(), await room.begin()
        ask = room.book.ask

        async def full(task, *rest):
            if task is greedy:
                raise LimitExceeded("the task has too many credentials")
            return await ask(task, *rest)

        room.book.ask = full
        with pytest.raises(LimitExceeded):
            await room.give(greedy)
        assert (await room.give(other)).task_id == other.id
