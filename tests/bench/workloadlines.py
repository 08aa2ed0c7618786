"""The Workload API beside SPIRE: the same clients on both, in turns."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from beside import Subject, beside, memory
from clients import CALLS, fetches, go_load, python_load
from figures import Figure, Missing
from ground import Admin, Bench, entry
from harness.agent import AgentProcess
from peers import CLIENT
from spire import spire

AT_ONCE = (1, 8, 64)
LARGE_BYTES = 32 * 1024 * 1024
IDS_ALONE = """
[attestors.unix]
path = false
sha256 = false
cgroup = false
"""
SHORT_SECONDS = 20  # of a JWT-SVID's life, where three of them are waited for
ONLY_FULL = "only in a full run"
SAME_CALLS = (
    "the same client on both, in turns; SPIRE's server is told not to limit signatures, by default it makes 500/s"
)


@contextlib.contextmanager
def both(program: Path | None = None) -> Iterator[tuple[list[Subject], list[str]]]:
    """Sojourn and SPIRE, or the first alone and why; and notes on how they are set.

    Without `program` they look at users and groups alone. With it both look at callers' programs too, and their entries
    ask for this one's path and SHA-256: the load must come from it.
    """
    selectors = [] if program is None else [f"path:{program}", f"sha256:{_sha256(program)}"]
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(AgentProcess(config=IDS_ALONE if program is None else "[attestors.unix]\n"))
        admin = stack.enter_context(Admin(agent.admin_socket))
        admin.create([entry("/w", *selectors)])
        subjects = [Subject("Sojourn", {"agent": agent.pid}, agent.socket)]
        if program is None:
            notes = [
                "Sojourn: attestors.unix without path, sha256 and cgroup; SPIRE: its default, without path and sha256"
            ]
        else:
            notes = [
                "Sojourn: its defaults (path, sha256 and cgroup); SPIRE: discover_workload_path = true (path and sha256)",
                f"the client's program has {program.stat().st_size / 2**20:.0f} MiB, and entries ask for its path and sha256",
            ]
        try:
            look = None if program is None else (lambda socket: fetches(go_load("x509", 1, program), socket))
            other = stack.enter_context(spire(*selectors, path=program is not None, served=look))
        except Missing as error:
            notes.append(f"missing: {error}")
        else:
            subjects.append(other.subject)
        yield subjects, [*notes, SAME_CALLS]


def _sha256(program: Path) -> str:
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loads(
    bench: Bench, subjects: Sequence[Subject], calls: Sequence[str], at_once: Sequence[int], program: Path | None = None
) -> Iterator[Figure | str]:
    repetitions = bench.effort.alternations if program is None else bench.effort.repetitions
    for call in calls:
        for clients in at_once:
            what = f"{CALLS[call]}, {clients} client{'' if clients == 1 else 's'}"
            load = go_load(call, clients, program)
            yield from beside(bench, subjects, what, load, repetitions=repetitions, client=True)


# --- 30 ---


def workload_api(bench: Bench) -> Iterator[Figure | str]:
    CLIENT.there()
    subjects, notes = bench.shared("ids alone", both)
    yield from memory(subjects, "idle")
    yield from _loads(bench, subjects, tuple(CALLS), AT_ONCE if bench.full else (8,))
    yield from memory(subjects, "after all of it")
    yield from notes


# --- 31 and 23 ---


def of_a_program(bench: Bench) -> Iterator[Figure | str]:
    """The client's program as it is, which is a static one of Go."""
    with _copied(None) as program, both(program) as (subjects, notes):
        calls = tuple(CALLS) if bench.full else ("x509", "connect")
        yield from _loads(bench, subjects, calls, AT_ONCE if bench.full else (8,), program)
        yield from memory(subjects, "after all of it")
    yield from notes


