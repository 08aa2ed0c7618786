"""What a task of one token weighs, and a person whom it is for: there may be LIVE_TASKS of them, and ENDED_TASKS_KEPT
that are over.
"""

import asyncio
import gc
import json
import tracemalloc

import pytest
from fakes.granting_room import TICKETS, Room
from fakes.people import PeopleIssuer
from fakes.persons import CORP, for_people, issuer_rules
from fakes.task_room import Room as PeopleRoom
from fakes.task_room import end_all, writing
from fakes.task_types import task_type
from sojourn.jose.signatures import Signatures
from sojourn.people.claims import read_person
from sojourn.people.token_kind import ID_TOKEN
from sojourn.policy.task_types import TypeSet
from sojourn.runtime.clock import SystemClock
from sojourn.tasks.people import digest_of
from sojourn.tasks.spent import NOTHING
from sojourn.tasktoken.grants import Grant

TASKS = 1_300  # of so many tables are nearly full, as they are of 40,000
LIVE_BYTES, ENDED_BYTES = 512, 640  # with their places in the tables
TASKS_BY_EACH, PERSON_BYTES = 10, 448


@pytest.fixture
def room(tmp_path, monkeypatch):
    room = Room(tmp_path, clock=SystemClock())  # whose times are others for each task
    room.engine.issuing.signatures = Signatures(1)  # what is kept of tokens is weighed elsewhere
    monkeypatch.setattr(room.store, "record", _written)
    monkeypatch.setattr(room.store, "save", _written)
    yield room
    end_all(room.engine)
    room._closing.close()


async def _written(*_):
    await asyncio.sleep(0)


async def one(room, subject):
    token = await room.exchange(subject, resource=TICKETS, scope="ticket:read")
    return room.engine.tasks.find(token.task_id)


def held():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.full
async def test_weight(room):
    """A living task of one token takes half a KiB at most, and one that is over little more."""
    subject = room.subject()
    async with writing(room.engine):
        for _ in range(20):
            await one(room, subject)
        tracemalloc.start()
        try:
            before = held()
            tasks = [await one(room, subject) for _ in range(TASKS)]
            assert held() - before < TASKS * LIVE_BYTES
            for task in tasks:
                room.engine.end(task, "expired", "deadline")
            await room.engine.journal.drain()
            assert held() - before < TASKS * ENDED_BYTES
        finally:
            tracemalloc.stop()


@pytest.mark.full
async def test_weight_of_a_person(clock):
    """That a living task is for a person takes less than half a KiB, where each token began ten tasks."""
    issuer = PeopleIssuer(clock.now().timestamp(), url=CORP)

    def shown(number):
        """Somebody, with claims of their own, as they are read of each token anew."""
        subject = f"8a1c7a30-5a8e-4f6e-9d0f-{number:012}"
        claims = json.loads(json.dumps(issuer.id_claims(sub=subject, sid=f"session-of-{subject}")))
        return {"person": read_person(claims, issuer_rules(), ID_TOKEN, issuer.at), "person_token": digest_of(subject)}

    for_nobody = await weight_of_many(clock, task_type(params=None), lambda _: {})
    for_people_each = await weight_of_many(clock, for_people("triage", several="true", max_live="10"), shown)
    assert for_people_each - for_nobody < PERSON_BYTES


async def weight_of_many(clock, kind, whom):
    """The bytes of a task of this type, of TASKS that live; `whom` has what the tasks of each ten are begun with."""
    async with PeopleRoom(clock, TypeSet({"triage": kind})).running() as room:
        room.store.save = room.store.record = _written
        await room.begin(**whom(0))
        tracemalloc.start()
        try:
            before = held()
            for number in range(TASKS):
                await room.begin(**whom(1 + number // TASKS_BY_EACH))
            return (held() - before) / TASKS
        finally:
            tracemalloc.stop()


async def test_shared_until_changed(room):
    """Tasks share what is alike of them, and what changes of one changes of no other."""
    subject = room.subject()
    first, second = await one(room, subject), await one(room, subject)
    assert first.uses is second.uses
    assert first.svids is second.svids
    assert first.authority is second.authority
    first.count_token(Grant(TICKETS, ("ticket:read",)))
    first.count_calls(TICKETS, "ticket:read", 3)
    first.suspend("a", "for a")
    rows = [[(row["tokens"], row["calls"]) for row in task.usage()] for task in (first, second)]
    assert [[(2, 3)], [(1, 0)]] == rows
    assert ({"a": "for a"}, {}) == (first.suspensions, second.suspensions)
    assert first.resume("a")
    assert {} == first.suspensions


async def test_other_evidence(room):
    """A task that is due to one SVID more is due to both, and others that began by the first to that alone."""
    subject = room.subject()
    first, second = await one(room, subject), await one(room, subject)
    more = await room.exchange(room.subject(), resource=TICKETS, task_id=first.id)
    assert first.id == more.task_id
    assert [2, 1] == [len(first.svids), len(second.svids)]


async def test_over(room):
    """A task that is over still says what it was and what was made of it, and holds nothing that it lived by."""
    async with writing(room.engine):
        task = await one(room, room.subject())
        pid = task.holder.pid
        room.engine.end(task, "revoked", "admin")
        await room.engine.journal.drain()
    assert (("revoked", "admin", pid), [1]) == (
        (task.state, task.reason, task.holder.pid),
        [row["tokens"] for row in task.usage()],
    )
    assert ((), None, NOTHING) == (task.alarms, task.heir, task.svids)
