"""task_messages.py: a task as the message that tells of it."""

from types import SimpleNamespace

import pytest
from fakes.task_room import Room
from fakes.task_types import TICKETS, task_type
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn.endpoints.api.task_messages import TaskMessages
from sojourn.tasks.kept_fields import FIELDS, told_of

message = TaskMessages(SimpleNamespace(described=lambda _task: ()))
TOLD = [each.member for each in FIELDS if each.told is not None]


@pytest.fixture
async def task(clock):
    kind = task_type(params='{ticket = "string", level = "long"}')
    async with Room(clock, {"triage": kind}).running() as room:
        task = await room.begin(params={"ticket": "T-1", "level": "42"})
        await room.engine.token(task, TICKETS, ())
        yield task


async def test_kept_fields(task):
    """What is kept of a task, as far as it is told, is told as it is: times in seconds, parameters as text."""
    made = message(task)
    assert (str(task.spiffe_id), {"ticket": "T-1", "level": "42"}) == (made.spiffe_id, dict(made.params))
    assert (int(task.created_at.timestamp()), int(task.expires_at.timestamp())) == (made.created_at, made.expires_at)
    assert [(each.resource, each.actions) for each in task.authority.grants] == [
        (each.resource, tuple(each.actions)) for each in made.grants
    ]
    assert (1, 0, "") == (made.tokens_issued, made.calls, made.parent_id)


@pytest.mark.parametrize("name", TOLD)
async def test_each_of_them(task, name):
    """Each kept field that is to be told stands in the message, and nothing else of the message depends on it."""
    value = told_of(task)[name]
    other, made = pb.Task(**{name: value}), message(task)
    for field in pb.Task.DESCRIPTOR.fields:
        if field.name != name:
            made.ClearField(field.name)
    assert other == made
