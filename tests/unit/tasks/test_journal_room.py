"""What tasks are refused while the journal is full, or nearly so by one workload; and what they are not."""

from collections.abc import AsyncIterator

import pytest
from fakes.clock import FakeClock
from fakes.delegations import W0
from fakes.engine_types import TYPES
from fakes.families import FamilyRoom
from fakes.task_room import Room
from fakes.task_types import TICKETS, TRIAGE
from sojourn.audit.journal_room import JournalRoom
from sojourn.errors import AuditFull, LimitExceeded
from sojourn.operating_limits import ROOM_FAIR_RECORDS


@pytest.fixture
async def room(clock: FakeClock) -> AsyncIterator[Room]:
    async with Room(clock, TYPES).running() as made:
        yield made


def journal_of(room: Room) -> JournalRoom:
    made = JournalRoom(room.clock)
    made.follow(room.audit.on_event)
    room.engine.check_recordable = made.check
    return made


async def test_full(room: Room) -> None:
    """While it is full no task begins and no token is given; a task ends, is suspended and is revoked all the same."""
    task, other = await room.begin(), await room.begin()
    journal = journal_of(room)
    journal.judge(1.0, full=True)
    with pytest.raises(AuditFull):
        await room.begin()
    with pytest.raises(AuditFull):
        await room.engine.token(task, TICKETS, ())
    assert (2, 0) == (len(room.engine.tasks), task.tokens_issued)
    await room.engine.complete(task, failed=False)
    await room.engine.revoke(other, "operator")
    assert 0 == len(room.engine.tasks)
    journal.judge(0.5, full=False)
    await room.engine.token(await room.begin(), TICKETS, ())


async def test_handed_on(make) -> None:  # type: ignore[no-untyped-def]
    """A ticket begins no task while it is full, and does once it is not: it is not used up."""
    room: FamilyRoom = await make()
    ticket = await room.ticket(await room.begin(), 0)
    journal = journal_of(room)
    journal.judge(1.0, full=True)
    with pytest.raises(AuditFull):
        await room.accept(ticket, 0)
    journal.judge(0.5, full=False)
    assert W0.spiffe_id == (await room.accept(ticket, 0)).spiffe_id


async def test_one_that_floods(room: Room) -> None:
    """A workload that causes most of the records is refused more of them, and holds its tasks."""
    task, journal = await room.begin(), journal_of(room)
    for _ in range(ROOM_FAIR_RECORDS):
        room.audit.note("x509_svid_issued", spiffe_id=TRIAGE)
    journal.judge(0.9, full=False)
    with pytest.raises(LimitExceeded):
        await room.engine.token(task, TICKETS, ())
    with pytest.raises(LimitExceeded):
        await room.begin()
    assert task.live
