"""audit/reads.py: who reads the journal is recorded, and does not fill it by reading."""

import json
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from sojourn.audit.journal import Audit
from sojourn.audit.reads import JournalReads
from sojourn.operating_limits import READS_TOLD
from sojourn.runtime.clock import Alarms

BY = {"by_uid": 0, "by_pid": 9}


class Room:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.store = FakeAuditStore()
        self.audit = Audit(self.store, clock)
        self.alarms = Alarms(clock)
        self.reads = JournalReads(self.audit, self.alarms)

    async def recorded(self) -> list[dict[str, Any]]:
        """What was recorded since the last look."""
        self.alarms.ring_due()
        await self.audit.flush()
        found = [json.loads(each.fields) for each in self.store.events]
        assert {"journal_read"} >= {each.event for each in self.store.events}
        self.store.events.clear()
        return found


@pytest.fixture
def room(clock: FakeClock) -> Room:
    return Room(clock)


async def test_the_first_read(room: Room) -> None:
    """A read is recorded at once: who, what for, and how many records they were given."""
    room.reads.tell(BY, {"type": "mail", "since_ms": 5}, 17)
    wanted = {"type": "mail", "since_ms": 5}
    assert [{**BY, "wanted": wanted, "count": 17, "reads": 1}] == await room.recorded()


async def test_many_reads(room: Room) -> None:
    """Further reads of one operator with one filter are recorded together, once a minute, whatever time they are of."""
    for second in range(150):
        room.reads.tell(BY, {"type": "mail", "since_ms": second}, 2)
        found = await room.recorded()
        assert len(found) == (1 if second in {0, 60, 120} else 0)
        if second == 60:
            assert (60 * 2, 60) == (found[0]["count"], found[0]["reads"])
        room.clock.advance(1)
    room.clock.advance(60)
    assert [29] == [each["reads"] for each in await room.recorded()]
    room.clock.advance(60)
    assert [] == await room.recorded()
    room.reads.tell(BY, {"type": "mail"}, 1)
    assert [1] == [each["reads"] for each in await room.recorded()]


async def test_others(room: Room) -> None:
    """Another operator, and another filter, has a record of their own."""
    for by, wanted in ((BY, {}), (BY, {"denied": True}), ({"by_uid": 5, "by_pid": 1}, {}), (BY, {})):
        room.reads.tell(by, wanted, 1)
    assert 3 == len(await room.recorded())


async def test_ever_other_filters(room: Room) -> None:
    """Whoever looks for ever other things does not fill the journal either: from some on they are counted together."""
    for number in range(READS_TOLD + 100):
        room.reads.tell(BY, {"task": f"tsk_{number}"}, 1)
    found = await room.recorded()
    assert READS_TOLD + 1 == len(found)
    room.clock.advance(60)
    assert [{**BY, "wanted": {"others": True}, "count": 99, "reads": 99}] == await room.recorded()
    room.clock.advance(60)
    await room.recorded()
    room.reads.tell(BY, {"task": "tsk_1"}, 1)
    assert [{"task": "tsk_1"}] == [each["wanted"] for each in await room.recorded()]


async def test_at_the_end(room: Room) -> None:
    """What was read and not recorded yet is recorded when the agent stops."""
    for _ in range(3):
        room.reads.tell(BY, {}, 4)
    await room.recorded()
    room.reads.finish()
    assert [(8, 2)] == [(each["count"], each["reads"]) for each in await room.recorded()]
    room.reads.finish()
    assert [] == await room.recorded()
