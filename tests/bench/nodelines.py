"""As a node of a real SPIRE server, beside SPIRE's agent on the same server: what reaches a workload and when, with how
many entries, and over restarts of the agent, of the server, and of both.
"""

import contextlib
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep, time

from figures import Figure, Growth
from ground import Bench
from nodeplace import Node, Place, Spire, entry, place
from processes import cpu_seconds, resident_mib
from stormlines import Holders, held

ENTRIES = (1_000, 10_000)
CREATED_TOGETHER = 500
AWAY_SECONDS = 15.0
AS_THEY_COME = (
    "both are nodes of one server and ask it every 5 s, which is the default of each; the server gives out new entries"
    " within another 5 s; SVIDs are signed ahead for 500 entries (Sojourn) and 1,000 (SPIRE)"
)
Found = dict[str, dict[str, list[float]]]


def _note(found: Found, what: str, node: Node, value: float) -> None:
    found.setdefault(what, {}).setdefault(node.name, []).append(value)


def _figures(found: Found, unit: str) -> Iterator[Figure]:
    for what, by_name in found.items():
        for name, values in by_name.items():
            yield Figure.of(what, unit, values, subject=name)


# --- 77 ---


def registered(bench: Bench) -> Iterator[Figure | str]:
    """The same entry reaches an open stream of each, at its own poll."""
    found: Found = {}
    with place(bench.full) as there, contextlib.ExitStack() as stack:
        streams: dict[str, Holders] = {each.name: stack.enter_context(held(each.socket, 1)) for each in there.nodes}
        for number in range(12 if bench.full else 1):
            sleep(random.uniform(0, 5.0) if bench.full else 0.0)
            bench.say("an entry is created")
            for each in streams.values():
                each.tell("arm", svids=number + 2)
            begun = time()
            there.register(entry(f"/more/{number}"))
            for node in there.nodes:
                _note(
                    found, "entry create to the SVID on an open stream", node, streams[node.name].all()["at"][0] - begun
                )
    yield from _figures(found, "s")
    yield AS_THEY_COME


# --- 78 ---


def many(bench: Bench) -> Iterator[Figure | Growth | str]:
    """Each is started with so many entries below it, of which this user has one; then nothing happens for a while."""
    curves: dict[str, dict[str, list[tuple[float, Sequence[float]]]]] = {}

    def note(what: str, node: Node, count: int, values: Sequence[float]) -> None:
        curves.setdefault(what, {}).setdefault(node.name, []).append((count, values))

    with place(bench.full) as there:
        known = 1
        for count in ENTRIES if bench.full else (100,):
            while known < count:
                more = range(known, min(count, known + CREATED_TOGETHER))
                there.register(*(entry(f"/other/{number}", f"uid:{900_000 + number}") for number in more))
                known = more.stop
            for node in there.nodes:
                _started(bench, there, node, count, note)
    units = {"RSS": "MiB", "CPU": "‰"}
    for what, by_name in curves.items():
        unit = next((each for start, each in units.items() if what.startswith(start)), "s" if "SVID" in what else "KiB")
        yield Growth(what, unit, "entries of a node", by_name)
    yield AS_THEY_COME
    yield "a start as after a restart of the machine's agent: what it kept of before is there, and its server is"


def _started(
    bench: Bench, there: Place, node: Node, count: int, note: Callable[[str, Node, int, Sequence[float]], None]
) -> None:
    """The other one is stopped meanwhile, so that each has the machine and the server for itself."""
    others = [each for each in there.nodes if each is not node]
    for each in there.nodes:
        each.end()
    took, sent = [], []
    for _ in range(bench.effort.repetitions):
        bench.say(f"{node.name} is started with {count:,} entries")
        before, begun = node.relay.bytes, monotonic()
        node.begin()
        took.append(node.first_svid("/me") - begun)
        _settled(node, 10.0 if bench.full else 1.0)
        sent.append((node.relay.bytes - before) / 1024)
        if len(took) < bench.effort.repetitions:
            node.end()
    note("start to the first SVID", node, count, took)
    note("bytes between agent and server until all is there", node, count, sent)
    note("RSS of the agent then", node, count, [resident_mib(node.pid)])
    seconds = 30.0 if bench.full else 1.0
    before, spent, begun = node.relay.bytes, cpu_seconds(node.pid), monotonic()
    sleep(seconds)
    passed = monotonic() - begun
    note("bytes a minute while nothing happens", node, count, [(node.relay.bytes - before) / 1024 / passed * 60])
    note("CPU of the agent while nothing happens", node, count, [(cpu_seconds(node.pid) - spent) / passed * 1000])
    for each in others:
        each.begin()
    for each in others:
        each.first_svid("/me")


