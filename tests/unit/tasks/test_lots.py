"""lots.py: live tasks are found by type, workload, entry and process, and nothing is left of those that have gone."""

import pytest
from fakes.children import child, holder_of
from fakes.clock import FakeClock
from fakes.registrations import entry
from fakes.task_room import TRIAGE_ENTRY, Room
from fakes.task_types import TRIAGE, task_type

WEB_ENTRY = entry("/web")
BOTH = f'["{TRIAGE}", "{WEB_ENTRY.spiffe_id}"]'
TYPES = {"triage": task_type(allowed_workloads=BOTH), "other": task_type("other", allowed_workloads=BOTH)}


@pytest.fixture
async def room():
    async with Room(FakeClock(), TYPES).running() as room:
        yield room


async def test_found_by_each(room):
    """A task is found by each of what it has, in the order in which those that are alike began."""
    holder = room.add(child())
    one, two = await room.begin(), await room.begin()
    web = await room.begin(entries=(WEB_ENTRY,))
    other = await room.begin("other", holder=holder)
    tasks = room.engine.tasks
    assert [one, two, web, other] == tasks.all()
    assert ([one, two, web], [other]) == (tasks.of_type("triage"), tasks.of_type("other"))
    assert ([one, two], [web]) == (tasks.of_type("triage", TRIAGE), tasks.of_type("triage", str(WEB_ENTRY.spiffe_id)))
    assert [one, two, other] == tasks.of_entry(TRIAGE_ENTRY.id)
    assert ([one, two, web], [other]) == tuple(tasks.of_process(each.holder.key) for each in (one, other))
    assert ([], [], []) == (tasks.of_type("none"), tasks.of_entry("none"), tasks.of_process((0, 0)))


async def test_held_anew(room):
    """A task that another process holds by now is found by that one, and keeps its place among the others."""
    one, two = await room.begin(), await room.begin()
    tasks, before = room.engine.tasks, one.holder
    one.pass_to(room.holders.hold(holder_of(room.add(child())), room.peer.uid))
    before.release()
    tasks.held_anew(one)
    assert ([two], [one]) == (tasks.of_process(before.key), tasks.of_process(one.holder.key))
    assert [one, two] == tasks.all() == [tasks.find(each.id) for each in (one, two)]


async def test_nothing_is_left(room):
    """Once all have ended there is nothing left by which they were found."""
    for name in ("triage", "other", "triage"):
        await room.engine.complete(await room.begin(name), failed=False)
    live = room.engine.tasks._live
    assert ({}, {}, {}) == (live._of_task, live._lots, live._found_by)
