"""The journal: what signing and indexing cost, how long a stranger takes to check an export, and a search."""

import asyncio
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fakes.databases import opened
from fakes.signed_journals import SignedJournal, started
from figures import Figure
from ground import Bench
from harness.agent import COMMAND
from harness.clients import built
from sojourn.audit.journal import Event
from sojourn.evidence.check import check_proof
from sojourn.evidence.decisions import inputs_of
from sojourn.jose.canonical_json import canonical, digest_of
from sojourn.store.audit import AuditTable
from sojourn.store.audit_index import BLOCK, AuditIndex
from sojourn.store.audit_pages import AuditPages, AuditQuery
from sojourn.tlog.notes import VerifierKey

RECORDS, FEW = 1_000_000, 20_000
PROOFS = SEARCHES = 20
_PAGE = 100
_TOGETHER = 2_000
_LOOK_SECONDS = 0.02
_AT_MS = 1_795_993_404_000
_TASK = {
    "policies": ["all"],
    "policy_set": "6521fade0245de3cf6956d0f0bf8aecbebbc530b98a790fd6e0923bd7a539fc3",
    "spiffe_id": "spiffe://example.org/agent/triage",
    "task": "tsk_0123456789abcdef012345",
    "type": "triage-ticket",
    "uid": 1000,
}
_PARAMS = {"ticket": "T-1001"}
_TOKEN = {
    "actions": ["ticket:read"],
    "expires_at": 1_795_993_464,
    "jti": "0123456789abcdef012345",
    "resource": "https://tickets.example.org",
}
_GRANTS = [{"resource": _TOKEN["resource"], "actions": _TOKEN["actions"]}]


# --- 71 ---


def evidence(bench: Bench) -> Iterator[Figure]:
    count = RECORDS if bench.full else FEW
    with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as name:
        folder = Path(name)
        signing, proving, proved, vkey = asyncio.run(_made(folder, count, bench))
        yield Figure.of("signing: CPU a record", "µs", [signing])
        yield Figure.of("an inclusion proof, made", "ms", proving)
        yield Figure.of("an inclusion proof, checked", "ms", proved)
        turns = range(bench.effort.repetitions)
        ours = [run_command([*COMMAND, "audit", "check", str(folder / "out"), "--key", vkey]) for _ in turns]
        go = [run_command([str(built("go")), "audit", "-path", str(folder / "out"), "-key", vkey]) for _ in turns]
        yield Figure.of(f"{count:,} records checked: time", "s", [each[0] for each in ours])
        yield Figure.of(f"{count:,} records checked: memory", "MiB", [each[1] for each in ours])
        yield Figure.of(f"{count:,} records checked by the client in Go: time", "s", [each[0] for each in go])


async def _made(folder: Path, count: int, bench: Bench) -> tuple[float, list[float], list[float], str]:
    async with started(folder) as here:
        await here.journal.append([decided("task_begun", {})])
        events = [decided("token_issued", {})] * _TOGETHER
        signing = 0.0
        for done in range(0, count, _TOGETHER):
            await here.journal.append(events)
            begun = time.process_time()
            assert await here.signed.settle()
            signing += time.process_time() - begun
            if done % 200_000 == 0:
                bench.say(f"{done:,} records")
        proving, proved = await _proofs(here, count)
        await here.export(folder / "out")
        return signing / count * 1e6, proving, proved, here.vkey


def decided(event: str, seen: dict[str, Any]) -> Event:
    """A record as a real decision has it: the beginning of a task, or a token of it."""
    more = {"grants": _GRANTS, "params": _PARAMS} if event == "task_begun" else _TOKEN
    fields = {**_TASK, **more, "seen": seen}
    return Event(_AT_MS, event, canonical({**fields, "inputs": digest_of(inputs_of(fields, _PARAMS))}))


