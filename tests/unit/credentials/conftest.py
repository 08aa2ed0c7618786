"""What the tests of credentials that are taken back share."""

import pytest
from fakes.credentials import BOTH, CORP_TYPE, CascadeRoom, RecallingProvider
from fakes.task_room import Room


@pytest.fixture
async def room(clock):
    async with Room(clock, {"triage": CORP_TYPE}).running() as made:
        yield made


@pytest.fixture
def providers(clock):
    return {"corp": RecallingProvider(clock), "mute": RecallingProvider(clock, recall="none")}


@pytest.fixture
async def cascade(room, providers, tmp_path):
    async with CascadeRoom(room, providers, tmp_path).running() as made:
        yield made


@pytest.fixture
async def task(room):
    return await room.begin(wanted=BOTH)
