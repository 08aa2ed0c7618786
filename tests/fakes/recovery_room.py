"""Tasks of an earlier run and the run that comes after it, how tasks have ended, and documents that are damaged."""

import json

import pytest
from fakes.next_run import NextRun
from fakes.task_room import TRIAGE_ENTRY, Room
from fakes.task_types import task_type

ENTRIES = (TRIAGE_ENTRY,)
TYPES = {
    "triage": task_type(),
    "idle": task_type("idle", idle_timeout='"60s"'),
    "once": task_type(
        "once",
        '@id("wiki") permit (principal, action, resource == Sojourn::Resource::"https://wiki.example.org");'
        '@id("once") permit (principal, action, resource) when { principal.tokens_issued < 1 };',
    ),
    "spare": task_type("spare", max_tokens="2"),
    "untouched": task_type(
        "untouched", '@id("untouched") permit (principal, action, resource) when { principal.tokens_issued < 1 };'
    ),
}


def ends(store):
    return [(each["state"], each["reason"]) for each in store.fields("task_ended")]


def damage(store, task, **changes):
    store.documents[task.id] = json.dumps({**json.loads(store.documents[task.id]), **changes}).encode()


@pytest.fixture(name="room")
async def room_fixture(clock, stack):
    return await stack.enter_async_context(Room(clock, TYPES).running())


@pytest.fixture(name="restart")
def restart_fixture(room, stack):
    """Kill the agent, as it were, and start it again."""

    async def run(**changes):
        return await NextRun.after(room, stack, **changes)

    return run
