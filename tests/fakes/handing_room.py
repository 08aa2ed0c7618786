"""A task engine whose task types have a resource of a provider, and what hands its credentials out."""

import asyncio

import pytest
from fakes.clock import FakeClock
from fakes.providers import HandingRoom, ScriptedProvider
from fakes.task_room import Room
from fakes.task_types import TICKETS, task_type
from sojourn.credentials.token_source import TaskTokenSource
from sojourn.tasks.suspension import TaskChanges

ORDERS, CLOUD = "https://orders.example.org", "urn:example:cloud"
CEILING = (
    f'[{{resource = "{TICKETS}", actions = ["ticket:read"]}},'
    f' {{resource = "{ORDERS}", actions = ["orders:list", "orders:read"], provider = "corp",'
    ' ask = {audience = "orders"}},'
    f' {{resource = "{CLOUD}", actions = ["cloud:use"], provider = "cloud"}}]'
)
LIFE = 300  # of what `corp` gives, in seconds


def outside_type(name="triage", ceiling=CEILING, **changes):
    return task_type(name, ceiling=ceiling, params=None, **changes)


class OutsideRoom(Room):
    """`corp` is an OIDC provider, `cloud` one whose credentials are no OAuth tokens."""

    def __init__(self, types=None, *, seconds=None, clock=None, **room):
        clock = clock or FakeClock()
        super().__init__(clock, types or {"triage": outside_type()}, **room)
        self.corp = ScriptedProvider(clock, recall="revoke")
        self.cloud = ScriptedProvider(clock, token_type="N_A", issued_type="urn:example:keys")
        providers = {"corp": self.corp, "cloud": self.cloud}
        made = HandingRoom(self.engine, self.audit, providers, seconds=seconds)
        self.pauses, self.outlets, self.book, self.heard = made.pauses, made.outlets, made.book, made.heard
        self.asking, self.handing = made.asking, made.handing
        self.giving = TaskTokenSource(self.engine, self.handing)
        self.changing = TaskChanges(self.engine)

    async def give(self, task, resource=ORDERS, actions=(), **options):
        async with asyncio.timeout(20):
            return await self.handing.give(task, resource, actions, **options)

    async def quiet(self):
        """Return when no exchange is under way."""
        while self.handing._flights:
            await asyncio.wait(set(self.handing._flights._flights.values()))
            await asyncio.sleep(0)

    async def noted(self, name):
        """The fields of all audit records of this name."""
        await self.audit.flush()
        return self.store.fields(name)


async def started(provider, number=1):
    """Return when so many exchanges are under way."""
    async with asyncio.timeout(20):
        while provider.running < number:
            await asyncio.sleep(0)


@pytest.fixture(name="room")
async def room_fixture():
    async with OutsideRoom().running() as made:
        yield made


@pytest.fixture(name="task")
async def task_fixture(room):
    return await room.begin()
