"""What the bench measures, line by line."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from figures import Figure, percentile, ratios
from ground import CALL_SECONDS, FULL, TRIAGE, Admin, Bench, Helper, Site, entry
from harness.agent import COMMAND, AgentProcess
from harness.exchanges import part
from processes import cpu_seconds, resident_mib
from sojourn._pb import workload_pb2

STREAMS = 1_000
OTHERS = 1_000
VALIDATORS = (1, 20, 100)

# --- 1 ---


def agent(bench: Bench) -> Iterator[Figure]:
    first, again, idle, held = [], [], [], []
    for _ in range(bench.effort.starts):
        begun = monotonic()
        with AgentProcess() as agent:
            first.append((monotonic() - begun) * 1000)
            agent.stop()
            begun = monotonic()
            agent.start()
            again.append((monotonic() - begun) * 1000)
            sleep(0.2)
            idle.append(resident_mib(agent.pid))
            with Admin(agent.admin_socket) as admin, Helper(agent.socket) as worker:
                admin.create([entry(TRIAGE)])
                worker.call("hold", streams=STREAMS)
                held.append(resident_mib(agent.pid))
    yield Figure.of("start to `ready`, new data folder", "ms", first)
    yield Figure.of("start to `ready`, again", "ms", again)
    yield Figure.of("RSS idle", "MiB", idle)
    yield Figure.of(f"RSS with {STREAMS:,} held streams", "MiB", held)
    yield Figure.of(
        "for each stream, over idle", "KiB", [(b - a) * 1024 / STREAMS for a, b in zip(idle, held, strict=True)]
    )


# --- 2 ---


def fetch(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site, Helper(site.agent.socket) as worker:
        bare_socket = str(site.agent.folder / "bare.sock")
        with Helper(bare_socket, "bare.py") as bare:
            bare.call("serve", **worker.call("sample"))
            for concurrent in (1, 8):
                ours, theirs = [], []
                for socket in (site.agent.socket, bare_socket):
                    worker.call("fetch", concurrent=concurrent, seconds=0.1, socket=socket)
                for _ in range(bench.effort.repetitions):
                    for pid, socket, runs in (
                        (site.agent.pid, site.agent.socket, ours),
                        (bare.pid, bare_socket, theirs),
                    ):
                        before = cpu_seconds(pid)
                        run = worker.call("fetch", concurrent=concurrent, seconds=bench.effort.seconds, socket=socket)
                        runs.append({**run, "cpu": (cpu_seconds(pid) - before) / run["calls"] * 1e6})
                for name, unit, key in (
                    ("calls", "/s", "rate"),
                    ("p50", "ms", "p50"),
                    ("p99", "ms", "p99"),
                    ("server CPU a call", "µs", "cpu"),
                ):
                    pair = [[run[key] for run in runs] for runs in (ours, theirs)]
                    yield Figure.of(f"{concurrent} at once: {name}, agent", unit, pair[0])
                    yield Figure.of(f"{concurrent} at once: {name}, bare gRPC", unit, pair[1])
                    if key in {"rate", "cpu"} and all(pair[1]):
                        yield Figure.of(f"{concurrent} at once: {name}, agent : bare", "ratio", ratios(*pair))


# --- 3 ---


def jwt(bench: Bench) -> Iterator[Figure]:
    audience = "bench"
    with bench.site() as site, Helper(site.agent.socket) as worker:
        token = worker.call("jwt", audience=audience)["token"]
        for method, request in (
            ("FetchJWTSVID", workload_pb2.JWTSVIDRequest(audience=[audience])),
            ("ValidateJWTSVID", workload_pb2.ValidateJWTSVIDRequest(audience=audience, svid=token)),
        ):
            asked = {"method": f"/SpiffeWorkloadAPI/{method}", "request": request.SerializeToString().hex()}
            worker.call("unary", concurrent=8, seconds=0.1, **asked)
            runs = []
            for _ in range(bench.effort.repetitions):
                before = cpu_seconds(site.agent.pid)
                run = worker.call("unary", concurrent=8, seconds=bench.effort.seconds, **asked)
                runs.append({**run, "cpu": (cpu_seconds(site.agent.pid) - before) / run["calls"] * 1e6})
            yield Figure.of(f"{method}, 8 at once: calls", "/s", [run["rate"] for run in runs])
            yield Figure.of(f"{method}, 8 at once: agent CPU a call", "µs", [run["cpu"] for run in runs])


# --- 4 ---


def registration(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site, Helper(site.agent.socket) as worker:
        worker.call("watch")
        updated(worker, 1)
        for others in (0, OTHERS):
            other_ids = site.admin.create([entry(f"/other/{n}", f"path:/opt/other/{n}") for n in range(others)])
            calls, lates = [], []
            for number in range(bench.effort.tries):
                begun = monotonic()
                ids = site.admin.create([entry(f"/second/{others}/{number}", f"gid:{os.getgid()}")])
                returned = monotonic()
                lates.append(max(0.0, updated(worker, 2) - returned) * 1000)
                calls.append((returned - begun) * 1000)
                site.admin.delete(ids)
                updated(worker, 1)
            site.admin.delete(other_ids)
            beside = f", {others:,} other entries" if others else ""
            yield Figure.of(f"create: the call{beside}", "ms", calls)
            yield Figure.of(f"create returned to SVID here{beside}", "ms", lates)


def updated(worker: Helper, svids: int) -> float:
    """When the watched stream had that many SVIDs."""
    while (update := worker.wait_for("update"))["svids"] != svids:
        pass
    return float(update["at"])


# --- 5 ---


def push(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site, Helper(site.agent.socket) as worker:
        worker.call("hold", streams=STREAMS)
        firsts, lasts = [], []
        for number in range(bench.effort.repetitions + 2):
            worker.call("arm", streams=STREAMS)
            begun = monotonic()
            site.admin.set_ttl(site.entry_id, 3_601 + number)
            heard = worker.wait_for("all")
            firsts.append((heard["first"] - begun) * 1000)
            lasts.append((heard["last"] - begun) * 1000)
        yield Figure.of("update sent to the first stream's new SVID", "ms", firsts)
        yield Figure.of(f"update sent to the last of {STREAMS:,} streams'", "ms", lasts)


# --- 6 ---


def task(bench: Bench) -> Iterator[Figure]:
    # An agent of its own: the one-shot tasks live on for a minute, or end all at once with the worker.
    with Site.open() as site, Helper(site.agent.socket) as worker:
        disk = [_disk(site.agent.data_dir, bench.effort.calls) for _ in range(bench.effort.repetitions)]
        yield from _percentiles("the same disk: 4 KiB on it for good", disk)
        for command, name in (("begin", "RunTask begin"), ("tokens", "GetToken")):
            worker.call(command, tries=5)
            runs = [worker.call(command, tries=bench.effort.calls) for _ in range(bench.effort.repetitions)]
            yield from _percentiles(name, runs)
        for name, under_task, connections in (
            ("exchange, one-shot", False, 1),
            ("exchange, one-shot", False, 8),
            ("exchange under a task", True, 8),
        ):
            arguments = {"connections": connections, "under_task": under_task}
            worker.call("exchange", seconds=0.1, **arguments)
            runs = [
                worker.call("exchange", seconds=bench.effort.seconds, **arguments)
                for _ in range(bench.effort.repetitions)
            ]
            yield Figure.of(f"{name}, {connections} at once", "/s", [run["rate"] for run in runs])
            yield from _percentiles(f"{name}, {connections} at once", runs)


def _disk(folder: Path, tries: int) -> dict[str, float]:
    """What every record waits for: the time until 4 KiB more of a file are on the disk, in milliseconds."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(tries):
            file.write(bytes(4096))
            begun = monotonic()
            os.fdatasync(file.fileno())
            took.append((monotonic() - begun) * 1000)
    return {key: percentile(took, int(key[1:])) for key in ("p50", "p99")}


