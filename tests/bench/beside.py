"""Several subjects under the same load, in turns.

A repetition puts each subject under the load once, one after another, and every other repetition goes the other way
round: what disturbs the machine for a while, or what a subject leaves behind, does not always fall on the same one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, TypeVar

from figures import Figure, ratios
from ground import Bench
from processes import cpu_seconds, resident_mib

T = TypeVar("T")
NOTABLE_MICROSECONDS = 20.0  # of a daemon's CPU a call: where only one spends that, all of it is that one's


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: Sojourn, SPIRE, Keycloak. `daemons`: all processes that do its work, by what they are called."""

    name: str
    daemons: Mapping[str, int]
    address: str = ""  # where its clients find it: a socket's path or a URL

    def cpu(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self.daemons.items()}

    def memory(self) -> dict[str, float]:
        return {name: resident_mib(pid) for name, pid in self.daemons.items()}


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one load on one subject: seconds and milliseconds as the names say."""

    calls: int  # that were answered well
    rate: float  # of these, a second
    p50_ms: float
    p99_ms: float
    client_cpu_seconds: float = 0.0  # for each call, what the client itself spent
    failed: Mapping[str, int] = field(default_factory=dict)  # how many, by code or reason
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)  # of each daemon, in all

    @classmethod
    def told(cls, told: Mapping[str, Any]) -> "Run":
        """From what the load clients print."""
        failed = told.get("failed") or {}
        return cls(told["calls"], told["rate"], told["p50"], told["p99"], told.get("client_cpu", 0.0), failed)

    @classmethod
    def joined(cls, parts: "Sequence[Run]") -> "Run":
        """Of parts of the same length, one after another: the median of their p50, and the worst p99."""
        failed: Counter[str] = Counter()
        for part in parts:
            failed.update(part.failed)
        calls = sum(part.calls for part in parts)
        client = sum(part.client_cpu_seconds * part.calls for part in parts) / max(1, calls)
        rate, p50 = fmean(part.rate for part in parts), median(part.p50_ms for part in parts)
        return cls(calls, rate, p50, max(part.p99_ms for part in parts), client, failed)

    def microseconds(self, daemon: str = "") -> float:
        """CPU time for each call: of one daemon, or of all."""
        spent = self.cpu_seconds[daemon] if daemon else sum(self.cpu_seconds.values())
        return spent / max(1, self.calls) * 1e6


Load = Callable[[Subject, float], Run]  # puts a load on a subject for so many seconds


def alternate(subjects: Sequence[Subject], repetitions: int, once: Callable[[Subject], T]) -> dict[str, list[T]]:
    """What `once` returns for each subject, by its name, once for each repetition."""
    found: dict[str, list[T]] = {subject.name: [] for subject in subjects}
    for number in range(repetitions):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            found[subject.name].append(once(subject))
    return found


def metered(subject: Subject, load: Load, seconds: float) -> Run:
    """One load, with the CPU time of each daemon meanwhile."""
    before = subject.cpu()
    run = load(subject, seconds)
    spent = {name: after - before[name] for name, after in subject.cpu().items()}
    return Run(run.calls, run.rate, run.p50_ms, run.p99_ms, run.client_cpu_seconds, run.failed, spent)


def beside(
    bench: Bench,
    subjects: Sequence[Subject],
    what: str,
    load: Load,
    *,
    seconds: float | None = None,
    repetitions: int | None = None,
    client: bool = False,
    warm: bool = True,
) -> Iterator[Figure | str]:
    """Rate, p50, p99 and CPU time a call of each subject, and the first one's ratios to the others.

    Each is warmed up before, unless `warm` is false. `client`: with the client's own CPU time too. Failed calls are
    counted, shown and marked.
    """
    seconds = seconds or bench.effort.load_seconds
    bench.say(what)
    for subject in subjects if warm else ():
        load(subject, seconds / 4)
    runs = alternate(subjects, repetitions or bench.effort.alternations, lambda each: metered(each, load, seconds))
    columns: list[tuple[str, str, Callable[[Run], float]]] = [
        ("calls", "/s", lambda run: run.rate),
        ("p50", "ms", lambda run: run.p50_ms),
        ("p99", "ms", lambda run: run.p99_ms),
        ("daemons' CPU a call", "µs", Run.microseconds),
    ]
    if client:
        columns.append(("client's CPU a call", "µs", lambda run: run.client_cpu_seconds * 1e6))
    for name, unit, read in columns:
        values = {subject: list(map(read, each)) for subject, each in runs.items()}
        yield from compared(f"{what}: {name}", unit, values, failed=[n for n, each in runs.items() if _failures(each)])
    for subject in subjects:
        failures = _failures(runs[subject.name])
        shares = {daemon: [run.microseconds(daemon) for run in runs[subject.name]] for daemon in subject.daemons}
        if sum(max(spent) >= NOTABLE_MICROSECONDS for spent in shares.values()) > 1:
            for daemon, spent in shares.items():
                name = f"{what}: of that the {daemon}'s"
                yield Figure.of(name, "µs", spent, subject=subject.name, failed=bool(failures))
        if failures:
            calls = sum(run.calls for run in runs[subject.name])
            codes = ", ".join(f"{number:,} {code}" for code, number in failures.items())
            yield f"{what}: calls to {subject.name} FAILED: {codes}, beside {calls:,} that were answered"


def _failures(runs: Sequence[Run]) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in runs:
        for code, number in run.failed.items():
            found[code] = found.get(code, 0) + number
    return found


def compared(
    name: str, unit: str, values: Mapping[str, Sequence[float]], *, failed: Sequence[str] = ()
) -> Iterator[Figure]:
    """The same figure of several subjects, and the ratios of the first to each of the others, repetition by repetition."""
    for subject, each in values.items():
        yield Figure.of(name, unit, each, subject=subject, failed=subject in failed)
    first, *others = values
    for other in others:
        if all(values[other]):
            both = ratios(values[first], values[other])
            marked = first in failed or other in failed
            yield Figure.of(name, "ratio", both, subject=f"{first} : {other}", failed=marked)


def memory(subjects: Sequence[Subject], when: str) -> Iterator[Figure]:
    """RSS of every daemon now."""
    found = {subject.name: subject.memory() for subject in subjects}
    yield from compared(f"{when}: RSS of all daemons", "MiB", {n: [sum(each.values())] for n, each in found.items()})
    for subject, each in found.items():
        if len(each) > 1:
            for daemon, mib in each.items():
                yield Figure.of(f"{when}: RSS of the {daemon}", "MiB", [mib], subject=subject)


def timed(
    bench: Bench,
    subjects: Sequence[Subject],
    what: str,
    once: Callable[[Subject], float],
    *,
    unit: str = "ms",
    repetitions: int | None = None,
) -> Iterator[Figure]:
    """What `once` returns for each subject in turns, and the ratios."""
    bench.say(what)
    yield from compared(what, unit, alternate(subjects, repetitions or bench.effort.alternations, once))
