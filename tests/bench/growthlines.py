"""How Sojourn's figures change as there is more of something: registered entries, and live tasks."""

import os
import signal
import timeit
from collections.abc import Iterator, Sequence
from time import monotonic

from beside import Run, Subject, metered
from clients import go_load
from figures import Figure, Growth
from ground import Bench, Helper, Site, entry
from harness.exchanges import ACCESS_TOKEN, GRANT, form, part
from harness.taskagent import ISSUER, TICKETS
from httpload import Step, Work, http_load
from peers import CLIENT, HTTP_CLIENT
from processes import resident_mib
from sojourn import SyncClient
from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Entry
from sojourn.identity.matcher import EntryIndex
from sojourn.limits import LIVE_TASKS_PER_UID
from sojourn.spiffe.ids import SpiffeId
from worker import TASK_TYPE

ENTRIES = (100, 300, 1_000, 3_000, 10_000)
TASKS = (10, 100, 1_000, 3_000, 9_900)
AT_ONCE = 8
CREATED_TOGETHER = 500
Curve = list[tuple[float, Sequence[float]]]


def _grown(name: str, unit: str, along: str, curve: Curve) -> Growth:
    return Growth(name, unit, along, {"Sojourn": curve})


# --- 53 ---


def entries(bench: Bench) -> Iterator[Figure | Growth | str]:
    """The caller matches one of them, by its user; the others ask for programs."""
    CLIENT.there()
    runs: dict[int, list[Run]] = {}
    memory: Curve = []
    load = go_load("x509", AT_ONCE)
    there = 1
    with Site.open() as site:
        subject = Subject("Sojourn", {"agent": site.agent.pid}, site.agent.socket)
        for count in ENTRIES if bench.full else ENTRIES[:2]:
            while there < count:
                more = range(there, min(count, there + CREATED_TOGETHER))
                site.admin.create([entry(f"/other/{number}", f"path:/opt/other/{number}") for number in more])
                there = more.stop
            bench.say(f"{count:,} entries")
            load(subject, bench.effort.load_seconds / 4)
            turns = range(bench.effort.repetitions)
            runs[count] = [metered(subject, load, bench.effort.load_seconds) for _ in turns]
            memory.append((count, [resident_mib(site.agent.pid)]))
    along, what = "registered entries", f"FetchX509SVID, {AT_ONCE} clients"
    yield _grown(f"{what}: calls", "/s", along, [(count, [run.rate for run in each]) for count, each in runs.items()])
    yield _grown(f"{what}: p50", "ms", along, [(count, [run.p50_ms for run in each]) for count, each in runs.items()])
    yield _grown(f"{what}: p99", "ms", along, [(count, [run.p99_ms for run in each]) for count, each in runs.items()])
    spent: Curve = [(count, [run.microseconds() for run in each]) for count, each in runs.items()]
    yield _grown(f"{what}: daemons' CPU a call", "µs", along, spent)
    yield _grown("RSS", "MiB", along, memory)
    yield _grown("matching a caller, in process", "µs", along, _matching(bench))
    yield "the caller matches one entry, by its user; the others ask for programs that nobody runs"


def _matching(bench: Bench) -> Curve:
    """Each entry names the user and a program; the caller has eight selectors and matches one of them."""
    node = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/bench")
    user = Selector.parse("unix:uid:1000")
    found: Curve = []
    for count in ENTRIES:
        index = EntryIndex()
        for number in range(count):
            program = Selector.parse(f"unix:path:/opt/program/{number}")
            spiffe_id = SpiffeId.parse(f"spiffe://example.org/program/{number}")
            index.add(Entry(str(number), spiffe_id, node, frozenset({user, program})))
        others = ("gid:1000", "user:app", "group:app", "supplementary_gid:27", "supplementary_group:sudo", "sha256:00")
        has = {user, Selector.parse(f"unix:path:/opt/program/{count // 2}")}
        caller = frozenset(has | {Selector.parse(f"unix:{value}") for value in others})
        if len(index.match(caller)) != 1:
            raise RuntimeError("the caller does not match its one entry")
        loops = 2_000
        times = timeit.repeat(lambda i=index, c=caller: i.match(c), number=loops, repeat=bench.effort.repetitions)
        found.append((count, [each / loops * 1e6 for each in times]))
    return found


# --- 54 ---


def tasks(bench: Bench) -> Iterator[Figure | Growth | str]:
    """Others' tasks live on beside the one whose tokens are asked for, and beside those whose holders are killed."""
    HTTP_CLIENT.there()
    runs: list[tuple[int, list[Run]]] = []
    informed: Curve = []
    memory: Curve = []
    with (
        Site.open() as site,
        Helper(site.agent.socket) as many,
        SyncClient(site.agent.socket) as client,
        Helper(site.agent.socket) as validator,
        Helper(site.agent.socket, "holders.py") as holders,
    ):
        subject, turns = Subject("Sojourn", {"agent": site.agent.pid}), range(bench.effort.repetitions)
        validator.call("subscribe", count=1)
        there = 0
        for count in TASKS if bench.full else TASKS[:2]:
            bench.say(f"{count:,} live tasks")
            many.call("begin_many", task_type=TASK_TYPE, count=count - there)
            there = count
            with http_load({subject.name: _exchange(client, site.agent.socket)}, AT_ONCE) as load:
                load(subject, bench.effort.load_seconds / 4)
                runs.append((count, [metered(subject, load, bench.effort.load_seconds) for _ in turns]))
            informed.append((count, [_informed(holders, validator) for _ in range(bench.effort.tries // 2)]))
            memory.append((count, [resident_mib(site.agent.pid)]))
    along = "live tasks"
    what = f"access token exchanged, {AT_ONCE} connections"
    yield _grown(f"{what}: calls", "/s", along, [(count, [run.rate for run in each]) for count, each in runs])
    yield _grown(f"{what}: p50", "ms", along, [(count, [run.p50_ms for run in each]) for count, each in runs])
    spent: Curve = [(count, [run.microseconds() for run in each]) for count, each in runs]
    yield _grown(f"{what}: daemons' CPU a call", "µs", along, spent)
    yield _grown("SIGKILL to a validator informed", "ms", along, informed)
    yield _grown("RSS", "MiB", along, memory)
    if failed := sum(sum(run.failed.values()) for _, each in runs for run in each):
        yield f"{failed:,} exchanges FAILED"
    yield f"up to {TASKS[-1]:,} of the {LIVE_TASKS_PER_UID:,} tasks that may live for one user"


def _exchange(client: SyncClient, socket: str) -> Work:
    """A JWT-SVID is exchanged once, and what that gives again and again."""
    first = Step.form("/token", form(client.fetch_jwt_svid(ISSUER).token))
    fields = {"grant_type": GRANT, "subject_token": "{token}", "subject_token_type": ACCESS_TOKEN}
    again = Step.form("/token", {**fields, "resource": TICKETS, "scope": "ticket:read"})
    return Work("http://localhost", [again], [first], socket)


def _informed(holders: Helper, validator: Helper) -> float:
    """Milliseconds from a holder's SIGKILL until the validator has heard that its task is over."""
    holders.tell("hold")
    holder = holders.wait_for("token")
    validator.call("expect_end", task=part(holder["token"], 1)["task"]["id"])
    killed = monotonic()
    os.kill(holder["pid"], signal.SIGKILL)
    (at,) = validator.wait_for("informed")["at"]
    return float(at - killed) * 1000


GROWTH_LINES = (
    (53, "growth with registered entries", entries),
    (54, "growth with live tasks", tasks),
)