async def _proofs(here: SignedJournal, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds."""
    made, checked = [], []
    for each in range(PROOFS):
        begun = time.monotonic()
        proof = str(await here.signed.prove(1 + each * (count // PROOFS))).encode()
        made.append((time.monotonic() - begun) * 1000)
        begun = time.monotonic()
        assert check_proof(proof, [VerifierKey.parse(here.vkey)]).good
        checked.append((time.monotonic() - begun) * 1000)
    return made, checked


def run_command(argv: Sequence[str], statuses: Sequence[int] = (0,)) -> tuple[float, float]:
    """Seconds, and MiB at the most."""
    begun, most = time.monotonic(), 0.0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdout=said, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            most = max(most, _peak_mib(process.pid))
            time.sleep(_LOOK_SECONDS)
    if process.returncode not in statuses:
        raise RuntimeError("what was exported is not good")
    return time.monotonic() - begun, most


def _peak_mib(pid: int) -> float:
    """Of the program that runs there: what the kernel tells afterwards counts the process that began it, too."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


# --- 72 ---


def search(bench: Bench) -> Iterator[Figure]:
    count = RECORDS if bench.full else FEW
    with tempfile.TemporaryDirectory(prefix="sojourn-bench-") as name:
        yield from asyncio.run(_searched(Path(name) / "sojourn.db", count, bench))


async def _searched(path: Path, count: int, bench: Bench) -> list[Figure]:
    with opened(path) as database:
        journal, pages, index = AuditTable(database), AuditPages(database), AuditIndex(database)
        for done in range(0, count, _TOGETHER):
            await journal.append([_of_a_task(number) for number in range(done, done + _TOGETHER)])
            if done % 200_000 == 0:
                bench.say(f"{done:,} records")
        before, begun, blocks = await journal.size(), time.process_time(), 0
        while await index.step():
            blocks += 1
        indexing = (time.process_time() - begun) / (blocks * BLOCK) * 1e6
        took = (await journal.size() - before) / before * 100
        found = [
            Figure.of("indexing: CPU a record", "µs", [indexing]),
            Figure.of("the index, to its records", "%", [took]),
        ]
        for what, wanted in _wanted(count).items():
            times = [await _milliseconds(pages, wanted) for _ in range(SEARCHES)]
            found.append(Figure.of(f"a page of {_PAGE} among {count:,} records, {what}", "ms", times))
        return found


def _of_a_task(number: int) -> Event:
    """As long as a record of a token, and of a task of its own; some few are refusals of another user."""
    rare = number % (FEW // 4) == FEW // 8
    fields = decided("token_issued", {}).fields.replace(str(_TASK["task"]), f"tsk_{number:022}")
    fields = fields.replace("triage-ticket", f"type-{number % 9}")
    fields = fields.replace("agent/triage", f"agent/triage-{number % 97}")
    event = "token_denied" if rare else "token_issued"
    return Event(1_795_993_404_000 + number, event, fields.replace('"uid":1000', '"uid":4999') if rare else fields)


def _wanted(count: int) -> dict[str, AuditQuery]:
    middle = 1_795_993_404_000 + count // 2
    return {
        "all": AuditQuery(),
        "of a task": AuditQuery(task=f"tsk_{count // 3:022}"),
        "of no task": AuditQuery(task="tsk_" + "x" * 22),
        "of a workload": AuditQuery(workload="spiffe://example.org/agent/triage-7"),
        "of a workload and a type that it has not": AuditQuery(
            workload="spiffe://example.org/agent/triage-7", type="type-none"
        ),
        "refused": AuditQuery(denied=True),
        "by a uid, refused": AuditQuery(by="4999", denied=True),
        "of a type, in a second": AuditQuery(type="type-3", since_ms=middle, until_ms=middle + 1_000),
    }


async def _milliseconds(pages: AuditPages, wanted: AuditQuery) -> float:
    """The newest page, as the call that operators make reads it."""
    begun, found = time.monotonic(), 0
    seq = await pages.last()
    while found <= _PAGE:
        page = await pages.before(seq, 0, wanted, _PAGE + 1 - found)
        found, seq = found + len(page.records), page.seq
        if page.end:
            break
    return (time.monotonic() - begun) * 1000


EVIDENCE_LINES = (
    (71, "An exported journal, checked without the agent", evidence),
    (72, "The journal, searched", search),
)
