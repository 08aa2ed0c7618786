"""Many streams at once: a new entry, a change for all, a renewal of all, what they cost while nothing happens, a restart."""

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

from beside import Subject, alternate, compared
from clients import go_load
from figures import Figure, Growth, Missing, percentile
from ground import CALL_SECONDS, Admin, Bench, Site, entry
from harness.callers import Caller
from peers import CLIENT
from processes import resident_mib
from sojourn._pb.spire.api.types import types_pb2 as types
from spire import Spire, spire

STREAMS = 1_000
HELD = (100, 1_000, 5_000)
CONNECTIONS = 1_500  # of one user; more streams than that share some
FIRST_UID = 70_000_000  # of users that nobody has
SPIRE_SYNC_SECONDS = 5.0  # between two questions of its agent to its server what there is to serve
SHORT_TTL = 10
AT_ANY_TIME = (
    "SPIRE's agent asks its server every 5 s: each change comes at a time of its own within that, on both;"
    " entries are created over the API of each one's server"
)


class Holders(Caller):
    """The load client as it holds streams (go/hold.go) or restarts (go/restart.go)."""

    def __init__(self, socket: str, *command: object, through: Sequence[str] = ()) -> None:
        made = [str(CLIENT.there()[0]), *map(str, command), "-socket"]
        super().__init__(socket, argv=list(through) or made)

    def all(self) -> dict[str, Any]:
        """What it tells once all streams have what they wait for."""
        heard = self.hear("all", "error", seconds=2 * CALL_SECONDS)
        if heard["event"] == "error":
            raise RuntimeError(heard["message"])
        return heard


def held(socket: str, streams: int, each: int = 1) -> Holders:
    """That many streams, each of which has its SVID, so many on a connection."""
    holders = Holders(socket, "hold", "-streams", streams, "-per-connection", each)
    holders.tell("await")
    holders.all()
    return holders


class _Side:
    """One of those that are compared: its registration, and how a new entry for this user is spelt."""

    def __init__(self, subject: Subject, admin: Admin, other: Spire | None = None) -> None:
        self.subject = subject
        self.admin = admin
        self.holders: Holders | None = None
        self.entries = 1
        self._other = other

    def create(self) -> None:
        self.entries += 1
        path = f"/more/{self.entries}"
        made = entry(path) if self._other is None else self._other.entry(path, f"uid:{os.getuid()}")
        self.admin.create([made])


@contextlib.contextmanager
def sides() -> Iterator[tuple[list[_Side], list[str]]]:
    """Sojourn and SPIRE, or the first alone and why; each serves one entry to this user."""
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(Site.open())
        subject = Subject("Sojourn", {"agent": site.agent.pid}, site.agent.socket)
        found, notes = [_Side(subject, site.admin)], []
        try:
            other = stack.enter_context(spire())
        except Missing as error:
            notes.append(f"missing: {error}")
        else:
            found.append(_Side(other.subject, stack.enter_context(other.admin()), other))
        yield found, notes


def _hears(bench: Bench, streams: int, repetitions: int) -> Iterator[Figure | str]:
    """From a new entry's creation until streams of those who match it have the SVID."""
    with contextlib.ExitStack() as stack:
        both, notes = stack.enter_context(sides())
        by_name = {side.subject.name: side for side in both}
        for side in both:
            bench.say(f"{side.subject.name}: {streams:,} stream(s)")
            side.holders = stack.enter_context(held(side.subject.address, streams))

        def once(subject: Subject) -> list[float]:
            side = by_name[subject.name]
            assert side.holders is not None
            sleep(random.uniform(0, SPIRE_SYNC_SECONDS if subject.name == "SPIRE" else 0.2))
            side.holders.tell("arm", svids=side.entries + 1)
            begun = time()
            side.create()
            returned = time()
            return [(at - begun) * 1000 for at in (returned, *side.holders.all()["at"])]

        bench.say("entries are created")
        took = alternate([side.subject for side in both], repetitions, once)
        for what, place in (("the call", 0), ("the first stream has the SVID", 1), ("the last", -1)):
            if streams > 1 or place != -1:
                values = {name: [each[place] for each in runs] for name, runs in took.items()}
                yield from compared(f"entry create: {what}", "ms", values)
        yield from notes
        yield AT_ANY_TIME


