"""Many people's tasks in one process, used in whatever order: nobody's use reaches what is another's."""

import asyncio
from random import Random

import pytest
from fakes.persons import CORP, for_people, person
from fakes.task_room import Room
from fakes.task_types import TICKETS
from sojourn.errors import TaskOver
from sojourn.errors.people import PersonRefused
from sojourn.policy.task_types import TypeSet
from sojourn.tasks.people import check_expected
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasks.suspension import TaskChanges

STEPS, AT_ONCE = 10_000, 20
NAMES = [f"user-{number}" for number in range(12)]
KIND = for_people("for-many", several="true", max_live="1000")


@pytest.mark.full
async def test_interleaved(clock):
    """Of ten thousand beginnings, uses and ends in random order, twenty under way at any time, each use for the task's
    own person gives a token for that one, and each for another gives nothing.
    """
    chance = Random(5)
    async with Room(clock, TypeSet({"for-many": KIND})).running() as room:
        tasks = [await room.begin("for-many", person=person(name)) for name in NAMES]
        given, refused = [], 0

        async def step():
            nonlocal refused
            number, name = chance.randrange(len(tasks)), chance.choice(NAMES)
            task, what = tasks[number], chance.random()
            if what < 0.1:
                tasks[number] = await room.begin("for-many", person=person(name))
                if task.live:
                    room.engine.end(task, "completed", "success")
                return
            await asyncio.sleep(0)
            try:
                check_expected(task, f"corp|{name}")
            except PersonRefused:
                assert name != task.person.subject
                refused += 1
                return
            if task.live:
                token = await room.engine.token(task, TICKETS, ())
                assert (CORP, name) == token.person[:2]
                given.append(token)

        for _ in range(STEPS // AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(_unless_over(step()))
        assert len(given) > 250
        assert refused > 2_500
        for name in NAMES:
            assert {name} >= {each.person.subject for each in room.engine.tasks.people.of_person(CORP, name)}


async def _unless_over(step):
    """A task may be ended by another step while a token of it is made."""
    try:
        await step
    except TaskOver:
        return


@pytest.mark.parametrize("changed", [("for-many", "for-others"), ("for-many",)], ids=["both", "one"])
async def test_types_that_do_not_let_it_any_more(clock, stack, changed):
    """Types by which one process has tasks for several people no more end those that it has: nobody need say any more
    for whom a use is.
    """
    many = {name: for_people(name, several="true") for name in ("for-many", "for-others")}
    room = await stack.enter_async_context(Room(clock, TypeSet(many)).running())
    tasks = [await room.begin(name, person=person(who)) for name, who in (("for-many", "alice"), ("for-others", "bob"))]
    alone = await room.begin("for-others", person=person("bob"))
    reloading = PolicyReload(room.engine, TaskChanges(room.engine))
    types = TypeSet({**many, **{name: for_people(name) for name in changed}})
    told = {each.task.id: each.outcome for each in reloading.consequences(types)}
    await reloading.apply(types)
    ended = {task.id for task in (*tasks, alone) if (task.state, task.reason) == ("revoked", "policy_changed")}
    assert ended == {name for name, outcome in told.items() if outcome == "end"}
    assert ended == {task.id for task in (*tasks, alone) if task.type.name in changed}


async def test_types_that_change_for_one_person(clock, stack):
    """A process that has tasks for one person alone keeps them, whatever its type lets others have."""
    room = await stack.enter_async_context(
        Room(clock, TypeSet({"for-many": for_people("for-many", several="true")})).running()
    )
    tasks = [await room.begin("for-many", person=person("alice")) for _ in range(2)]
    await PolicyReload(room.engine, TaskChanges(room.engine)).apply(TypeSet({"for-many": for_people("for-many")}))
    assert ["active"] * 2 == [task.state for task in tasks]
