"""What records say of the tasks that are live at a record: what each holds, whether it is active, what came of it.

A task is forgotten with its end, but for the last of them: a record that was made before a change may stand behind that
of the change, since what grants and what takes away are written apart. Which was first `at_ms` tells.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeGuard

from sojourn.operating_limits import CONTROL_ENDED, CONTROL_GRACE_MS, CONTROL_TASKS
from sojourn.policy.approval_request import Approver, Person

Fields = Mapping[str, Any]
Held = frozenset[tuple[str, str]]  # (resource, action)
BEGINNINGS: Final = frozenset({"task_pending", "task_begun", "delegation_accepted"})
CHANGES: Final = BEGINNINGS | {"task_narrowed", "task_suspended", "task_resumed", "task_ended", "tasks_blocked"}
_NUMBER_END: Final = 1 << 53
LINE_MAX: Final = 64  # tasks from one that was handed on up to the first; more than a type may have
BY_PARENT, BY_BLOCK = "parent", "block"
BLOCK_KINDS: Final = ("type", "spiffe_id", "person")  # by which field of its record a block says what is off


@dataclass(slots=True)
class Asked:
    """What a task waits for that somebody must agree to: who asked, what was shown, and what was said to it so far."""

    digest: str
    by: Person | None  # who asked; None: the record does not say
    approvers: tuple[str, ...]
    count: int
    at_ms: int
    held: Held | None
    params: Any
    kind: tuple[str, str]  # policy set and type, which say who must agree
    agreed: list[Approver] = field(default_factory=list)  # no two of them are one
    denied: bool = False


class Due(NamedTuple):
    """Since when, and since which record, a live task has to end, and by what."""

    at_ms: int
    seq: int
    by: str


@dataclass(slots=True, eq=False)
class LiveTask:
    """One task. `held` None: no record says what it holds. `asked`: it waits, or has just begun."""

    id: str
    type: str
    spiffe_id: str
    person: str
    seq: int
    held: Held | None
    line: tuple[str, ...]  # the workloads that have had it, its own at the end
    pending: bool = False
    asked: Asked | None = None
    approved: bool = False  # it began once somebody had agreed
    parent: str = ""
    held_before: Held | None = None  # it was narrowed since, at `narrowed_ms`
    narrowed_ms: int | None = None
    causes: frozenset[str] = frozenset()  # of its suspension
    suspended_ms: int = 0
    ended_ms: int | None = None
    end_reason: str = ""
    heirs: set[str] | None = None  # live tasks that it handed on
    accepted: int = 0  # all of them, so far
    tickets: dict[str, tuple[str, Held]] | None = None  # that nobody has used: for whom, and for what
    dues: tuple[Due, ...] = ()  # of each reason the first

    def due(self, by: str) -> Due | None:
        """Since when it has to end for this reason; None: it need not."""
        return next((each for each in self.dues if each.by == by), None)

    def held_at(self, at_ms: int) -> Held | None:
        """What it held then; of before its last change it is what it held before."""
        if self.narrowed_ms is not None and at_ms <= self.narrowed_ms:
            return self.held_before
        return self.held

    def active_at(self, at_ms: int) -> bool:
        """Whether it had authority then."""
        if self.pending or (self.ended_ms is not None and at_ms > self.ended_ms):
            return False
        return not self.causes or at_ms <= self.suspended_ms


class LiveTasks:
    """All of them, by the records so far."""

    def __init__(self, most: int = CONTROL_TASKS, ended_most: int = CONTROL_ENDED) -> None:
        """`most`: live tasks that are kept; `ended_most`: those that have ended."""
        self._most, self._ended_most = most, ended_most
        self._live: dict[str, LiveTask] = {}
        self._of: dict[tuple[str, str], dict[str, LiveTask]] = {}  # live tasks by what can be off: a kind, and a name
        self._ended: OrderedDict[str, LiveTask] = OrderedDict()
        self._same: dict[Held, Held] = {}
        self.first_seq = 0  # of the first record; 0: there was none
        self.begun_before: set[str] = set()  # IDs, as far as there is room, of tasks that no record here begins
        self.begun_before_more = 0
        self.no_room = 0  # tasks for which there was none
        self.unreadable = 0  # records that lack what a task is known by
        self._unreadable: set[str] = set()  # IDs of their tasks, as far as there is room

    @property
    def knows_all(self) -> bool:
        """Whether a task that is not known cannot have begun: the records begin with the journal's first."""
        return self.first_seq == 1 and not self.no_room

    @property
    def not_kept(self) -> int:
        """Tasks that are not known although they began here."""
        return self.no_room + self.unreadable

    def may_have_begun(self, task_id: object) -> bool:
        """Whether a task that is not known may have begun: before the records, or by one that nobody can read."""
        return not self.knows_all or task_id in self._unreadable

    def find(self, task_id: str) -> LiveTask | None:
        """A live task, or one that has ended lately."""
        return self._live.get(task_id) or self._ended.get(task_id)

    def all_live(self) -> Iterator[LiveTask]:
        return iter(self._live.values())

    def held(self, grants: Sequence[Fields]) -> Held:
        """What grants of a record say, the same object for the same grants."""
        found = held_of(grants)
        if len(self._same) > self._ended_most:
            self._same.clear()
        return self._same.setdefault(found, found)

    def _held(self, fields: Fields) -> Held | None:
        """What a record gives or leaves; None: it does not say, or nobody can read it."""
        try:
            return self.held(fields["grants"])
        except (LookupError, TypeError):
            return None

    def cannot_read(self, fields: Fields) -> None:
        """Count a record that lacks what a task is known by."""
        self.unreadable += 1
        task_id = fields.get("task")
        if not isinstance(task_id, str):
            return
        if len(self._unreadable) < self._ended_most:
            self._unreadable.add(task_id)
        else:
            self.no_room += 1

    def missed(self, task_id: str) -> None:
        """Count a task whose beginning no record has."""
        if task_id in self.begun_before:
            return
        if len(self.begun_before) < self._ended_most:
            self.begun_before.add(task_id)
        else:
            self.begun_before_more += 1

    # --- records ----------------------------------------------------------------------------------------------------

    def before(self, seq: int, at_ms: int, event: str, fields: Fields) -> LiveTask | None:
        """The task that a record is about, if it is known: one that begins is, with what it asks for."""
        task_id = fields.get("task")
        if task_id is None:
            return None
        found = self.find(task_id)
        if found is None and event in BEGINNINGS:
            return self._begin(seq, at_ms, event, fields)
        return found

    def behind(self, seq: int, at_ms: int, event: str, fields: Fields) -> None:
        """Have what the record changes; whoever judges it has done so."""
        if event == "tasks_blocked":
            self._block(seq, at_ms, fields)
            return
        task = self._live.get(fields["task"])
        if task is None:
            return
        if event == "task_begun":
            task.pending, task.asked = False, None
            task.approved = task.approved or isinstance(fields.get("approval"), str)
            task.held = self._held(fields)
        elif event == "task_narrowed":
            self._narrow(task, at_ms, fields)
        elif event == "task_suspended":
            if not task.causes:
                task.suspended_ms = at_ms
            task.causes |= {str(fields.get("cause"))}
        elif event == "task_resumed":
            task.causes -= {str(fields.get("cause"))}
        elif event == "task_ended":
            self._end(task, seq, at_ms, fields)

    def _begin(self, seq: int, at_ms: int, event: str, fields: Fields) -> LiveTask | None:
        task_id = fields["task"]
        held = self._held(fields)
        task = LiveTask(
            task_id, fields["type"], fields["spiffe_id"], fields.get("person", ""), seq, held, (fields["spiffe_id"],)
        )
        if event == "task_pending":
            task.pending, task.asked = True, _asked(fields, at_ms, held)
        if event == "delegation_accepted":
            task.parent = fields["parent"]
            task.line = (fields["subject"], *reversed(fields["actors"]))
        if len(self._live) >= self._most:
            self.no_room += 1
            return None
        self._live[task_id] = task
        for each in _named(task):
            self._of.setdefault(each, {})[task_id] = task
        parent = self.find(task.parent) if task.parent else None
        if parent is not None:
            parent.accepted += 1
            before = parent.due(BY_PARENT)
            if parent.ended_ms is not None:
                task.dues = (Due(parent.ended_ms, seq, BY_PARENT),)
            else:
                task.dues = () if before is None else (before,)
                parent.heirs = parent.heirs or set()
                parent.heirs.add(task_id)
        return task

    def _narrow(self, task: LiveTask, at_ms: int, fields: Fields) -> None:
        if task.narrowed_ms is None or at_ms - task.narrowed_ms > CONTROL_GRACE_MS:
            task.held_before = task.held
        task.narrowed_ms = at_ms
        task.held = self._held(fields)

    def _end(self, task: LiveTask, seq: int, at_ms: int, fields: Fields) -> None:
        task.ended_ms, task.end_reason = at_ms, fields.get("reason", "")
        below = [*(task.heirs or ())]
        while below:
            heir = self._live.get(below.pop())
            if heir is not None and heir.due(BY_PARENT) is None:
                heir.dues += (Due(at_ms, seq, BY_PARENT),)
                below.extend(heir.heirs or ())
        parent = self._live.get(task.parent)
        if parent is not None and parent.heirs is not None:
            parent.heirs.discard(task.id)
        task.heirs = task.tickets = task.asked = None
        del self._live[task.id]
        for each in _named(task):
            self._of[each].pop(task.id)
            if not self._of[each]:
                del self._of[each]
        self._ended[task.id] = task
        if len(self._ended) > self._ended_most:
            self._ended.popitem(last=False)

    def _block(self, seq: int, at_ms: int, fields: Fields) -> None:
        for kind in BLOCK_KINDS:
            for task in self._of.get((kind, str(fields.get(kind, ""))), {}).values():
                if task.due(BY_BLOCK) is None:
                    task.dues += (Due(at_ms, seq, BY_BLOCK),)


