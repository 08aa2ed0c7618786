"""What becomes of the tasks that an earlier run of the agent left alive.

Those of this boot of the machine come up suspended, and wait REATTACH_SECONDS for their holders (reattachment.py gives
them back). The others end: their time is over, their holder has gone or changed, or what they were begun under has.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol, Self

import structlog

from sojourn.attestation.process import Process, Program
from sojourn.audit.journal import Audit, Event
from sojourn.errors import AttestationFailed, InvalidInput, PolicyDenied, Refused, SojournError
from sojourn.errors.people import PersonBlocked, PersonRefused
from sojourn.identity.registry import Registry
from sojourn.jose.canonical_json import exactly
from sojourn.limits import DELEGATION_DEPTH, REATTACH_SECONDS
from sojourn.policy import rules
from sojourn.policy.task_types import TaskType
from sojourn.runtime.clock import Alarms
from sojourn.tasks.end_record import end_of_left
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.for_person import bare_document, same_person
from sojourn.tasks.holders import Hold, Holders
from sojourn.tasks.kept_fields import ONE_SHOT, fields_of
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.origin import shared_origin
from sojourn.tasks.spent import Purse, Spent, Used
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
    PERSON_EXPIRED,
    PERSON_UNCHECKED,
    POLICY_CHANGED,
    RECHECK,
    RESTART,
    SESSION_ENDED,
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
        issuers: Mapping[str, str],
    ) -> None:
        """`issuers`: the `iss` of those whose people this run takes, by their names in the configuration."""
        self._issuers = issuers
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
        purses: dict[str, Purse] = {}  # of each task that was left, which its family shares
        settled = [self._settle(journaled, purses) for journaled in found]
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

    def _settle(self, journaled: JournaledTask, purses: dict[str, Purse]) -> tuple[Task | TaskRecord, Event]:
        """Take one task over if it may live; return it, or what is to be written of its end."""
        try:
            document = exactly(dict, json.loads(journaled.unverified_document))
            # Of another boot, or of a release whose tasks did not outlive it.
            # Nor does one come back that nobody had agreed to.
            pending = journaled.unverified_state == PENDING
            if not journaled.same_boot or "deadline" not in document or pending:
                return self._over(journaled, document, REVOKED, AGENT_RESTART)
            left = _Left.parse(journaled, document, self._engine.epoch)
            _share(left, purses)
            self._be_by_token_alone(left)
            found = self._why_over(left) or self._under_parent(left) or self._revive(left)
        except Exception as error:  # noqa: BLE001  # a damaged row may raise anything, and must not stop the agent
            return self._damaged(journaled, error)
        if isinstance(found, Task):
            self._engine.adopt(found)
            return found, self._engine.event("task_suspended", found, cause=RESTART, reason=AGENT_RESTART)
        return self._over(journaled, document, *found)

    def _be_by_token_alone(self, left: "_Left") -> None:
        """Have a task for a person end with their token: while no agent ran, nobody heard whether they logged out.

        Nor can their issuer be asked about a token of which this run has no text: then it waits for one.
        """
        whom = left.fields["whom"]
        if whom is None:
            return
        whom = left.fields["whom"] = whom.by_token_alone()
        beyond = max(0.0, left.fields["deadline"] - whom.latest)
        left.fields["deadline"] -= beyond
        left.fields["expires_at"] -= timedelta(seconds=beyond)
        if whom.person.rechecked and not left.fields["parent_id"]:
            left.fields["suspensions"][RECHECK] = PERSON_UNCHECKED

    def _over(
        self, journaled: JournaledTask, document: dict[str, Any], state: str, reason: str
    ) -> tuple[TaskRecord, Event]:
        """The end of a task; its document need not tell more than whose task of which type it was."""
        named = {"type": exactly(str, document["type"]), "spiffe_id": exactly(str, document["spiffe_id"])}
        life = end_of_left(document, journaled.unverified_state, self._engine.clock.now())
        uid = exactly(int, document["uid"])
        fields = {"task": journaled.id, **named, "uid": uid, **life, "state": state, "reason": reason}
        ended = {**bare_document(document), "reason": reason, "suspensions": {}}
        record = TaskRecord(journaled.id, state, self._engine.next_version(), ended)
        return record, self._audit.event("task_ended", fields)

    def _why_over(self, left: "_Left") -> tuple[str, str] | None:
        """The state and reason with which a task ends, whoever its holder is; None if nothing is against it."""
        kind, boot = self._engine.types.get(left.type_name), self._engine.clock.boot()
        if left.fields["binding"] == ONE_SHOT:
            return REVOKED, AGENT_RESTART
        if kind is None or kind.digest != left.type_digest:
            return REVOKED, POLICY_CHANGED
        whom = left.fields["whom"]
        if boot >= left.fields["deadline"]:
            return EXPIRED, PERSON_EXPIRED if whom is not None and whom.ends <= left.fields["deadline"] else DEADLINE
        if kind.idle_timeout is not None and boot >= left.fields["last_used"] + kind.idle_timeout.total_seconds():
            return EXPIRED, IDLE
        left.check(kind, boot)
        if whom is not None and self._issuers.get(whom.person.issuer) != whom.person.url:
            return REVOKED, POLICY_CHANGED  # nobody vouches for them, or policies would read them as another's
        try:
            self._engine.blocks.check(kind.name, left.fields["spiffe_id"])
        except PolicyDenied:
            return REVOKED, BLOCKED
        if whom is not None:
            # By the key of now: facts and blocks are about whoever is called so.
            left.fields["whom"] = replace(whom, pseudonym=self._engine.pseudonyms.of_person(whom.person))
            try:
                self._engine.standing.check(whom.person)
            except PersonRefused as error:
                return REVOKED, BLOCKED if error.code == PersonBlocked.code else SESSION_ENDED
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
        if not same_person(parent.whom, left.fields["whom"]):
            raise InvalidInput("the task is for somebody else than its parent")
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
        task = left.task(self._engine.types[left.type_name], hold, self._engine.next_version())
        task.hold_back(RESTART, AGENT_RESTART)
        return task

    def _reopen(self, left: "_Left") -> Hold | str:
        """Hold the very process that held the task, unchanged; or say why that cannot be."""
        try:
            process = Process.open(left.pid)
        except AttestationFailed:
            return HOLDER_EXITED
        try:
            if process.start_time != left.start_time:  # the pid was used again
                process.close()
                return HOLDER_EXITED
            uid = process.ids().uid
            hold = self._holders.hold(process, uid)
        except AttestationFailed:
            process.close()
            return HOLDER_EXITED
        except SojournError as error:  # fewer processes can be held than before
            log.error("holder_not_held", task_id=left.id, reason=error.public)
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
        log.error("task_journal_damaged", task_id=name, reason=said)
        kept = _without_person(journaled.unverified_document).decode("utf-8", "backslashreplace")
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

    def task(self, kind: TaskType, holder: Hold, version: int) -> Task:
        """The task as this run of the agent has it."""
        known = self.fields
        whose = (known[name] for name in ("spiffe_id", "entry_id", "uid", "binding", "session", "selectors"))
        whole = ("suspensions", "handed_on", "parent_id", "ancestors", "approved", "passes", "purse")
        seldom = (*whole, "hidden", "own_params")
        return Task(
            id=self.id,
            type=kind,
            origin=shared_origin(*whose),
            authority=known["authority"],
            params=known["params"],
            created=known["created_at"].timestamp(),
            life=known["expires_at"] - known["created_at"],
            deadline=known["deadline"],
            holder=holder,
            version=version,
            last_used=known["last_used"],
            used=Used(Spent(known["tokens_issued"], known["calls"]), known["uses"]),
            whom=known["whom"],
            seldom={name: known[name] for name in seldom},
        )

    def check(self, kind: TaskType, boot: float) -> None:
        """Raise InvalidInput if this cannot be a task of its type."""
        ends, used = self.fields["deadline"], self.fields["last_used"]
        if not (math.isfinite(ends) and ends <= boot + kind.max_duration.total_seconds() and used <= boot):
            raise InvalidInput("the times are not those of a task that has begun")
        whom = self.fields["whom"]
        if whom is not None and not (math.isfinite(whom.ends + whom.longest) and ends <= whom.latest):
            raise InvalidInput("the task outlives the token of the person whom it is for")
        holds = rules.may_hold(kind, str(self.fields["spiffe_id"]), len(self.fields["ancestors"]))
        if self.fields["parent_id"] and not holds:
            raise InvalidInput("the task is none that its type lets be handed on")
        try:
            rules.check_within(kind, self.fields["authority"])
        except Refused as error:
            raise InvalidInput(error.public) from error


def _share(left: "_Left", purses: dict[str, Purse]) -> None:
    """What a task that was handed on has used is used of its family's budget, whether or not it comes back, or whoever
    handed it on does.
    """
    purse = purses.get(left.fields["parent_id"]) or Purse()
    purse.merge(left.fields["spent"])
    left.fields["purse"] = purses[left.id] = purse


def _without_person(unverified_document: bytes) -> bytes:
    """What is kept of a damaged record: nothing that says more of a person than a task that has ended may."""
    if b'"person"' not in unverified_document:
        return unverified_document
    try:
        document = exactly(dict, json.loads(unverified_document))
        bare = bare_document(document)
        return unverified_document if bare is document else json.dumps(bare).encode()
    except Exception:  # noqa: BLE001  # a damaged row may raise anything
        return b"(a record of a task for a person, which cannot be read)"


def _depth(journaled: JournaledTask) -> int:
    """How often a task was handed on; 0 if that cannot be told."""
    if b'"depth"' not in journaled.unverified_document:
        return 0
    try:
        return min(max(exactly(int, json.loads(journaled.unverified_document)["depth"]), 0), DELEGATION_DEPTH)
    except Exception:  # noqa: BLE001  # a damaged row may raise anything; `_settle` says what is wrong
        return 0