def of_a_large_program(bench: Bench) -> Iterator[Figure | str]:
    """As large as many are that are built as one file."""
    if not bench.full:
        yield ONLY_FULL
        return
    with _copied(LARGE_BYTES) as program, both(program) as (subjects, notes):
        yield from _loads(bench, subjects, ("x509", "connect"), (1, 8), program)
        yield from memory(subjects, "after all of it")
    yield from notes


@contextlib.contextmanager
def _copied(size: int | None) -> Iterator[Path]:
    """A copy of the client in Go, with zeros behind it up to `size` bytes, which it does not notice."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        program = Path(folder) / "load"
        shutil.copy(CLIENT.there()[0], program)
        if size is not None:
            os.truncate(program, size)
        yield program


# --- 32 ---


def from_python(bench: Bench) -> Iterator[Figure | str]:
    subjects, notes = bench.shared("ids alone", both)
    for library, name in (("sojourn", "Sojourn's SDK"), ("spiffe", "PyPI's spiffe")):
        for call in CALLS if bench.full else ("connect",):
            for clients in (1, 8) if bench.full else (8,):
                what = f"{name}: {CALLS[call]}, {clients} client{'' if clients == 1 else 's'}"
                load = python_load(library, call, clients)
                yield from beside(
                    bench,
                    subjects,
                    what,
                    load,
                    seconds=bench.effort.load_seconds * 0.6,
                    repetitions=bench.effort.repetitions,
                    client=True,
                    warm=clients > 1,  # the daemons are, of the call before; a client in Python is new each time
                )
    yield from notes
    yield "a client in Python can take as much of a core as an agent: see the client's CPU a call"


# --- 33 ---


def limited(bench: Bench) -> Iterator[Figure | str]:
    """SPIRE as it comes: its server holds an agent to so many signatures a second."""
    if not bench.full:
        yield ONLY_FULL
        return
    with AgentProcess(config=IDS_ALONE) as agent, Admin(agent.admin_socket) as admin, spire(limited=True) as other:
        admin.create([entry("/w")])
        subjects = [Subject("Sojourn", {"agent": agent.pid}, agent.socket), other.subject]
        what = f"{CALLS['jwt-new']}, 8 clients"
        load = go_load("jwt-new", 8)
        yield from beside(bench, subjects, what, load, seconds=6, repetitions=3)
    yield "SPIRE's server with its default, ratelimit { signing = true }: 500 signatures a second, of which 500 may be saved up"


# --- 56 ---


def sustained(bench: Bench) -> Iterator[Figure | str]:
    """For three lives of a JWT-SVID: those that have not ended are remembered, and all of them are there then."""
    if not bench.full:
        yield ONLY_FULL
        return
    config = f'[identity]\njwt_svid_ttl = "{SHORT_SECONDS}s"\n{IDS_ALONE}'
    with AgentProcess(config=config) as agent, Admin(agent.admin_socket) as admin, spire() as other:
        admin.create([entry("/w")])
        subjects = [Subject("Sojourn", {"agent": agent.pid}, agent.socket), other.subject]
        yield from memory(subjects, "before")
        what = f"{CALLS['jwt-new']}, 8 clients, {3 * SHORT_SECONDS} s without a pause"
        load = go_load("jwt-new", 8)
        yield from beside(
            bench, subjects, what, load, seconds=3 * SHORT_SECONDS, repetitions=1, client=True, warm=False
        )
        yield from memory(subjects, "after it")
    yield SAME_CALLS


WORKLOAD_LINES = (
    (30, "users and groups attested: Sojourn beside SPIRE, client in Go", workload_api),
    (31, "path and sha256 attested too: Sojourn beside SPIRE, client in Go", of_a_program),
    (23, "path and sha256 of a program of 32 MiB: Sojourn beside SPIRE, client in Go", of_a_large_program),
    (32, "users and groups attested: Sojourn beside SPIRE, clients in Python", from_python),
    (33, "a new audience each, with SPIRE's default limit", limited),
    (56, "a new audience each, sustained: Sojourn beside SPIRE, client in Go", sustained),
)
