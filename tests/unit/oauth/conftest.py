"""What the tests of the token service share."""

import pytest


@pytest.fixture
async def task(room):
    return await room.begin()
