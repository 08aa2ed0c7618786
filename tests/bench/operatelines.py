"""Operating it: from a package to the first SVID, restarts under load, and backups beside it."""

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from beside import Run, Subject
from clients import go_load
from figures import Figure, ratios
from ground import Bench, Site, entry, needed
from harness.agent import AgentProcess
from harness.backups import command
from harness.debianroot import debian
from harness.nspawn import Helper, booted
from harness.packages import build, need_nfpm, once
from harness.unitinstall import SERVICE, SOCKET, UnitAgent
from peers import CLIENT
from sojourn.audit.journal import Event
from sojourn.store.audit import AuditTable
from sojourn.store.database import open_sqlite

SUITES = {"bookworm": "deb12", "trixie": "deb13"}
REPETITIONS = 5
STREAMS = 1_000
ENTRIES, RECORDS = 10_000, 1_000_000
AT_ONCE = 8
_TOGETHER = 500  # entries in one call
_WRITTEN_TOGETHER = 20_000  # records in one write
_SETTLED_SECONDS = 2.0
_SVID = "sojourn entry create --spiffe-id spiffe://example.org/web --selector unix:uid:0 && sojourn svid x509"


# --- 60 ---


def first_svid(bench: Bench) -> Iterator[Figure | str]:
    """Each time in a Debian that has just booted, and had nothing of ours."""
    with needed():
        need_nfpm()
        packages = once("this", lambda folder: build(folder, *SUITES))
        for suite, told in SUITES.items() if bench.full else [*SUITES.items()][:1]:
            package = next(packages.glob(f"*~{told}_*.deb"))
            installed, answered = [], []
            for _ in range(REPETITIONS if bench.full else 1):
                bench.say(f"a fresh Debian {suite}")
                with debian(suite) as machine:
                    machine.give(package)
                    begun = time.monotonic()
                    machine.sh(f"cd /mnt/work && apt-get install -y ./{package.name}")
                    installed.append(time.monotonic() - begun)
                    said = machine.sh(_SVID)
                    answered.append(time.monotonic() - begun)
                    if "spiffe://example.org/web" not in said:
                        raise RuntimeError(f"no SVID: {said[-300:]}")
            yield Figure.of(f"{suite}: `apt install` returned", "s", installed)
            yield Figure.of(f"{suite}: `apt install` to the first SVID", "s", answered)
    yield "with the registration of the workload; the machine has all that the package depends on"


# --- 61 ---


def restarts(bench: Bench) -> Iterator[Figure | str]:
    """A connection each 10 ms, which says hello and is answered; beside it streams that are held."""
    streams = STREAMS if bench.full else STREAMS // 20
    with needed(), booted() as machine:
        unit = UnitAgent(machine)
        unit.install()
        unit.systemctl("start", SERVICE)
        unit.run("entry", "create", "--spiffe-id", "spiffe://example.org/root", "--selector", "unix:uid:0")
        for what in ("systemctl restart", "kill -9"):
            found = []
            for _ in range(REPETITIONS if bench.full else 1):
                bench.say(f"{what}, {streams:,} streams")
                found.append(_over(unit, what, streams))
            for name, key, measure in (
                ("connects refused", "refused", ""),
                ("connections closed without an answer", "cut", ""),
                ("longest wait of a connection", "longest", "s"),
                ("until each stream has an SVID again", "back", "s"),
            ):
                yield Figure.of(f"{what}, {streams:,} streams: {name}", measure, [each[key] for each in found])
    yield "clients and their streams share the machine with the agent"


def _over(unit: UnitAgent, what: str, streams: int) -> dict[str, float]:
    with Helper(unit.machine, "gapclient.py", SOCKET, str(streams)) as client:
        client.hear()
        time.sleep(_SETTLED_SECONDS)
        before = unit.pid
        if what == "kill -9":
            unit.machine.run("kill", "-KILL", str(before))
            unit.wait_for(before)
        else:
            unit.systemctl("restart", SERVICE)
        found: dict[str, float] = client.ask(anew=True)
        if found["silent"]:
            raise RuntimeError(f"{found['silent']} connections heard nothing")
        return found


