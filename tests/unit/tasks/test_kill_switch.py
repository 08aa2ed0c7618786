"""kill_switch.py: what is switched off while the disk takes nothing is off, and is written behind it."""

import asyncio

import pytest
from fakes.blocks import KeptBlocks
from fakes.engine_types import TYPES
from fakes.task_room import Room
from harness.looking import WAIT_SECONDS
from sojourn.errors import AlreadyExists, StoreFull
from sojourn.errors.oauth import NotOnDisk
from sojourn.tasks.kill_switch import RETRY_SECONDS, KillSwitch

OFF = ("type", "triage")
BY = {"by_uid": 0}


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as made:
        made.blocks = KeptBlocks()
        made.blocks.failure = StoreFull("the disk is full")
        made.switch = KillSwitch(made.engine, made.blocks, made.audit, clock, made.alarms)
        yield made


def off(store):
    return [each.name for each in store.kept]


class TestFullDisk:
    async def test_it_is_off(self, room):
        """What lives of it ends and none begins, though the disk takes nothing; the operator hears that it does not."""
        task = await room.begin()
        with pytest.raises(NotOnDisk, match="not on disk yet: the disk is full"):
            await room.switch.switch_off(*OFF, "incident", BY)
        assert not task.live
        assert ["triage"] == [each.name for each in room.engine.blocks.all()]

    async def test_written_behind(self, room, clock, capsys):
        """It is written without another word once the disk takes it, with its record, and once. Each try is logged."""
        with pytest.raises(NotOnDisk):
            await room.switch.switch_off(*OFF, "incident", BY)
        clock.advance(RETRY_SECONDS)
        room.alarms.ring_due()
        await room.switch.close()
        assert "blocks_not_written" in capsys.readouterr().out
        room.blocks.failure = None
        clock.advance(RETRY_SECONDS)
        room.alarms.ring_due()
        async with asyncio.timeout(WAIT_SECONDS):
            await room.switch.close()
        assert (["triage"], ["tasks_blocked"], 1) == (off(room.blocks), room.blocks.events, room.blocks.writes)
        with pytest.raises(AlreadyExists):
            await room.switch.switch_off(*OFF, "incident", BY)

    async def test_at_the_stop(self, room):
        """An agent that stops writes it then."""
        with pytest.raises(NotOnDisk):
            await room.switch.switch_off(*OFF, "incident", BY)
        room.blocks.failure = None
        await room.switch.close()
        assert ["triage"] == off(room.blocks)

    async def test_again(self, room):
        """Whoever switches it off once more hears whether it is on disk by then, and there is one record of it."""
        for _ in range(3):
            with pytest.raises(NotOnDisk):
                await room.switch.switch_off(*OFF, "incident", BY)
        room.blocks.failure = None
        assert () == await room.switch.switch_off(*OFF, "incident", BY)
        assert (["triage"], ["tasks_blocked"]) == (off(room.blocks), room.blocks.events)

    async def test_on_again(self, room):
        """What is switched on again before it was written has both records; while the disk takes nothing it stays off."""
        with pytest.raises(NotOnDisk):
            await room.switch.switch_off(*OFF, "incident", BY)
        with pytest.raises(StoreFull):
            await room.switch.switch_on(*OFF, BY)
        room.blocks.failure = None
        await room.switch.switch_on(*OFF, BY)
        assert ([], ["tasks_blocked", "tasks_unblocked"]) == (off(room.blocks), room.blocks.events)
