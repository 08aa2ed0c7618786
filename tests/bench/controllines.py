"""The control map: how long an export of a million records takes with all its rows, and how much memory."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from evidencelines import FEW, RECORDS, decided, run_command
from fakes.signed_journals import started
from figures import Figure
from ground import Bench
from harness.agent import COMMAND
from sojourn.audit.journal import Event
from sojourn.evidence.decisions import inputs_of
from sojourn.jose.canonical_json import canonical, digest_of

_TOKENS = 8
_OF_A_TASK = _TOKENS + 2
_LIVE = 1_000  # tasks at once
_AT_MS = 1_795_993_404_000


# --- 76 ---


def controls(bench: Bench) -> Iterator[Figure]:
    count = RECORDS if bench.full else FEW
    with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as name:
        folder = Path(name)
        vkey = asyncio.run(_made(folder, count // _OF_A_TASK, bench))
        plain = [*COMMAND, "audit", "check", str(folder / "out"), "--key", vkey]
        turns = range(bench.effort.repetitions)
        without = [run_command(plain) for _ in turns]
        # Of the sets of task types that decided none is here, so that a row on them fails.
        rows = [run_command([*plain, "--controls"], statuses=(0, 1)) for _ in turns]
        records = f"{count:,} records of {count // _OF_A_TASK:,} tasks"
        yield Figure.of(f"{records} checked: time", "s", [each[0] for each in without])
        yield Figure.of(f"{records} checked, with all rows: time", "s", [each[0] for each in rows])
        yield Figure.of(f"{records} checked, with all rows: memory", "MiB", [each[1] for each in rows])


async def _made(folder: Path, tasks: int, bench: Bench) -> str:
    async with started(folder) as here:
        for done in range(0, tasks, _LIVE):
            lives = [_life(number) for number in range(done, min(tasks, done + _LIVE))]
            await here.journal.append([record for together in zip(*lives, strict=True) for record in together])
            assert await here.signed.settle()
            if done % 20_000 == 0:
                bench.say(f"{done * _OF_A_TASK:,} records")
        await here.export(folder / "out")
        return here.vkey


def _life(number: int) -> list[Event]:
    """The records of one task, which is live beside many others."""
    begun, token = (json.loads(decided(event, {}).fields) for event in ("task_begun", "token_issued"))
    task, at_ms = f"tsk_{number:022}", _AT_MS + number
    records = [_of(task, "task_begun", at_ms, begun)]
    for each in range(_TOKENS):
        seen = {"tokens_issued": each} if each else {}
        records.append(_of(task, "token_issued", at_ms, {**token, "jti": f"{number:020}{each:02}", "seen": seen}))
    ended = {name: begun[name] for name in ("type", "spiffe_id", "uid")}
    use = [{"resource": token["resource"], "action": each, "tokens": _TOKENS, "calls": 0} for each in token["actions"]]
    ended |= {"state": "completed", "reason": "success", "seconds": 1.5, "binding": "stream", "use": use}
    return [*records, Event(at_ms + 1_500, "task_ended", canonical({**ended, "task": task}))]


def _of(task: str, event: str, at_ms: int, fields: dict[str, object]) -> Event:
    params = {"ticket": "T-1001"}
    said = {**fields, "task": task}
    said["inputs"] = digest_of(inputs_of(said, params))
    return Event(at_ms, event, canonical(said))


CONTROL_LINES = ((76, "An exported journal, checked with the control map", controls),)
