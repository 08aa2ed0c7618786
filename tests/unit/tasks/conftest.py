"""What the tests of tasks share."""

import pytest
from fakes.clock import FakeClock
from fakes.families import FamilyRoom


@pytest.fixture
def make(stack):
    """Makes rooms of tasks that are handed on, whose journal is written."""

    async def made(kind=None):
        return await stack.enter_async_context(FamilyRoom(FakeClock(), kind).running())

    return made


@pytest.fixture
async def task(room):
    return await room.begin()