def _named(task: LiveTask) -> list[tuple[str, str]]:
    """By what a block may be of it."""
    named = zip(BLOCK_KINDS, (task.type, task.spiffe_id, task.person), strict=True)
    return [(kind, name) for kind, name in named if name]


def _asked(fields: Fields, at_ms: int, held: Held | None) -> Asked:
    count = fields["count"] if is_number(fields["count"]) else 0
    kind = (str(fields.get("policy_set", "")), str(fields["type"]))
    by, approvers = person_of(fields), tuple(fields["approvers"])
    return Asked(fields["digest"], by, approvers, count, at_ms, held, fields.get("params"), kind)


def held_of(grants: Sequence[Fields]) -> Held:
    """What grants of a record say."""
    return frozenset((each["resource"], action) for each in grants for action in each["actions"])


def person_of(fields: Fields, by: str = "") -> Person | None:
    """Whom a record names by its fields `uid`, `login_uid` and `subuid_of`, each behind `by`. What is no number is not
    known; None: who is not.
    """
    uid, login_uid, subuid_of = (
        fields[name] if is_number(fields.get(name := f"{by}{each}")) else None
        for each in ("uid", "login_uid", "subuid_of")
    )
    return None if uid is None else Person(uid, login_uid, 0, subuid_of=subuid_of)


def is_number(value: Any) -> TypeGuard[int]:
    """Whether a value of a record is a whole number from 0 on, and no more than JSON has exactly."""
    return type(value) is int and 0 <= value < _NUMBER_END
