"""What a query is: it reads records one by one, in their order, and keeps no more of them than it must."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from sojourn.operating_limits import CONTROL_EXCEPTIONS
from sojourn.oversight.controls.live_tasks import Fields, LiveTask, LiveTasks
from sojourn.oversight.histogram import Histogram

# What reading raises of records and types that are not as the agent writes them.
WRONG: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Seen(NamedTuple):
    """One record, and the task that it is about, as it is before the record. `task` None: it is not known.

    `when_ms`: by which it is told from records of changes, milliseconds as `at_ms`; of a record that says it is older
    than those before it can be, a time behind all of them.
    """

    seq: int
    at_ms: int
    when_ms: int
    event: str
    fields: Fields
    task: LiveTask | None


@dataclass(slots=True)
class Exceptions:
    """The cases in which a claim does not hold: how many, the first of their records, and how many are of others."""

    seqs: list[int] = field(default_factory=list)
    count: int = 0
    left_out: int = 0

    def add(self, seq: int, count: int = 1) -> None:
        """Note a record that is of so many cases."""
        self.count += count
        if seq in self.seqs:
            return
        if len(self.seqs) < CONTROL_EXCEPTIONS:
            self.seqs.append(seq)
        else:
            self.left_out += count

    def take(self, other: "Exceptions") -> None:
        """Have those of another, too."""
        seqs = sorted({*self.seqs, *other.seqs})
        self.count += other.count
        self.left_out += other.left_out + max(0, len(seqs) - CONTROL_EXCEPTIONS)
        self.seqs = seqs[:CONTROL_EXCEPTIONS]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query found. `n`: how many cases it has looked at; `not_judged`: how many more it could say nothing of.

    `exceptions`: in how many the claim does not hold; `seqs`: the records of the first, but for `left_out` of them.
    `figures`: JSON's, by name.
    """

    n: int
    exceptions: int
    seqs: Sequence[int]
    left_out: int
    not_judged: int
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Journal:
    """Whether the journal is as it was written. `looked_at` False: nobody has looked, and `whole` says nothing.

    `first_bad_seq` 0: no record is bad.
    """

    looked_at: bool
    whole: bool = True
    first_bad_seq: int = 0


@dataclass(frozen=True, slots=True)
class Replayed:
    """Decisions that were made again from their records: how many, how many that is not known of, and which differ."""

    good: int = 0
    unknown: int = 0
    wrong: int = 0
    seqs: Sequence[int] = ()


class Types(Protocol):
    """The task types of the sets that records name."""

    def of(self, policy_set: str) -> Mapping[str, Fields] | None:
        """What the TOML file of each type of a set says, by the type's name. None: the set is not there."""

    def cases(self, policy_set: str) -> int:
        """How many of its types have test cases."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What is known once all records are read. `first_ms`, `last_ms`: the time of the first, and the latest of one."""

    records: int
    first_ms: int
    last_ms: int
    journal: Journal
    replayed: Replayed
    types: Types
    sets_left_out: int  # records of sets for which there was no room
    sets: Mapping[str, tuple[int, int]]  # of task types, by digest: the first and the last record that names it


class Query(ABC):
    """One walk along the records. What it looks at, and when that is an exception, `assertion` says."""

    name: ClassVar[str]
    assertion: ClassVar[str]
    events: ClassVar[frozenset[str]]

    def __init__(self, tasks: LiveTasks) -> None:
        self.tasks = tasks
        self.n = 0
        self.not_judged = 0
        self.exceptions = Exceptions()

    @abstractmethod
    def read(self, seen: Seen) -> None:
        """Look at a record of one of the `events`. May raise whatever comes of one that the agent does not write."""

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # others need it
        """Judge what only the end tells, and return the figures."""
        return {}

    def judge(self, good: bool, seq: int) -> None:
        """Count a case, whose record this is."""
        self.n += 1
        if not good:
            self.exceptions.add(seq)

    def unknown_task(self, seen: Seen) -> None:
        """A record is about a task that is not known: it began before the first record, or never."""
        if not self.tasks.may_have_begun(seen.fields["task"]):
            self.judge(False, seen.seq)
            return
        self.not_judged += 1
        if seen.event != "task_begun":  # for such a one there was no room
            self.tasks.missed(seen.fields["task"])

    def answer(self, whole: Whole) -> Answer:
        """What came of all records."""
        found = self.exceptions
        try:
            figures = self.finish(whole)
        except WRONG:  # of what the agent does not write: nothing is shown then
            return Answer(found.count, found.count, tuple(found.seqs), found.left_out, self.n + self.not_judged, {})
        return Answer(self.n, found.count, tuple(found.seqs), found.left_out, self.not_judged, figures)


def spread(name: str, histogram: Histogram, divisor: int = 1) -> dict[str, Any]:
    """Half of the values, 99 of 100, and the greatest, under names that begin with this one."""
    if not histogram.counts:
        return {}
    found = {"p50": histogram.quantile(0.5), "p99": histogram.quantile(0.99), "max": histogram.greatest}
    return {f"{name}_{each}": value / divisor if divisor > 1 else value for each, value in found.items()}
