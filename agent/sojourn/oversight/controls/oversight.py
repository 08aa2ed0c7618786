"""Queries on people: what they agreed to, what they stopped, what they looked at, and that records name them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from sojourn.operating_limits import CONTROL_GRACE_MS, CONTROL_KEYS, CONTROL_NAMED
from sojourn.oversight.controls.authority import TAKEN
from sojourn.oversight.controls.families import judge_due, late_ms
from sojourn.oversight.controls.live_tasks import (
    BLOCK_KINDS,
    BY_BLOCK,
    LINE_MAX,
    Asked,
    Fields,
    LiveTasks,
    is_number,
    person_of,
)
from sojourn.oversight.controls.query import Exceptions, Query, Seen, Whole, spread
from sojourn.oversight.histogram import Histogram
from sojourn.policy.approval_request import Approver
from sojourn.policy.task_type_tables import OPERATOR

_AT_A_GLANCE_MS: Final = 5_000
# Whether somebody agreed to a task: to it or to one of its line, to none, or part of the line is not known. If a task
# is handed on without, no record says whether a condition held.
_AGREED, _NOT, _HANDED_ON, _NOT_KNOWN = "agreed", "not", "handed_on", "not_known"


class Approvals(Query):
    name = "approvals"
    assertion = (
        "whoever agrees has the digest of what was shown, and is not, by user or login, who asked; a task that"
        " waited begins once as many have agreed as its type wants, and never after somebody denied it"
    )
    events = frozenset({"approval_decided", "task_begun"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._verdicts: Counter[str] = Counter()
        self._seconds = Histogram()
        self._glances = self._begun = 0
        # (policy set, type), how many had to agree, and who might -> the beginnings that were agreed to so.
        self._kinds: dict[tuple[tuple[str, str], int, tuple[str, ...]], Exceptions] = {}

    def read(self, seen: Seen) -> None:
        fields, task = seen.fields, seen.task
        asked = None if task is None else task.asked
        if seen.event == "task_begun":
            if asked is not None:
                self._begun += 1
                enough = asked.count >= 1 and len(asked.agreed) >= asked.count and asked.by is not None
                agreed = enough and not asked.denied and "approval" in fields
                self.judge(agreed, seen.seq)
                if agreed:
                    self._note_kind(seen, asked)
            elif "approval" in fields:
                self.unknown_task(seen)
            return
        self._verdicts[fields["verdict"]] += 1
        if asked is None:
            if task is None:
                self.unknown_task(seen)
            else:
                self.not_judged += 1
            return
        self._decided(seen, asked)

    def _decided(self, seen: Seen, asked: Asked) -> None:
        fields = seen.fields
        waited = seen.at_ms - asked.at_ms
        self._seconds.add(waited)
        self._glances += waited < _AT_A_GLANCE_MS
        by = person_of(fields, "by_")
        within = "grants" not in fields or asked.held is None or self.tasks.held(fields["grants"]) <= asked.held
        same = fields["digest"] == asked.digest and ("params" not in fields or fields["params"] == asked.params)
        denied = fields["verdict"] != "approve"
        another = by is not None and asked.by is not None and (denied or not by.is_also(asked.by))
        good = another and within and same and fields["by_role"] in asked.approvers
        self.judge(good, seen.seq)
        if denied:
            asked.denied = True
        elif good and by is not None:
            approver = Approver(by, fields["by_role"])
            if not any(approver.is_also(each) for each in asked.agreed):
                asked.agreed.append(approver)

    def _note_kind(self, seen: Seen, asked: Asked) -> None:
        key = (asked.kind, asked.count, asked.approvers)
        if key in self._kinds or len(self._kinds) < CONTROL_KEYS:
            self._kinds.setdefault(key, Exceptions()).add(seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        if not self.n:
            return {}
        for ((policy_set, type_name), count, approvers), found in self._kinds.items():
            rule = ((whole.types.of(policy_set) or {}).get(type_name) or {}).get("approval")
            if rule is not None and (
                count < rule.get("count", 1) or not {*approvers} <= {*rule.get("approvers", [OPERATOR])}
            ):
                self.exceptions.take(found)
        return {
            "approved": self._verdicts["approve"],
            "denied": self._verdicts["deny"],
            "begun": self._begun,
            **spread("seconds_to_decide", self._seconds, 1_000),
            "decided_within_5_s": self._glances,
        }


class ApprovalWhereRequired(Query):
    name = "approval_where_required"
    assertion = (
        "each task of a type with [approval] begins with an approval, or its record says that the condition of the type"
        " did not hold; one that is handed on is of a line to one of which somebody agreed"
    )
    events = frozenset({"task_begun", "delegation_accepted"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._kinds: dict[tuple[str, str, str, str], Exceptions] = {}

    def _agreed(self, seen: Seen) -> str:
        """Whether somebody agreed to a task, or to one of those that it was handed on by."""
        if seen.event == "task_begun":
            return _AGREED if isinstance(seen.fields.get("approval"), str) else _NOT
        task_id = seen.fields["parent"]
        for _ in range(LINE_MAX):
            task = self.tasks.find(task_id)
            if task is None:
                return _NOT_KNOWN if self.tasks.may_have_begun(task_id) else _NOT
            if task.approved:
                return _AGREED
            if not task.parent:
                return _HANDED_ON
            task_id = task.parent
        return _NOT

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        unless = fields.get("no_approval_unless", "")
        key = (fields["policy_set"], fields["type"], self._agreed(seen), unless if isinstance(unless, str) else "")
        if key not in self._kinds and len(self._kinds) >= CONTROL_KEYS:
            self.not_judged += 1
            return
        self._kinds.setdefault(key, Exceptions()).add(seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        autonomous = 0
        for (policy_set, type_name, agreed, unless), found in self._kinds.items():
            kind = (whole.types.of(policy_set) or {}).get(type_name)
            if kind is None:
                self.not_judged += found.count
                continue
            rule = kind.get("approval")
            if rule is None:
                autonomous += found.count
                continue
            if agreed == _NOT_KNOWN or (agreed == _HANDED_ON and "when" in rule):
                self.not_judged += found.count
                continue
            self.n += found.count
            if agreed != _AGREED and not (unless and unless == rule.get("when")):
                self.exceptions.take(found)
        return {"of_types_without_approval": autonomous}


class KillSwitch(Query):
    name = "kill_switch"
    assertion = (
        "once a type, a workload or a person is blocked no task of it begins and none has a token, until it is"
        f" unblocked; all that were live end within {CONTROL_GRACE_MS // 1_000} s"
    )
    events = TAKEN | {"tasks_blocked", "tasks_unblocked", "task_begun", "delegation_accepted", "task_ended"}

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._off: dict[tuple[str, str], dict[str, int]] = {}  # (kind, name) -> by which source, and since when
        self._ended = 0

    def read(self, seen: Seen) -> None:
        if seen.event == "tasks_blocked":
            self._blocked(seen)
        elif seen.event == "tasks_unblocked":
            for each in _named(seen.fields):
                self._unblocked(each, seen.fields.get("source"))
        elif seen.event == "task_ended":
            late = late_ms(seen, BY_BLOCK)
            if late is not None and late > CONTROL_GRACE_MS:
                self.exceptions.add(seen.seq)
        elif self._off and any(
            seen.when_ms > since for each in _named(seen.fields) for since in self._off.get(each, _NEVER).values()
        ):
            self.exceptions.add(seen.seq)

    def _blocked(self, seen: Seen) -> None:
        named, ended = _named(seen.fields), seen.fields.get("ended")
        if not named or not is_number(ended) or len(self._off) >= CONTROL_NAMED:
            self.not_judged += 1
        else:
            self.n += 1
            self._ended += ended
        if len(self._off) < CONTROL_NAMED:
            for each in named:
                self._off.setdefault(each, {}).setdefault(str(seen.fields.get("source", "")), seen.at_ms)

    def _unblocked(self, named: tuple[str, str], source: Any) -> None:
        """An issuer takes back what it said itself; an operator switches on whatever anybody has switched off."""
        if source is None:
            self._off.pop(named, None)
        elif named in self._off:
            self._off[named].pop(str(source), None)
            if not self._off[named]:
                del self._off[named]

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        judge_due(self, BY_BLOCK, whole)
        return {"tasks_ended": self._ended, "in_force": len(self._off)} if self.n else {}


_NEVER: Final[Mapping[str, int]] = {}


def _named(fields: Fields) -> list[tuple[str, str]]:
    """What a record names of that which can be off."""
    return [(kind, fields[kind]) for kind in BLOCK_KINDS if isinstance(fields.get(kind), str)]


class Drills(Query):
    name = "drills"
    assertion = "each drill of the kill switch found what was to be expected"
    events = frozenset({"drill_done"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._ms = Histogram()

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        ms = round(fields["ms"])
        if is_number(ms):
            self._ms.add(ms)
        self.judge(fields["found"] == fields["expected"], seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return spread("ms", self._ms)


_ACTS: Final = frozenset(
    {"approval_decided", "review_done", "review_decided", "tasks_blocked", "tasks_unblocked", "svids_revoked"}
    | {"task_revoked_by_operator", "task_suspended_by_operator", "task_resumed_by_operator"}
)


class ActsNamed(Query):
    name = "acts_named"
    assertion = "each approval, review, stop and revocation names who did it: a user of the machine, or a signed source"
    events = _ACTS

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._by_event: Counter[str] = Counter()

    def read(self, seen: Seen) -> None:
        self._by_event[seen.event] += 1
        fields = seen.fields
        named = any(isinstance(fields.get(name), str) and fields[name].strip() for name in ("by", "source"))
        self.judge(named or is_number(fields.get("by_uid")), seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return {event: self._by_event[event] for event in sorted(self._by_event)}
