"""What is added up of the journal: how long a report of what was granted and used takes, and what counting costs."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fakes.databases import opened
from fakes.task_types import TICKETS, task_type
from figures import Figure
from ground import Bench
from sojourn.audit.journal import Event
from sojourn.jose.canonical_json import canonical
from sojourn.oversight.report import Asked, report
from sojourn.oversight.sums import DAY_MS, Window
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.usage import UsageTable

RECORDS, FEW = 1_000_000, 20_000
_TOGETHER = 2_000


# --- 74 ---

_FIRST_DAY, _DAYS, _TYPES, _WORKLOADS, _ACTIONS = 20_000, 90, 10, 5, 4
_KINDS = [task_type(f"type-{number}") for number in range(_TYPES)]


def usage(bench: Bench) -> Iterator[Figure]:
    count = (RECORDS if bench.full else FEW) // 3
    with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as name, opened(Path(name) / "sojourn.db") as database:
        counting, sums, recounted = asyncio.run(_usage(bench, database, count))
        records = f"{3 * count:,} records"
        yield Figure.of("counting: CPU a task of three records", "µs", [counting])
        yield Figure.of(f"what was used in {records}, from sums", "ms", sums)
        yield Figure.of(f"what was used in {records}, from the journal", "s", recounted)


async def _usage(bench: Bench, database: Database, count: int) -> tuple[float, list[float], list[float]]:
    """CPU of counting in microseconds a task, milliseconds from sums, and seconds from the journal."""
    journal = AuditTable(database)
    begun = time.process_time()
    for done in range(0, count, _TOGETHER // 3):
        await journal.append(_lives(range(done, min(count, done + _TOGETHER // 3)), count))
    without = time.process_time() - begun
    usage = UsageTable(database, journal)
    begun = time.process_time()
    await usage.flush()  # as after a kill: all of them are read again, which costs more than as they are written
    counting = time.process_time() - begun
    bench.say(f"{3 * count:,} records written with {without / count * 1e6:.0f} µs of CPU a task")
    window = Window(_FIRST_DAY, _FIRST_DAY + _DAYS)
    asked = Asked(_FIRST_DAY * DAY_MS, (_FIRST_DAY + _DAYS) * DAY_MS, 0)
    sums, recounted = [], []
    for _ in range(bench.effort.repetitions):
        begun = time.monotonic()
        by_sums = report(_KINDS, await usage.read(window), asked)
        sums.append((time.monotonic() - begun) * 1_000)
    for _ in range(bench.effort.repetitions if count <= FEW else 1):
        begun = time.monotonic()
        by_journal = report(_KINDS, await usage.recount(window, 0), asked)
        recounted.append(time.monotonic() - begun)
        if by_journal != by_sums or sum(each.tasks for each in by_sums) != count:
            raise RuntimeError("sums and journal do not say the same")
    return counting / count * 1e6, sums, recounted


def _lives(numbers: range, count: int) -> list[Event]:
    """The records of these tasks of all, spread over the days: each began, was given a token, and ended."""
    events = []
    for number in numbers:
        at_ms = _FIRST_DAY * DAY_MS + number * _DAYS * DAY_MS // count
        kind = _KINDS[number % _TYPES]
        named = {**kind.named, "spiffe_id": f"spiffe://example.org/w{number % _WORKLOADS}"}
        named |= {"task": f"tsk_{number:026}", "uid": 1000}
        action = f"ticket:{number % _ACTIONS}"
        decided = {"policies": ["all"], "policy_set": "0" * 64, "inputs": "0" * 64}
        use = [{"resource": TICKETS, "action": action, "tokens": 1, "calls": number % 2}]
        end = {"seconds": 1.5, "binding": "stream", "use": use, "spent": [1, number % 2], "state": "completed"}
        token = {"resource": TICKETS, "actions": [action], "jti": f"{number:032}", "expires_at": at_ms // 1_000}
        for name, fields in (("task_begun", decided), ("token_issued", decided | token), ("task_ended", end)):
            events.append(Event(at_ms, name, canonical(named | fields)))
    return events


USAGE_LINES = ((74, "What was granted against what was used, reported", usage),)
