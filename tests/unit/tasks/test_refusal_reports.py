"""tasks/refusal_reports.py: what services refused is counted with its task, and recorded within limits that nobody can pass."""

import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room
from fakes.task_types import TICKETS, task_type
from sojourn.limits import (
    REFUSAL_CODES,
    REFUSAL_KINDS_COUNTED,
    REFUSALS_RECORDED,
    REFUSALS_RECORDED_OF_TASK,
    REFUSALS_SHOWN,
)
from sojourn.tasks.refusal_reports import MINUTE_SECONDS, RefusalCounts
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from structlog.testing import capture_logs

SHOP, OTHER_SHOP = "spiffe://example.org/shop", "spiffe://example.org/other"
TRIED = Served.of("ticket:read", "GET", "/tickets/43")


class Heard(Room):
    """A room with what services refused."""

    def __init__(self, clock, types):
        super().__init__(clock, types)
        self.refusals = RefusalCounts(self.engine, self.audit, self.alarms, clock)

    def note(self, task, *, by=SHOP, code="wrong_params", request=TRIED, count=1):
        self.refusals.note(by, TICKETS, task, code, request, count)

    async def minute_over(self):
        self.clock.advance(MINUTE_SECONDS + 1)
        self.alarms.ring_due()
        await self.audit.flush()

    async def records(self, name="request_refused"):
        await self.audit.flush()
        return self.store.fields(name)


@pytest.fixture
async def room():
    async with Heard(FakeClock(), {"triage": task_type()}).running() as made:
        yield made


async def test_one(room, task):
    """One refused request is a record that says whose, where, what and why, and is told with its task."""
    room.note(task, count=3)
    (told,) = await room.records()
    said = {"task": task.id, **task.type.named}
    expected = {**said, "by": SHOP, "resource": TICKETS, "code": "wrong_params", "count": 3}
    assert expected | {"action": "ticket:read", "method": "GET", "target": "/tickets/43"} == {
        name: value for name, value in told.items() if name not in {"spiffe_id", "uid"}
    }
    tried = room.refusals.of(task.id)
    assert (3, [TRIED]) == (tried.count, [each.request for each in tried.last])


async def test_nothing(room, task):
    """Of a task of which nothing was refused nothing is told."""
    assert (0, []) == (room.refusals.of(task.id).count, list(room.refusals.of(task.id).last))


async def test_of_several_requests(room, task):
    """What is told of several requests together is counted, and no record of one."""
    room.note(task, request=NOTHING_SAID, count=992)
    assert [] == await room.records()
    await room.minute_over()
    (told,) = await room.records("refusals_counted")
    assert (task.id, 992, {"wrong_params": 992}) == (told["task"], told["count"], told["codes"])
    assert 992 == room.refusals.of(task.id).count


async def test_records_of_one_task(room, task):
    """A task has so many records a minute; more are one, and a warning in the log, which `sojourn status` shows. In the
    next minute there is room again.
    """
    for number in range(1_000):
        room.note(task, request=Served.of("ticket:read", "GET", f"/tickets/{number}"))
    assert REFUSALS_RECORDED_OF_TASK == len(await room.records())
    with capture_logs() as logged:
        await room.minute_over()
    assert [("warning", task.id)] == [
        (e["log_level"], e["task_id"]) for e in logged if e["event"] == "requests_refused"
    ]
    (told,) = await room.records("refusals_counted")
    assert 1_000 == told["count"] + REFUSALS_RECORDED_OF_TASK == room.refusals.of(task.id).count
    assert REFUSALS_SHOWN == len(room.refusals.of(task.id).last)
    room.note(task)
    assert REFUSALS_RECORDED_OF_TASK + 1 == len(await room.records())


async def test_records_of_one_workload(room):
    """A workload has so many records a minute for all that it tells of, and does not take those of others."""
    tasks = [await room.begin() for _ in range(2 * REFUSAL_KINDS_COUNTED)]
    for task in tasks:
        for _ in range(REFUSALS_RECORDED_OF_TASK):
            room.note(task)
    assert REFUSALS_RECORDED == len(await room.records())
    room.note(tasks[-1], by=OTHER_SHOP)
    assert OTHER_SHOP == (await room.records())[-1]["by"]
    await room.minute_over()
    counted = await room.records("refusals_counted")
    assert len(counted) <= REFUSAL_KINDS_COUNTED + 1
    told = sum(each["count"] for each in (*counted, *await room.records()))
    assert len(tasks) * REFUSALS_RECORDED_OF_TASK + 1 == told


async def test_without_a_task(room):
    """What came without a token of a task is a number, once a minute, and names nobody but who tells it."""
    for _ in range(50):
        room.refusals.count(SHOP, TICKETS, "no_token", 10)
    await room.minute_over()
    (told,) = await room.records("refusals_counted")
    assert {"by": SHOP, "resource": TICKETS, "count": 500, "codes": {"no_token": 500}} == told


@pytest.mark.parametrize("code", ["", "With Space", "x" * 41, "a\nb", "é"])
async def test_a_code_that_is_none(room, task, code):
    """Codes are words as ours are: of any other text none reaches a record or a metric."""
    heard = []
    room.refusals.on_refused(lambda *news: heard.append(news))
    room.note(task, code=code)
    assert ["other"] == [each["code"] for each in await room.records()]
    assert [("triage", "other", 1)] == heard


async def test_many_codes(room):
    """There are so many codes; those beyond are one."""
    heard = set()
    room.refusals.on_refused(lambda _, code, __: heard.add(code))
    for number in range(2 * REFUSAL_CODES):
        room.refusals.count(SHOP, TICKETS, f"code_{number}", 1)
    assert REFUSAL_CODES + 1 == len(heard)
    room.refusals.count(SHOP, TICKETS, "wrong_params", 1)
    assert "wrong_params" in heard  # nobody takes the place of what guards tell


async def test_at_the_end(room, task):
    """What was counted when the agent stops is recorded then."""
    room.note(task, request=NOTHING_SAID, count=7)
    room.refusals.finish()
    assert [7] == [each["count"] for each in await room.records("refusals_counted")]


async def test_what_is_remembered_is_bounded(room, monkeypatch):
    """Of so many tasks it is remembered what was refused; the one that was tried longest ago is forgotten."""
    monkeypatch.setattr(room.refusals._tried, "room", 2)
    tasks = [await room.begin() for _ in range(3)]
    for task in tasks:
        room.note(task)
    assert [0, 1, 1] == [room.refusals.of(task.id).count for task in tasks]
