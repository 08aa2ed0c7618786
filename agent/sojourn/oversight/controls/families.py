"""Queries on tasks that are handed on: by a ticket or a token alone, never more than their parent, never after it."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from sojourn.operating_limits import CONTROL_GRACE_MS, CONTROL_KEYS, CONTROL_TOKENS
from sojourn.oversight.controls.authority import CLOCK_MS
from sojourn.oversight.controls.live_tasks import BY_PARENT, Held, LiveTask, LiveTasks, held_of, is_number
from sojourn.oversight.controls.query import Exceptions, Query, Seen, Whole, spread
from sojourn.oversight.histogram import Histogram

# What a type's [delegation] says where it does not say it.
MAX_DEPTH, MAX_CHILDREN = 1, 5


class HandOvers(Query):
    name = "hand_overs"
    assertion = (
        "each task that was handed on has a live parent that made the ticket for this workload, or had the token by"
        " which the service went on; it has no more than both, and names all who act, one by one"
    )
    events = frozenset({"token_issued", "task_delegated", "delegation_accepted", "delegation_denied"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        # jti -> the task, its actions, and until when it is good, in seconds; of the last ones.
        self._tokens: OrderedDict[str, tuple[str, frozenset[str], int]] = OrderedDict()
        self._forgotten = False
        self._by_token = self._made = self._refused = 0

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        if seen.event == "token_issued":
            until = fields["expires_at"] if is_number(fields["expires_at"]) else 0
            self._tokens[fields["jti"]] = (fields["task"], frozenset(fields["actions"]), until)
            if len(self._tokens) > CONTROL_TOKENS:
                self._tokens.popitem(last=False)
                self._forgotten = True
        elif seen.event == "delegation_denied":
            self._refused += 1
        elif seen.event == "task_delegated":
            self._made += 1
            if seen.task is not None:
                tickets = seen.task.tickets = seen.task.tickets or {}
                tickets[fields["ticket"]] = (fields["to"], self.tasks.held(fields["grants"]))
        else:
            self._accepted(seen)

    def _accepted(self, seen: Seen) -> None:
        fields, task = seen.fields, seen.task
        parent = self.tasks.find(fields["parent"])
        if parent is None or task is None:
            if self.tasks.may_have_begun(fields["parent"]) or self.tasks.may_have_begun(fields["task"]):
                self.not_judged += 1
            else:
                self.judge(False, seen.seq)
            return
        held, most = None if task.held is None else held_of(fields["grants"]), parent.held_at(seen.when_ms)
        by = self._by(seen, parent, most)
        if held is None or most is None or by is None:
            self.not_judged += 1
            return
        line = (*parent.line, fields["spiffe_id"])
        said = (fields["subject"], *reversed(fields["actors"]))
        good = parent.active_at(seen.when_ms) and held <= most and held <= by
        self.judge(good and said == line and fields["depth"] == len(line) - 1, seen.seq)

    def _by(self, seen: Seen, parent: LiveTask, most: Held | None) -> Held | None:
        """The most that the ticket or token gives; None: that is not known. Nothing is what a false one gives."""
        fields = seen.fields
        if "by_token" in fields:
            self._by_token += 1
            token = self._tokens.get(fields["by_token"])
            if token is None:
                return None if self._forgotten or not self.tasks.knows_all else frozenset()
            task, actions, until = token
            if task != parent.id or seen.at_ms > until * 1_000 + CLOCK_MS:
                return frozenset()
            return None if most is None else frozenset(each for each in most if each[1] in actions)
        if parent.tickets is None and parent.ended_ms is not None:  # it ended meanwhile, and its tickets with it
            return None
        to, held = (parent.tickets or {}).pop(fields["ticket"], ("", frozenset()))
        return held if to == fields["spiffe_id"] else frozenset()

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return {"tickets_made": self._made, "by_token": self._by_token, "refused": self._refused}


class Cascade(Query):
    name = "cascade"
    assertion = f"each task that was handed on ends within {CONTROL_GRACE_MS // 1_000} s of its parent's end"
    events = frozenset({"task_ended"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._late = Histogram()

    def read(self, seen: Seen) -> None:
        late = late_ms(seen, BY_PARENT)
        if late is not None:
            self._late.add(late)
            self.judge(late <= CONTROL_GRACE_MS, seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        self.n += judge_due(self, BY_PARENT, whole)
        return spread("ms", self._late)


def late_ms(seen: Seen, by: str) -> int | None:
    """How long after it had to a task ends, by the record of its end; None: it did not have to."""
    task = seen.task
    due = None if task is None or task.ended_ms is not None else task.due(by)
    return None if due is None else seen.at_ms - due.at_ms


def judge_due(query: Query, by: str, whole: Whole) -> int:
    """Judge the tasks that are live at the end of the records and had to end before, and return how many there are."""
    found = 0
    for task in query.tasks.all_live():
        due = task.due(by)
        if due is None:
            continue
        if whole.last_ms - due.at_ms <= CONTROL_GRACE_MS:
            query.not_judged += 1
        else:
            found += 1
            query.exceptions.add(due.seq)
    return found


class FanOut(Query):
    name = "fan_out"
    assertion = (
        "no task is handed on further, or as more tasks, than its type says ([delegation] max_depth, max_children)"
    )
    events = frozenset({"delegation_accepted"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._kinds: dict[tuple[str, str, int, int], Exceptions] = {}

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        parent = self.tasks.find(fields["parent"])
        if parent is None:
            self.not_judged += 1
            return
        if not is_number(fields["depth"]):
            self.judge(False, seen.seq)
            return
        key = (fields["policy_set"], fields["type"], fields["depth"], parent.accepted)
        if key not in self._kinds and len(self._kinds) >= CONTROL_KEYS:
            self.not_judged += 1
            return
        self._kinds.setdefault(key, Exceptions()).add(seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        depth_max = children_max = 0
        for (policy_set, type_name, depth, children), found in self._kinds.items():
            kind = (whole.types.of(policy_set) or {}).get(type_name)
            if kind is None:
                self.not_judged += found.count
                continue
            self.n += found.count
            depth_max, children_max = max(depth_max, depth), max(children_max, children)
            rule = kind.get("delegation")
            if (
                rule is None
                or depth > rule.get("max_depth", MAX_DEPTH)
                or children > rule.get("max_children", MAX_CHILDREN)
            ):
                self.exceptions.take(found)
        return {"depth_max": depth_max, "children_max": children_max} if self.n else {}