def _percentiles(name: str, runs: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    for key in ("p50", "p99"):
        yield Figure.of(f"{name}: {key}", "ms", [run[key] for run in runs])


# --- 7 ---


def kill(bench: Bench) -> Iterator[Figure]:
    with (
        bench.site() as site,
        Helper(site.agent.socket) as validator,
        Helper(site.agent.socket, "holders.py") as holders,
        Helper(site.agent.socket) as crowd,
    ):
        validator.call("verifier")
        for others in (0, 20):
            if others:
                crowd.call("subscribe", count=others)
            took = []
            for _ in range(bench.effort.tries):
                holders.tell("hold")
                holder = holders.wait_for("token")
                validator.tell("until_refused", token=holder["token"])
                validator.wait_for("accepted")
                killed = monotonic()
                os.kill(holder["pid"], signal.SIGKILL)
                refused = validator.wait_for("done")
                if refused["reason"] != "task_over":
                    raise RuntimeError(f"the token was refused for another reason: {refused['reason']}")
                took.append((refused["at"] - killed) * 1000)
            beside = f", {others} more subscribers" if others else ""
            yield Figure.of(f"SIGKILL to refused{beside}", "ms", took)
        for count in VALIDATORS:
            yield from _informed(site, holders, count, bench.effort.tries // 2)


def _informed(site: Site, holders: Helper, count: int, tries: int) -> Iterator[Figure]:
    """From a holder's SIGKILL until validators have heard that its task is over."""
    each: list[float] = []
    last: list[float] = []
    with Helper(site.agent.socket) as crowd:
        crowd.call("subscribe", count=count)
        for _ in range(tries):
            holders.tell("hold")
            holder = holders.wait_for("token")
            crowd.call("expect_end", task=part(holder["token"], 1)["task"]["id"])
            killed = monotonic()
            os.kill(holder["pid"], signal.SIGKILL)
            took = [(at - killed) * 1000 for at in crowd.wait_for("informed")["at"]]
            each += took
            last.append(max(took))
    of = f"{count} validator{'' if count == 1 else 's'}"
    yield Figure.of(f"SIGKILL to informed, each of {of}: p50", "ms", [percentile(each, 50)])
    yield Figure.of(f"SIGKILL to informed, each of {of}: p99", "ms", [percentile(each, 99)])
    if count > 1:
        yield Figure.of(f"SIGKILL to informed, the last of {of}", "ms", last)


# --- 8 ---


def verification(bench: Bench) -> Iterator[Figure]:
    with (
        bench.site() as site,
        Helper(site.agent.socket) as validator,
        Helper(site.agent.socket, "holders.py") as holders,
    ):
        holders.tell("hold")
        token = holders.wait_for("token")["token"]
        validator.call("verifier")
        ours, new, bare, added = [], [], [], []
        for _ in range(bench.effort.repetitions):
            for command, rates in (("verify_rate", ours), ("verify_new_rate", new), ("bare_rate", bare)):
                rates.append(validator.call(command, token=token, seconds=bench.effort.seconds / 2)["rate"])
            answer = validator.call("middleware_time", token=token, seconds=bench.effort.seconds / 2)
            added.append(answer["added"])
        yield Figure.of("TaskVerifier.verify, a token seen before", "/s", ours)
        yield Figure.of("TaskVerifier.verify, a new token", "/s", new)
        yield Figure.of("ES256 signature alone", "/s", bare)
        yield Figure.of("verify : signature alone, seen before", "ratio", ratios(ours, bare))
        yield Figure.of("verify : signature alone, new", "ratio", ratios(new, bare))
        yield Figure.of("ASGI middleware, added to a request", "µs", added)


# --- 10 ---


def command(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site:
        runs = 5 if bench.effort is FULL else 2
        for name, argv in (
            ("sojourn entry list", [*COMMAND, "entry", "list"]),
            ("sojourn svid jwt", [*COMMAND, "svid", "jwt", "--audience", "bench"]),
            ("python -c pass", [sys.executable, "-c", "pass"]),
        ):
            took = []
            for _ in range(runs):
                begun = monotonic()
                subprocess.run(argv, env=site.agent.environment, capture_output=True, check=True, timeout=CALL_SECONDS)
                took.append((monotonic() - begun) * 1000)
            yield Figure.of(name, "ms", took)


LINES = (
    (1, "agent", agent),
    (2, "FetchX509SVID, one message, a new stream each", fetch),
    (3, "JWT-SVIDs", jwt),
    (4, "entry create to SVID on an open stream", registration),
    (5, "entry update to all open streams", push),
    (6, "tasks", task),
    (7, "holder killed to token refused in another process", kill),
    (8, "verification in the SDK", verification),
    (10, "the command as a shell sees it", command),
)
