"""What services refused: who tries what under which task, for operators.

Whoever may tell of it could tell a million times, so that each service and each task has so many records a minute; what
is more is counted, and the counts are recorded when the minute is over. A request that came without a token of a task
is counted and not recorded by itself.
"""

import re
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from sojourn.audit.journal import Audit
from sojourn.limits import (
    AUDITED_TEXT,
    REFUSAL_CODES,
    REFUSAL_KINDS_COUNTED,
    REFUSALS_RECORDED,
    REFUSALS_RECORDED_OF_TASK,
    REFUSALS_SHOWN,
    REFUSED_TASKS_KEPT,
)
from sojourn.quota.lru import Lru
from sojourn.runtime.clock import Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import Task
from sojourn.tasktoken.request_record import NOTHING_SAID, Served

log = structlog.get_logger()
MINUTE_SECONDS: Final = 60.0
OTHER: Final = "other"
_CODE: Final = re.compile("[a-z0-9_]{1,40}")
# What our own guards tell. Whoever makes up others takes no place of these.
OURS: Final = frozenset(
    {
        *("no_token", "no_action", "not_approved", "internal", "invalid_request", "invalid_input", "too_large"),
        *("action_not_allowed", "wrong_params", "unbound_parameter", "limit_reached", "limit_exceeded"),
        *("task_over", "superseded", "expired", "not_yet_valid", "used", "use_needed", "revoked", "replayed"),
        *("malformed", "wrong_type", "wrong_audience", "wrong_issuer", "bad_signature", "bad_algorithm", "unknown_key"),
        *("wrong_binding", "unproved_binding", "invalid_key", "wrong_url", "wrong_scheme", "several_proofs"),
        *("unavailable", "stale_feed", "store_failed", "store_full", "database_damaged", "action_not_granted"),
    }
)


@dataclass(frozen=True, slots=True)
class RefusedRequests:
    """Requests with tokens of one task that a service refused for one reason. `request`: one of them, or nothing."""

    at: int  # seconds since the epoch
    resource: str
    code: str
    request: Served
    count: int


@dataclass(slots=True)
class TriedAction:
    """What was refused of one task since the agent was started: how often, and the last of it, oldest first."""

    count: int = 0
    last: deque[RefusedRequests] = field(default_factory=lambda: deque(maxlen=REFUSALS_SHOWN))


_NOTHING: Final = TriedAction()
_Kind = tuple[str, str]  # for which resource, of which task or ''


class RefusalCounts:
    """Remembers and records what services tell."""

    def __init__(self, engine: TaskEngine, audit: Audit, alarms: Alarms, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._alarms = alarms
        self._clock = clock
        self._tried: Lru[str, TriedAction] = Lru(REFUSED_TASKS_KEPT, by_age=True)  # by task
        self._codes: set[str] = set()  # of others
        self._recorded: Counter[str] = Counter()  # in this minute, by task and by service
        self._more: dict[str, dict[_Kind, Counter[str]]] = {}  # by whom they were told, counted in this minute, by code
        self._running = False  # a minute
        self.on_refused: Hooks[[str, str, int]] = Hooks()  # requests of a task's type, or of '', for a code

    def of(self, task_id: str) -> TriedAction:
        return self._tried.get(task_id) or _NOTHING

    def note(self, by: str, resource: str, task: Task, code: str, request: Served, count: int) -> None:
        """A service's workload `by` tells that it refused requests with tokens of a task."""
        code = self._known(code)
        told = RefusedRequests(int(self._clock.now().timestamp()), resource[:AUDITED_TEXT], code, request, count)
        tried = self._tried.get(task.id) or TriedAction()
        tried.count += count
        tried.last.append(told)
        self._tried.put(task.id, tried)
        if request is not NOTHING_SAID and self._has_room(by, task.id):
            about = {"resource": told.resource, "by": by, "code": code, "count": count, **request.record()}
            self._audit.note("request_refused", **self._engine.named(task), **about)
        else:
            self._add(by, (told.resource, task.id), code, count)
        self.on_refused.tell(task.type.name, code, count)

    def count(self, by: str, resource: str, code: str, count: int) -> None:
        """The same of requests whose task is not known: they are counted alone."""
        code = self._known(code)
        self._add(by, (resource[:AUDITED_TEXT], ""), code, count)
        self.on_refused.tell("", code, count)

    def finish(self) -> None:
        """Record what was counted in this minute, and begin another one."""
        more, self._more = self._more, {}
        self._recorded.clear()
        self._running = False
        for by, kinds in more.items():
            for (resource, task_id), codes in kinds.items():
                about: dict[str, Any] = {"task": task_id or None, "resource": resource, "by": by}
                self._audit.note("refusals_counted", **about, count=codes.total(), codes=dict(codes))
                if task_id:  # more than anybody does by mistake
                    reason = f"services refused many requests of the task: {', '.join(sorted(codes))}"
                    log.warning(
                        "requests_refused", task_id=task_id, resource=resource, count=codes.total(), reason=reason
                    )

    def _has_room(self, by: str, task_id: str) -> bool:
        """Whether another one may be recorded by itself; it counts."""
        self._begin()
        if self._recorded[task_id] >= REFUSALS_RECORDED_OF_TASK or self._recorded[by] >= REFUSALS_RECORDED:
            return False
        self._recorded[task_id] += 1
        self._recorded[by] += 1
        return True

    def _add(self, by: str, kind: _Kind, code: str, count: int) -> None:
        self._begin()
        kinds = self._more.setdefault(by, {})
        if kind not in kinds and len(kinds) >= REFUSAL_KINDS_COUNTED:
            kind = (OTHER, "")
        kinds.setdefault(kind, Counter())[code] += count

    def _begin(self) -> None:
        if not self._running:
            self._running = True
            self._alarms.after(MINUTE_SECONDS, self.finish)

    def _known(self, code: str) -> str:
        """The code, unless there are too many: nobody makes up metrics and records of any length."""
        if code in OURS or code in self._codes:
            return code
        if len(self._codes) >= REFUSAL_CODES or not _CODE.fullmatch(code):
            return OTHER
        self._codes.add(code)
        return code
