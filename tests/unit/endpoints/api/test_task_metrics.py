"""endpoints/api/task_metrics.py: what becomes of tasks, counted by words of which there are few."""

import pytest
from fakes.task_room import Room
from fakes.task_types import task_type
from prometheus_client import REGISTRY
from sojourn.endpoints.api.task_metrics import TaskMetrics
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasks.use_reports import UseReports
from sojourn.tasktoken.end_reasons import REASONS

NAME = "sojourn_task_ends_total"


@pytest.fixture
async def room(clock):
    async with Room(clock, {"triage": task_type()}).running() as room:
        uses = UseReports(room.engine, clock)
        TaskMetrics(room.engine, room.audit, uses, RefusalCounts(room.engine, room.audit, room.alarms, clock))
        yield room


def counted(reason):
    return REGISTRY.get_sample_value(NAME, {"reason": reason})


@pytest.mark.parametrize("reason", sorted(REASONS))
async def test_reasons(room, reason):
    """An end is counted by its reason, if that is one of the agent's."""
    before = counted(reason) or 0
    room.engine.end(await room.begin(), "revoked", reason)
    assert before + 1 == counted(reason)


async def test_no_words_of_anybodys(room):
    """An end for what anybody else has written is counted as `other`: their words are no label."""
    before = counted("other") or 0
    room.engine.end(await room.begin(), "revoked", "ann@example.org is away")
    assert (before + 1, None) == (counted("other"), counted("ann@example.org is away"))