# --- 62 ---


def backups(bench: Bench) -> Iterator[Figure | str]:
    """The agent answers fetches before and meanwhile, in turns."""
    CLIENT.there()
    entries, records = (ENTRIES, RECORDS) if bench.full else (ENTRIES // 20, RECORDS // 100)
    load = go_load("x509", AT_ONCE)
    with Site.open() as site, ThreadPoolExecutor(1) as beside:
        agent, subject = site.agent, Subject("Sojourn", {"agent": site.agent.pid}, site.agent.socket)
        for first in range(0, entries, _TOGETHER):
            more = range(first, min(entries, first + _TOGETHER))
            site.admin.create([entry(f"/other/{number}", f"path:/opt/other/{number}") for number in more])
        agent.stop()
        _fill(agent.data_dir, records)
        agent.start()
        load(subject, bench.effort.load_seconds)
        took, sizes = [], []
        alone: list[Run] = []
        meanwhile: list[Run] = []
        for number in range(bench.effort.repetitions):
            bench.say(f"backup {number + 1} of {entries:,} entries and {records:,} records")
            alone.append(load(subject, bench.effort.load_seconds))
            making = beside.submit(_made, agent, number)
            runs = []
            while not making.done():
                runs.append(load(subject, bench.effort.load_seconds))
            meanwhile.append(Run.joined(runs))
            seconds, size = making.result()
            took.append(seconds)
            sizes.append(size)
    yield Figure.of("`backup create`, beside the load", "s", took)
    yield Figure.of("the backup", "MiB", sizes)
    for name, unit, key in (("calls", "/s", "rate"), ("p50", "ms", "p50_ms"), ("p99", "ms", "p99_ms")):
        values = [[getattr(run, key) for run in each] for each in (alone, meanwhile)]
        yield Figure.of(f"FetchX509SVID, {AT_ONCE} clients, before: {name}", unit, values[0])
        yield Figure.of(f"FetchX509SVID, {AT_ONCE} clients, meanwhile: {name}", unit, values[1])
        yield Figure.of(f"FetchX509SVID, {AT_ONCE} clients, meanwhile : before: {name}", "ratio", ratios(*values[::-1]))
    yield "p99 meanwhile is the worst of the seconds that the backup took; it shares the machine with the load's clients"


def _fill(data_dir: Path, records: int) -> None:
    """Write records as an agent does, and as long as those of tasks."""
    [path] = [each for each in data_dir.glob("*.db") if _has_journal(each)]
    database = open_sqlite(path)
    try:
        journal = AuditTable(database)
        fields = json.dumps(
            {"task": "0" * 36, "type": "triage-ticket", "spiffe_id": "spiffe://example.org/agent/triage"}
        )
        events = [Event(int(time.time() * 1000), "bench_filler", fields)] * _WRITTEN_TOGETHER
        for first in range(0, records, _WRITTEN_TOGETHER):
            asyncio.run(journal.append(events[: min(_WRITTEN_TOGETHER, records - first)]))
    finally:
        database.close()


def _has_journal(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit'").fetchall())


def _made(agent: AgentProcess, number: int) -> tuple[float, float]:
    """Seconds, and MiB."""
    path = agent.folder / f"{number}.backup"
    begun = time.monotonic()
    done = command(agent, "backup", "create", "--to", str(path), by=("chrt", "--idle", "0"))  # as its unit has it
    seconds = time.monotonic() - begun
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    size = os.stat(path).st_size / 2**20
    path.unlink()
    return seconds, size


OPERATE_LINES = (
    (60, "From a package to the first SVID", first_svid),
    (61, "Restarts of the unit under load", restarts),
    (62, "Backup of a running agent", backups),
)
