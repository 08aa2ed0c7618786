"""What becomes of the tasks that an earlier run of the agent left alive.

Those of this boot of the machine come up suspended, and wait REATTACH_SECONDS for their holders (reattachment.py gives
them back). The others end: their time is over, their holder has gone or changed, or what they were begun under has.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import structlog

from sojourn.attestation.process import Process, Program
from sojourn.audit.journal import Audit, Event
from sojourn.errors import AttestationFailed, InvalidInput, PolicyDenied, Refused, SojournError
from sojourn.identity.registry import Registry
from sojourn.jose.canonical_json import exactly
from sojourn.limits import DELEGATION_DEPTH, REATTACH_SECONDS
from sojourn.policy import rules
from sojourn.policy.task_types import TaskType
from sojourn.runtime.clock import Alarms
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import Hold, Holders
from sojourn.tasks.kept_fields import ONE_SHOT, fields_of
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.spent import Spent
from sojourn.tasks.task import CASCADED, EXPIRED, PENDING, REVOKED, Task
from sojourn.tasks.task_record import JournaledTask, TaskRecord
from sojourn.tasktoken.end_reasons import (
    AGENT_RESTART,
    ATTESTATION_CHANGED,
    BLOCKED,
    DEADLINE,
    HOLDER_EXITED,
    IDLE,
    JOURNAL_DAMAGED,
    PARENT,
    PARENT_ENDED,
    PARENT_NARROWED,
    PARENT_SUSPENDED,
    POLICY_CHANGED,
    RESTART,
)

log = structlog.get_logger()


class EarlierTasks(Protocol):
    """The journal of earlier runs."""

    async def unfinished(self) -> Sequence[JournaledTask]: ...

    async def take_over(self, changes: Sequence[tuple[TaskRecord, Event]]) -> None: ...


class Recovery:
    """Takes earlier tasks over: `run` before anything is served, `open_window` once holders can come back."""

    def __init__(
        self,
        engine: TaskEngine,
        ending: MassEnd,
        registry: Registry,
        holders: Holders,
        store: EarlierTasks,
        audit: Audit,
        alarms: Alarms,
    ) -> None:
        self._engine = engine
        self._ending = ending
        self._registry = registry
        self._holders = holders
        self._store = store
        self._audit = audit
        self._alarms = alarms

    async def run(self) -> None:
        """Suspend or end each task that was left, and return when all of it is on disk. Raise what the store raises."""
        found = sorted(await self._store.unfinished(), key=_depth)  # parents before their children
        spent: dict[str, Spent] = {}  # of each task that was left, which its family shares
        settled = [self._settle(journaled, spent) for journaled in found]
        changes = [(each.record() if isinstance(each, Task) else each, event) for each, event in settled]
        if changes:
            await self._store.take_over(changes)
            log.info("tasks_taken_over", found=len(changes), suspended=len(self._engine.tasks))

    def open_window(self) -> None:
        """Let holders re-attach for REATTACH_SECONDS from now; the tasks of those that have not by then end."""
        self._alarms.after(REATTACH_SECONDS, self._close_window)

    def _close_window(self) -> None:
        left = [task for task in self._engine.tasks.all() if task.live and RESTART in task.suspensions]
        self._ending.end_all(left, REVOKED, AGENT_RESTART)

    def _settle(self, journaled: JournaledTask, spent: dict[str, Spent]) -> tuple[Task | TaskRecord, Event]:
        """Take one task over if it may live; return it, or what is to be written of its end."""
        try:
            document = exactly(dict, json.loads(journaled.unverified_document))
            # Of another boot, or of a release whose tasks did not outlive it.
            # Nor does one come back that nobody had agreed to.
            pending = journaled.unverified_state == PENDING
            if not journaled.same_boot or "deadline" not in document or pending:
                return self._over(journaled.id, document, REVOKED, AGENT_RESTART)
            left = _Left.parse(journaled, document, self._engine.epoch)
            _share(left, spent)
            found = self._why_over(left) or self._under_parent(left) or self._revive(left)
        except Exception as error:  # noqa: BLE001  # a damaged row may raise anything, and must not stop the agent
            return self._damaged(journaled, error)
        if isinstance(found, Task):
            self._engine.adopt(found)
            return found, self._engine.event("task_suspended", found, cause=RESTART, reason=AGENT_RESTART)
        return self._over(left.id, document, *found)

    def _over(self, task_id: str, document: dict[str, Any], state: str, reason: str) -> tuple[TaskRecord, Event]:
        """The end of a task; its document need not tell more than whose task of which type it was."""
        named = {"type": exactly(str, document["type"]), "spiffe_id": exactly(str, document["spiffe_id"])}
        fields = {"task": task_id, **named, "uid": exactly(int, document["uid"]), "state": state, "reason": reason}
        ended = {**document, "reason": reason, "suspensions": {}}
        record = TaskRecord(task_id, state, self._engine.next_version(), ended)
        return record, self._audit.event("task_ended", fields)

    def _why_over(self, left: "_Left") -> tuple[str, str] | None:
        """The state and reason with which a task ends, whoever its holder is; None if nothing is against it."""
        kind, boot = self._engine.types.get(left.type_name), self._engine.clock.boot()
        if left.fields["binding"] == ONE_SHOT:
            return REVOKED, AGENT_RESTART
        if kind is None or kind.digest != left.type_digest:
            return REVOKED, POLICY_CHANGED
        if boot >= left.fields["deadline"]:
            return EXPIRED, DEADLINE
        if kind.idle_timeout is not None and boot >= left.fields["last_used"] + kind.idle_timeout.total_seconds():
            return EXPIRED, IDLE
        left.check(kind, boot)
        try:
            self._engine.blocks.check(kind.name, left.fields["spiffe_id"])
        except PolicyDenied:
            return REVOKED, BLOCKED
        entry = self._registry.known(left.fields["entry_id"], left.fields["spiffe_id"])
        if entry is None or not self._registry.serves(entry):
            return REVOKED, ATTESTATION_CHANGED
        return None

    def _under_parent(self, left: "_Left") -> tuple[str, str] | None:
        """Fit a task that was handed on under its parent, which stands among the live ones already, or say how it ends.

        What took something from the parent may have been written without what took it from the child.
        """
        parent_id = left.fields["parent_id"]
        if not parent_id:
            return None
        parent = self._engine.tasks.find(parent_id)
        if parent is None or not parent.live:
            return CASCADED, PARENT_ENDED
        if parent.line != left.fields["ancestors"] or parent.type.name != left.type_name:
            raise InvalidInput("the task is not one that its parent handed on")
        authority = left.fields["authority"].within(parent.authority)
        if not authority.grants:
            return CASCADED, PARENT_NARROWED
        left.fields.update(
            authority=authority,
            deadline=min(left.fields["deadline"], parent.deadline),
            expires_at=min(left.fields["expires_at"], parent.expires_at),
        )
        left.fields["suspensions"][PARENT] = PARENT_SUSPENDED
        return None

    def _revive(self, left: "_Left") -> Task | tuple[str, str]:
        """The task, suspended and holding its process again; or the state and reason with which it ends."""
        hold = self._reopen(left)
        if isinstance(hold, str):
            return REVOKED, hold
        task = Task(
            id=left.id,
            type=self._engine.types[left.type_name],
            holder=hold,
            version=self._engine.next_version(),
            **left.fields,
        )
        task.hold_back(RESTART, AGENT_RESTART)
        hold.of = task
        return task

    def _reopen(self, left: "_Left") -> Hold | str:
        """Hold the very process that held the task, unchanged; or say why that cannot be."""
        try:
            process = Process.open(left.pid)
        except AttestationFailed:
            return HOLDER_EXITED
        if process.start_time != left.start_time:  # the pid was used again
            process.close()
            return HOLDER_EXITED
        try:
            uid = process.credentials().uid
            hold = self._holders.hold(process, uid)
        except AttestationFailed:
            process.close()
            return HOLDER_EXITED
        except SojournError as error:  # fewer processes can be held than before
            log.error("holder_not_held", task=left.id, reason=error.public)
            return AGENT_RESTART
        as_it_was = (left.fields["uid"], left.program, left.cgroup_digest)
        if (uid, hold.program, hold.cgroup_digest) != as_it_was:
            hold.release()
            return ATTESTATION_CHANGED
        return hold

    def _damaged(self, journaled: JournaledTask, error: Exception) -> tuple[TaskRecord, Event]:
        """The end of a task of which the journal does not tell what it was. The row keeps what stood there."""
        name = str(journaled.id)[:64]
        said = error.public if isinstance(error, SojournError) else type(error).__name__
        log.error("task_journal_damaged", task=name, reason=said)
        kept = journaled.unverified_document.decode("utf-8", "backslashreplace")
        record = TaskRecord(
            journaled.id, REVOKED, self._engine.next_version(), {"reason": JOURNAL_DAMAGED, "damaged_document": kept}
        )
        return record, self._audit.event("task_ended", {"task": name, "state": REVOKED, "reason": JOURNAL_DAMAGED})


@dataclass(frozen=True, slots=True)
class _Left:
    """A task of an earlier run. `fields` are those of Task that the journal alone can tell."""

    id: str
    type_name: str
    type_digest: str
    pid: int
    start_time: int
    program: Program | None
    cgroup_digest: str
    fields: dict[str, Any]

    @classmethod
    def parse(cls, journaled: JournaledTask, document: dict[str, Any], epoch: int) -> Self:
        """Read a row, and each member as what it must be. Raises whatever it meets."""
        if not 0 <= exactly(int, journaled.unverified_version) < epoch << 32:
            raise InvalidInput("the version is not one of an earlier run")
        holder = document["holder"]
        program = holder["program"]
        return cls(
            id=exactly(str, journaled.id),
            type_name=exactly(str, document["type"]),
            type_digest=exactly(str, document["type_digest"]),
            pid=exactly(int, holder["pid"]),
            start_time=exactly(int, holder["start_time"]),
            program=None if program is None else Program(*(exactly(int, number) for number in program)),
            cgroup_digest=exactly(str, holder["cgroup_digest"]),
            fields=fields_of(document),
        )

    def check(self, kind: TaskType, boot: float) -> None:
        """Raise InvalidInput if this cannot be a task of its type."""
        ends, used = self.fields["deadline"], self.fields["last_used"]
        if not (math.isfinite(ends) and ends <= boot + kind.max_duration.total_seconds() and used <= boot):
            raise InvalidInput("the times are not those of a task that has begun")
        holds = rules.may_hold(kind, str(self.fields["spiffe_id"]), len(self.fields["ancestors"]))
        if self.fields["parent_id"] and not holds:
            raise InvalidInput("the task is none that its type lets be handed on")
        try:
            rules.check_within(kind, self.fields["authority"])
        except Refused as error:
            raise InvalidInput(error.public) from error


def _share(left: "_Left", spent: dict[str, Spent]) -> None:
    """What a task that was handed on has used is used of its family's budget, whether or not it comes back, or whoever
    handed it on does.
    """
    family = spent.get(left.fields["parent_id"])
    if family is not None:
        family.merge(left.fields["spent"])
        left.fields["spent"] = family
    spent[left.id] = left.fields["spent"]


def _depth(journaled: JournaledTask) -> int:
    """How often a task was handed on; 0 if that cannot be told."""
    if b'"depth"' not in journaled.unverified_document:
        return 0
    try:
        return min(max(exactly(int, json.loads(journaled.unverified_document)["depth"]), 0), DELEGATION_DEPTH)
    except Exception:  # noqa: BLE001  # a damaged row may raise anything; `_settle` says what is wrong
        return 0