def _settled(node: Node, seconds: float) -> None:
    """Return once it takes no time of the processor to speak of, for so many seconds."""
    ends = monotonic() + 120
    while monotonic() < ends:
        before, begun = cpu_seconds(node.pid), monotonic()
        sleep(seconds)
        if (cpu_seconds(node.pid) - before) / (monotonic() - begun) < 0.2:
            return


# --- 79 ---


def restarted(bench: Bench) -> Iterator[Figure | str]:
    found: Found = {}
    with place(bench.full) as there:
        for number in range(bench.effort.repetitions):
            _agent_alone(there, found)
            _server_alone(bench, there, found, f"/after/{number}")
            _both(bench, there, found)
    yield from _figures(found, "s")
    yield AS_THEY_COME
    yield f"the server is away for {AWAY_SECONDS:g} s; both agents keep their keys on disk, and have joined by a token"
    yield "an agent of SPIRE that gives up meanwhile is started again at once, as a service manager would"


def _agent_alone(there: Place, found: Found) -> None:
    for node in there.nodes:
        for number, how in ((signal.SIGTERM, "told to stop"), (signal.SIGKILL, "killed")):
            begun = monotonic()
            node.end(number)
            node.begin()
            _note(found, f"agent {how} and started: to the first SVID", node, node.first_svid("/me") - begun)
            _note(found, "the same: CPU of the agent until then", node, cpu_seconds(node.pid))


def _server_alone(bench: Bench, there: Place, found: Found, path: str) -> None:
    bench.say("the server is away")
    there.server.__exit__()
    sleep(AWAY_SECONDS if bench.full else 1.0)
    there.server.__enter__()
    back = monotonic()
    there.register(entry(path))
    bench.say("the server is back")
    for name, at in _each_first(there, path).items():
        node = next(each for each in there.nodes if each.name == name)
        _note(found, "server back: to the SVID of an entry that is created then", node, at - back)


def _both(bench: Bench, there: Place, found: Found) -> None:
    bench.say("both are away")
    there.server.__exit__()
    for node in there.nodes:
        node.end(signal.SIGKILL)
    begun = monotonic()
    ours, theirs = there.nodes
    for node in there.nodes:
        node.begin()
    _note(found, "agent started while the server is away: to the first SVID", ours, ours.first_svid("/me") - begun)
    while monotonic() - begun < (AWAY_SECONDS if bench.full else 1.0):
        sleep(0.1)
        _alive(theirs)
    there.server.__enter__()
    back = monotonic()
    bench.say("the server is back")
    at = _first_alive(theirs)
    _note(found, "agent started while the server is away: to the first SVID", theirs, at - begun)
    _note(found, "the same, from when the server was back", theirs, at - back)
    for node in there.nodes:
        node.first_svid("/me")


def _alive(node: Spire) -> None:
    if node.ended():
        node.begin()


def _first_alive(node: Spire) -> float:
    _alive(node)
    return node.first_svid("/me")


def _each_first(there: Place, path: str) -> dict[str, float]:
    """When each gave an SVID of this path: they are looked at in turns."""
    found: dict[str, float] = {}
    ends = monotonic() + 120
    while len(found) < len(there.nodes):
        if monotonic() > ends:
            raise RuntimeError(f"only {sorted(found)} have {path}")
        for node in there.nodes:
            if node.name not in found and node.has(path):
                found[node.name] = monotonic()
        sleep(0.01)
    return found


NODE_LINES = (
    (77, "as a node of a SPIRE server: a new entry to the SVID on an open stream", registered),
    (78, "as a node of a SPIRE server: a start with many entries", many),
    (79, "as a node of a SPIRE server: restarts of agent, server and both", restarted),
)
