"""Queries on what people look at: broken glass after each use, and types and workloads when their review is due."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sojourn.operating_limits import CONTROL_GRACE_MS, CONTROL_KEYS, CONTROL_NAMED
from sojourn.oversight.controls.live_tasks import LINE_MAX, Fields, LiveTasks, person_of
from sojourn.oversight.controls.query import Exceptions, Query, Seen, Whole
from sojourn.policy.approval_request import Person

_DECISIONS: Final = frozenset({"keep", "narrow", "retire"})
_RETIRE: Final = "retire"
_TYPE: Final = "type:"  # an item's ID, and behind it the type's name


@dataclass(slots=True)
class Owed:
    """A review that is owed. `over_ms`: since when its task is over; None: no record says that it is."""

    seq: int
    type: str
    by: Person | None  # who broke the glass
    over_ms: int | None = None


@dataclass(slots=True)
class Begun:
    """Tasks of one type that begin without saying that it is break-glass: with a review that is owed, and without."""

    owed: int = 0
    not_owed: Exceptions = field(default_factory=Exceptions)


class BreakGlass(Query):
    name = "break_glass_reviewed"
    assertion = (
        "each break-glass task owes a review before it begins, no other of its type begins until that is done, whoever"
        " did it shares no user or login with whoever broke the glass, and of no task that is over it is left open"
    )
    events = frozenset(
        {"review_owed", "review_done", "review_withdrawn", "task_begun", "delegation_accepted", "task_ended"}
    )

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._owed: dict[str, Owed] = {}  # by task
        self._types: Counter[str] = Counter()  # how many are owed of it
        self._begun: dict[tuple[str, str], Begun] = {}  # by policy set and type

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        if seen.event == "task_ended":
            owed = self._owed.get(fields["task"])
            if owed is not None and owed.over_ms is None:
                owed.over_ms = seen.at_ms
        elif seen.event == "review_owed":
            self._owe(seen)
        elif seen.event in {"task_begun", "delegation_accepted"}:
            self._begins(seen)
        else:
            owed = self._owed.pop(fields["task"], None)
            if owed is not None:
                self._types[owed.type] -= 1
            if seen.event == "review_done":
                self._done(seen, owed)

    def _owe(self, seen: Seen) -> None:
        kind, task, by = seen.fields["type"], seen.fields["task"], person_of(seen.fields)
        self.judge(by is not None and not self._types[kind] and task not in self._owed, seen.seq)
        if task in self._owed:
            return
        if len(self._owed) >= CONTROL_NAMED:
            self.not_judged += 1
            return
        self._owed[task] = Owed(seen.seq, kind, by)
        self._types[kind] += 1

    def _begins(self, seen: Seen) -> None:
        fields = seen.fields
        owed = self._owes(fields["type"], fields["task"])
        if fields.get("break_glass"):
            self.judge(owed, seen.seq)
            return
        key = (fields["policy_set"], fields["type"])
        if key not in self._begun and len(self._begun) >= CONTROL_KEYS:
            self.not_judged += 1
            return
        begun = self._begun.setdefault(key, Begun())
        if owed:
            begun.owed += 1
        else:
            begun.not_owed.add(seen.seq)

    def _owes(self, kind: str, task_id: str) -> bool:
        """Whether a review is owed of a task, or of one that it was handed on by."""
        for _ in range(LINE_MAX):
            owed = self._owed.get(task_id)
            if owed is not None:
                return owed.type == kind
            task = self.tasks.find(task_id)
            if task is None or not task.parent:
                return False
            task_id = task.parent
        return False

    def _done(self, seen: Seen, owed: Owed | None) -> None:
        by, whose = person_of(seen.fields, "by_"), person_of(seen.fields)
        another = by is not None and whose is not None and not by.is_also(whose)
        if owed is None and not self.tasks.knows_all:
            self.judge(another, seen.seq)
            return
        self.judge(owed is not None and another and whose == owed.by, seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        for (policy_set, type_name), begun in self._begun.items():
            kind = (whole.types.of(policy_set) or {}).get(type_name)
            if kind is None:
                self.not_judged += begun.owed + begun.not_owed.count
            elif kind.get("break_glass") is True:
                self.n += begun.owed + begun.not_owed.count
                self.exceptions.take(begun.not_owed)
        for task_id, owed in self._owed.items():
            if owed.over_ms is not None and whole.last_ms - owed.over_ms > CONTROL_GRACE_MS:
                self.exceptions.add(owed.seq)
            elif owed.over_ms is not None or self.tasks.find(task_id) is None:
                self.not_judged += 1
        return {"open": len(self._owed)} if self.n else {}


class Reviews(Query):
    name = "reviews"
    assertion = (
        "each review that was overdue is decided on by the end of the records, however late, and what was to be retired"
        " is no type any more"
    )
    events = frozenset({"review_decided", "review_overdue"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._overdue: dict[str, tuple[int, bool]] = {}  # item -> the record, and whether it is to be retired
        self._decisions: Counter[str] = Counter()

    def read(self, seen: Seen) -> None:
        item = seen.fields["item"]
        if seen.event == "review_decided":
            self.n += 1
            decision = str(seen.fields["decision"])
            self._decisions[decision if decision in _DECISIONS else "others"] += 1
            if decision == _RETIRE and item in self._overdue:
                self._overdue[item] = (self._overdue[item][0], True)
            elif decision in _DECISIONS:
                self._overdue.pop(item, None)
        elif item not in self._overdue:
            if len(self._overdue) >= CONTROL_NAMED:
                self.not_judged += 1
                return
            self.n += 1
            self._overdue[item] = (seen.seq, False)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        overdue = 0
        types = _last_types(whole)
        for item, (seq, retired) in self._overdue.items():
            if retired and types is None:  # whether it is gone nobody knows
                self.n -= 1
                self.not_judged += 1
            elif not retired or (types is not None and item.removeprefix(_TYPE) in types):
                overdue += 1
                self.exceptions.add(seq)
        return {**dict(sorted(self._decisions.items())), "overdue": overdue} if self.n else {}


def _last_types(whole: Whole) -> Mapping[str, Fields] | None:
    """The types of the last set that records name; None: there is none, or it is not here."""
    last = max(whole.sets, key=lambda digest: whole.sets[digest][1], default=None)
    return None if last is None else whole.types.of(last)