# --- 40 ---


def registered(bench: Bench) -> Iterator[Figure | str]:
    yield from _hears(bench, 1, bench.effort.alternations + 3 if bench.full else 1)


# --- 41 ---


def changed(bench: Bench) -> Iterator[Figure | str]:
    yield from _hears(bench, STREAMS if bench.full else STREAMS // 10, bench.effort.alternations if bench.full else 1)


# --- 42 ---


def renewed(bench: Bench) -> Iterator[Figure | str]:
    """An identity, a process and a stream for each of many users; all SVIDs are to be replaced at the same time."""
    if os.getuid() != 0:
        raise Missing("processes of so many users can only be made by root")
    count = STREAMS if bench.full else STREAMS // 20
    with Site.open() as site:
        made = [_of_uid(FIRST_UID + number) for number in range(count)]
        ids = site.admin.create(made)
        crowd = [sys.executable, str(Path(__file__).with_name("crowd.py")), str(CLIENT.there()[0])]
        with Holders(site.agent.socket, through=[*crowd, str(FIRST_UID), str(count)]) as holders:
            holders.tell("await")
            holders.all()
            other = Subject("Sojourn", {}, site.agent.socket)
            fetch, seconds = go_load("x509", 1), bench.effort.load_seconds
            alone, during, late = [], [], []
            for _ in range(bench.effort.repetitions):
                bench.say(f"{count:,} SVIDs are replaced")
                alone.append(fetch(other, seconds).p99_ms)
                holders.tell("arm")
                due: list[float] = []
                renewal = threading.Timer(seconds / 4, lambda at=due: (at.append(time()), site.admin.rotate_all()))
                renewal.start()
                during.append(fetch(other, seconds).p99_ms)
                renewal.join()
                late.append([(at - due[0]) * 1000 for at in holders.all()["at"]])
            for percent in (50, 99, 100):
                values = [percentile(each, percent) for each in late]
                name = f"p{percent}" if percent < 100 else "the last"
                yield Figure.of(f"{count:,} SVIDs due at once: late, {name}", "ms", values)
            yield Figure.of("another caller's FetchX509SVID meanwhile: p99", "ms", during)
            yield Figure.of("the same when nothing else happens: p99", "ms", alone)
            yield from _short_lives(bench, site, ids, holders)
    yield "a process of a user of its own behind each of the SVIDs; each connection is attested as that process's"


def _short_lives(bench: Bench, site: Site, ids: Sequence[str], holders: Holders) -> Iterator[Figure]:
    """All SVIDs live for so short a time, from now on, that they are due within one second, and again, and again."""
    bench.say(f"{len(ids):,} SVIDs live for {SHORT_TTL} s")
    holders.tell("arm")
    site.admin.set_ttls(ids, SHORT_TTL)
    holders.all()
    left = []
    for _ in range(2 if bench.full else 1):
        holders.tell("arm")
        left.append(min(holders.all()["left"]))
    name = f"{len(ids):,} SVIDs of {SHORT_TTL} s, due within a second: the least that one had left when the next came"
    yield Figure.of(name, "s", left)


def _of_uid(uid: int) -> types.Entry:
    spiffe_id = types.SPIFFEID(trust_domain="example.org", path=f"/user/{uid}")
    return types.Entry(spiffe_id=spiffe_id, selectors=[types.Selector(type="unix", value=f"uid:{uid}")])


# --- 43 ---


def silent(bench: Bench) -> Iterator[Figure | Growth | str]:
    with contextlib.ExitStack() as stack:
        both, notes = stack.enter_context(sides())
        sizes = HELD if bench.full else HELD[:1]
        seconds = 4.0 if bench.full else 0.5
        memory: dict[str, list[tuple[float, Sequence[float]]]] = {}
        idle: dict[str, list[tuple[float, Sequence[float]]]] = {}
        opening: dict[str, list[float]] = {}
        for side in both:
            name = side.subject.name
            sleep(1.0)  # what it had to do at its start is done
            before = sum(side.subject.memory().values())
            yield Figure.of("no stream: RSS of all daemons", "MiB", [before], subject=name)
            yield Figure.of("no stream: CPU", "‰", [_idle(side.subject, seconds)], subject=name)
            there = 0
            for size in sizes:
                bench.say(f"{name}: {size:,} streams")
                spent = sum(side.subject.cpu().values())
                more = size - there
                stack.enter_context(held(side.subject.address, more, max(1, -(-more * 2 // CONNECTIONS))))
                there = size
                opening.setdefault(name, []).append((sum(side.subject.cpu().values()) - spent) / more * 1e6)
                sleep(1.0)
                memory.setdefault(name, []).append((size, [sum(side.subject.memory().values())]))
                idle.setdefault(name, []).append((size, [_idle(side.subject, seconds)]))
            each = (memory[name][-1][1][0] - before) * 1024 / there
            yield Figure.of(f"for each of {there:,} streams, over none", "KiB", [each], subject=name)
            yield Figure.of("opening a stream: CPU of all daemons", "µs", opening[name], subject=name)
            if len(side.subject.daemons) > 1:
                for daemon, pid in side.subject.daemons.items():
                    yield Figure.of(f"{there:,} streams: RSS of the {daemon}", "MiB", [resident_mib(pid)], subject=name)
        yield Growth("RSS of all daemons", "MiB", "held streams", memory)
        yield Growth("CPU while nothing happens", "‰", "held streams", idle)
        yield from notes
        yield "a connection for each stream, up to some hundreds at a time; beyond that they share them"


def _idle(subject: Subject, seconds: float) -> float:
    """Thousandths of a processor that it takes while nobody asks for anything."""
    before, begun = sum(subject.cpu().values()), monotonic()
    sleep(seconds)
    return (sum(subject.cpu().values()) - before) / (monotonic() - begun) * 1000


# --- 44 ---


def restarted(bench: Bench) -> Iterator[Figure | str]:
    clients = STREAMS if bench.full else STREAMS // 10
    codes: dict[str, int] = {}
    found: dict[str, dict[str, list[float]]] = {}
    for number, how in ((signal.SIGTERM, "told to stop"), (signal.SIGKILL, "killed")):
        for _ in range(bench.effort.repetitions if bench.full else 1):
            with Site.open() as site, Holders(site.agent.socket, "restart", "-clients", clients) as crowd:
                crowd.all()
                bench.say(f"the agent of {clients:,} clients is {how}")
                crowd.tell("anew")
                sleep(0.1)
                begun = time()
                site.agent.stop(number)
                site.agent.start()
                ready = (time() - begun) * 1000
                heard = crowd.all()
                took = [(at - begun) * 1000 for at in heard["at"]]
                values = {
                    "ready again": ready,
                    f"half of {clients:,} clients have a fresh SVID": percentile(took, 50),
                    f"all {clients:,} clients have a fresh SVID": took[-1],
                }
                for name, value in values.items():
                    found.setdefault(how, {}).setdefault(name, []).append(value)
                for code, times in heard["codes"].items():
                    codes[code] = codes.get(code, 0) + times
    wrong = set(codes) - {"Unavailable"}
    for how, values_of in found.items():
        for name, values in values_of.items():
            yield Figure.of(f"{how}: {name}", "ms", values, failed=bool(wrong))
    yield Figure.of("errors but UNAVAILABLE", "", [sum(codes[code] for code in wrong)])
    yield f"errors that the clients saw: {_told(codes)}"
    yield "clients as go-spiffe makes them: they come back a second after their stream has ended, then after two, three ..."


def _told(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{times:,} {code}" for code, times in sorted(codes.items())) or "none"


STORM_LINES = (
    (40, "a new entry to the SVID on an open stream", registered),
    (41, "a new entry to the SVID on all open streams", changed),
    (42, "renewal of many SVIDs at once", renewed),
    (43, "held streams", silent),
    (44, "restart of the agent with many clients", restarted),
)
