"""One task: what it is, and the states that it goes through.

    pending ──► active ⇄ suspended ──► completed | revoked | expired | cascaded

A pending task waits for someone to agree: it holds its holder, and has no authority. It can be ended and narrowed.

Every change makes the version grow, and a terminal state never changes again. Versions are (epoch << 32) | counter, so
that one given after a restart is larger than any before it. A token is good for its task's version and no later one:
what was issued before a change is not revived by the next. The one exception is the hand-over of a one-shot task.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sojourn.errors import ApprovalRequired, Bug, TaskOver
from sojourn.jose.jws import SigningKey
from sojourn.people.person import Person
from sojourn.policy.approval_request import Approval
from sojourn.policy.cedar_schema import Param, Principal
from sojourn.policy.task_types import TaskType
from sojourn.policy.user import User
from sojourn.runtime.clock import Alarm
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.for_person import ForPerson
from sojourn.tasks.holders import Hold
from sojourn.tasks.kept_fields import ONE_SHOT, document_of
from sojourn.tasks.origin import Origin, Originated
from sojourn.tasks.seldom import Seldom
from sojourn.tasks.spending import Spending
from sojourn.tasks.spent import NOTHING, nothing, rows_of
from sojourn.tasks.task_record import Begun, TaskRecord
from sojourn.tasktoken.end_reasons import ASKER_ENDED, HOLDER_EXITED, with_explanation
from sojourn.tasktoken.grants import Authority

PENDING, ACTIVE, SUSPENDED = "pending", "active", "suspended"
COMPLETED, REVOKED, EXPIRED = "completed", "revoked", "expired"
CASCADED = "cascaded"  # the task that handed it on has ended
LIVING = frozenset({PENDING, ACTIVE, SUSPENDED})
NOT_LISTED = -1


@dataclass(slots=True, eq=False, kw_only=True)
class Task(Originated, Spending):
    """A task and its holder. Its state is written here and nowhere else: whoever changes it says which change it is.

    There are thousands of them, so that what they have in common they share: values are replaced, never changed.
    """

    id: str
    type: TaskType
    origin: Origin
    authority: Authority
    params: Mapping[str, Param]
    created: float  # wall time, seconds since the epoch
    life: timedelta  # from then on, by wall time
    deadline: float  # boot clock, seconds: what counts
    holder: Hold
    version: int
    last_used: float  # boot clock, seconds
    heir: Hold | None = None  # who takes a one-shot task over when its holder returns 0
    state: str = ACTIVE
    reason: str = ""
    svids: Mapping[tuple[str, str], float] = field(default_factory=nothing)  # that it is due to: (kind, ID) -> end
    alarms: tuple[Alarm, ...] = ()
    whom: ForPerson | None = None  # the person whom it is for, since it began
    listed: int = NOT_LISTED  # where status lists say what has become of it

    explanation = Seldom("")  # what the operator said who ended it
    suspensions = Seldom[Mapping[str, str]](NOTHING)  # cause -> reason
    decided_on = Seldom[Mapping[str, Any]](NOTHING)  # what it got its authority on, until that is in the audit
    parent_id = Seldom("")  # the task that handed it on
    ancestors = Seldom[tuple[SpiffeId, ...]](())  # the workloads that handed it on, the first at the root
    handed_on = Seldom(0)  # children that ever began, and tickets for more that may still be used
    approval = Seldom[Approval | None](None)  # that it waits, or waited, for
    approved = Seldom(False)  # someone has agreed to it
    key = Seldom[SigningKey | None](None)  # its own, to which tokens may be bound
    superseded = Seldom(0)  # the version at which all that it had been given died, though it lived on
    passes = Seldom[tuple[str, ...]](())  # origins that its egress proxy lets through without a token
    hidden = Seldom[frozenset[str]](frozenset())  # parameters that its type kept out of records before it was another
    own_params = Seldom(False)  # since it began its type was changed, or the agent stopped: records have its parameters
    doom = Seldom("")  # why it ends, if it is about to, and is over already for whoever uses it

    @property
    def hidden_params(self) -> frozenset[str]:
        """The parameters whose values no audit record has."""
        if not self.own_params:
            return self.type.hidden_params
        return self.type.hidden_params | self.hidden | (self.params.keys() - self.type.params.keys())

    @property
    def depth(self) -> int:
        """How many times it was handed on."""
        return len(self.ancestors)

    @property
    def line(self) -> tuple[SpiffeId, ...]:
        """The workloads that have had it, its own at the end."""
        return (*self.ancestors, self.spiffe_id)

    @property
    def subject(self) -> SpiffeId:
        """On whose behalf it is: the workload that began the first task of its line."""
        return self.line[0]

    @property
    def actors(self) -> tuple[SpiffeId, ...]:
        """Who acts for the subject (RFC 8693, 4.1): its own workload, then those before it; none if nobody does."""
        return (self.spiffe_id, *reversed(self.ancestors[1:])) if self.ancestors else ()

    @property
    def live(self) -> bool:
        """Whether the task has not ended; it may be pending or suspended."""
        return self.state in LIVING

    def check_active(self, boot: float) -> None:
        """Raise TaskOver unless the task is active; its deadlines count before its state."""
        self.check_live(boot)
        if self.state == PENDING and self.approval is not None:
            name = self.approval.request.id
            raise ApprovalRequired(
                f"the task waits for approval by {', '.join(self.approval.request.approvers)}:"
                f" `sojourn approval approve {name}`"
            )
        if self.state != ACTIVE:
            raise TaskOver(f"the task is {self.state}: {self.reason}")

    def check_live(self, boot: float) -> None:
        """Raise TaskOver if the task has ended, or its time is up."""
        if not self.live:
            raise TaskOver(f"the task is over: {self.state}, {self.why}")
        if self.doom:
            raise TaskOver(f"the task is over: {self.doom}")
        if boot >= self.deadline:
            why = "the token of the person whom it is for has expired" if self.ends_with_person else "its time is up"
            raise TaskOver(f"the task is over: {why}")
        if boot >= self.idle_deadline:
            raise TaskOver("the task is over: it was not used for too long")

    @property
    def why(self) -> str:
        """Its reason, with what the operator said who ended it, or what most who have such an end did not know."""
        if self.binding == ONE_SHOT and self.reason == HOLDER_EXITED:
            return with_explanation(self.reason, ASKER_ENDED)
        return with_explanation(self.reason, self.explanation)

    @property
    def idle_deadline(self) -> float:
        """When the task ends if it is not used, on the boot clock."""
        idle = self.type.idle_timeout if self.state != PENDING else None
        return self.last_used + idle.total_seconds() if idle is not None else float("inf")

    # --- what it is made of, before anybody knows of it -------------------------------------------------------------

    def give(self, authority: Authority, decided_on: Mapping[str, Any] = NOTHING) -> None:
        """Have it begin with this. `decided_on`: on what, until that is in the audit."""
        self.authority, self.decided_on = authority, decided_on

    def wait_for(self, approval: Approval, expires_at: datetime, deadline: float) -> None:
        """Have it wait until someone has agreed, or until then by both clocks."""
        self.state, self.approval = PENDING, approval
        self.expires_at, self.deadline = expires_at, deadline
        if self.whom is not None:
            self._move_end(min(deadline, self.whom.ends))

    def hold_back(self, cause: str, reason: str) -> None:
        """Have a task of an earlier run be suspended by this, too."""
        self.state, self.reason = SUSPENDED, reason
        self.suspensions = {**self.suspensions, cause: reason}

    def audited(self) -> None:
        """What it was decided on is in the audit by now."""
        self.decided_on = NOTHING

    def stand_under(self, parent: "Task") -> None:
        """Be one that `parent` has handed on: it shares its budgets, and ends no later by either clock."""
        self.parent_id, self.ancestors, self.purse = parent.id, parent.line, parent.own_purse()
        if parent.own_params:
            self.hidden, self.own_params = parent.hidden_params, True
        beyond = timedelta(seconds=max(0.0, self.deadline - parent.deadline))
        self.whom = parent.whom and parent.whom.no_longer_than(self.deadline)
        self.deadline = min(self.deadline, parent.deadline)
        self.expires_at = min(self.expires_at - beyond, parent.expires_at)

    # --- whom it is for ---------------------------------------------------------------------------------------------

    @property
    def person(self) -> Person | None:
        """Whom it is for, as their last token says."""
        return self.whom.person if self.whom is not None else None

    def be_for(self, whom: ForPerson) -> None:
        """Be for this person: before anybody knows of the task, or with a newer token of the same person."""
        self.whom = whom
        self._move_end(whom.latest)

    @property
    def ends_with_person(self) -> bool:
        """Whether it ends with the token of its person, and could live longer."""
        return self.whom is not None and self.deadline == self.whom.ends

    @property
    def life_seconds(self) -> float:
        """For how long it would live from its beginning, however soon the token of its person ends."""
        longest = self.deadline if self.whom is None else self.whom.longest
        return self.life.total_seconds() + longest - self.deadline

    @property
    def created_at(self) -> datetime:
        """When it began, by wall time."""
        return datetime.fromtimestamp(self.created, UTC)

    @property
    def expires_at(self) -> datetime:
        """When it ends by wall time, for people and tokens."""
        return self.created_at + self.life

    @expires_at.setter
    def expires_at(self, expires_at: datetime) -> None:
        self.life = expires_at - self.created_at

    def _move_end(self, deadline: float) -> None:
        self.expires_at += timedelta(seconds=deadline - self.deadline)
        self.deadline = deadline

    # --- what is used of it -----------------------------------------------------------------------------------------

    def touch(self, boot: float) -> None:
        """It was used: it is not idle from now on."""
        self.last_used = boot

    def be_due_to(self, svids: Mapping[tuple[str, str], float]) -> None:
        """Have it depend on these SVIDs, and on no others."""
        self.svids = svids

    def own_key(self) -> SigningKey:
        """Its own key, made when it is first needed. It never leaves the agent, and is gone with the task."""
        if self.key is None:
            self.key = SigningKey.generate("task")
        return self.key

    def count_child(self, number: int = 1) -> None:
        """Count a task that it was handed on as, or a ticket for one; -1 takes one back that never began."""
        self.handed_on += number

    # --- changes ----------------------------------------------------------------------------------------------------

    def change(self) -> None:
        """It is another from now on: no token that was issued before is good any more."""
        self.version += 1

    def will_end(self, reason: str) -> None:
        """It is over for whoever uses it, and ends in a moment."""
        self.doom = self.doom or reason

    def finish(self, state: str, reason: str, explanation: str = "") -> None:
        """Go to a terminal state. `explanation`: an operator's words."""
        if not self.live:
            raise Bug("an ended task was ended again")
        self.state = state
        self.explanation = explanation or self.explanation
        self.reason = reason
        self.version += 1

    def suspend(self, cause: str, reason: str) -> None:
        """Give no token until `resume` was called for each cause."""
        if not self.live:
            raise Bug("an ended task was suspended")
        if self.state == PENDING:  # it would come back active, and nobody would have agreed
            raise Bug("a pending task was suspended")
        self.suspensions = {**self.suspensions, cause: reason}
        self.state, self.reason = SUSPENDED, reason

    def come_back(self, cause: str, left: Authority, boot: float) -> None:
        """Take the last cause away, and be active with what is left."""
        self.resume(cause)
        self.authority, self.last_used = left, boot
        self.change()

    def resume(self, cause: str) -> bool:
        """Take one cause away; say whether the task is active then."""
        self.suspensions = {each: why for each, why in self.suspensions.items() if each != cause} or NOTHING
        if self.state != SUSPENDED:
            raise Bug("a task that is not suspended was resumed")
        if not self.suspensions:
            self.state, self.reason = ACTIVE, ""
            return True
        self.reason = list(self.suspensions.values())[-1]
        return False

    def narrow(self, left: Authority) -> Authority:
        """Have no more than this. Return what it had."""
        before, self.authority = self.authority, left
        return before

    def supersede(self) -> None:
        """All that it was given dies with the next change, though it lives on."""
        self.superseded = self.version + 1

    def let_through(self, origins: tuple[str, ...]) -> None:
        """Its egress proxy lets these origins through, and no others."""
        self.passes = origins

    def pass_to(self, heir: Hold) -> None:
        """Have another holder. What held it before is the caller's to release."""
        self.holder, self.heir = heir, None

    def retype(self, kind: TaskType) -> None:
        """Be of its type as that is now. What was given to be kept out of records stays so."""
        self.hidden, self.own_params = self.hidden_params, True
        self.type = kind

    def reread(self, params: Mapping[str, Param]) -> None:
        """Have its parameters as its type reads them now."""
        self.params = params

    def end_by(self, deadline: float, expires_at: datetime, longest: float) -> None:
        """End no later than this, by either clock; no token of its person prolongs it beyond `longest`."""
        self.deadline, self.expires_at = min(self.deadline, deadline), min(self.expires_at, expires_at)
        self.whom = self.whom and self.whom.no_longer_than(longest)

    def list_at(self, place: int) -> None:
        """Have status lists say there what has become of it."""
        self.listed = place

    def ring(self, *alarms: Alarm) -> None:
        """Have these alarms, in the place of those before."""
        self.alarms = alarms

    def shed(self) -> None:
        """Let go of what only a living task needs, once its end is on the way to the journal."""
        if self.live:
            raise Bug("a living task was to let go of what it lives by")
        self.alarms, self.heir, self.svids, self.key = (), None, NOTHING, None
        self.whom = self.whom and self.whom.over()

    def principal(self, now: datetime) -> Principal:
        """The task as policies see it at `now`, were it active. What was used is the family's."""
        spent = self.spent
        used = (spent.tokens, spent.calls, self.depth, tuple(spent.counted.items()))
        user = None if self.person is None else User.of(self.person, now.timestamp())
        return Principal(self.id, self.type.name, str(self.spiffe_id), ACTIVE, *used, user=user)

    def usage(self) -> list[dict[str, Any]]:
        """What was granted against what was used of it: a row for each action at each resource."""
        return rows_of(self.authority, self.used, self.spent, self.type.limits)

    def record_of_resumed(self, authority: Authority) -> TaskRecord:
        """The task as it will be when it is active again, with this authority."""
        now = self.record()
        changed = {"reason": "", "suspensions": {}, "grants": authority.document()}
        return TaskRecord(self.id, ACTIVE, self.version + 1, {**now.document, **changed})

    def record_of_approved(self, begun: Begun) -> TaskRecord:
        """The task as it will be once it has begun."""
        after = copy(self)
        after.begin(begun)
        return after.record()

    def begin(self, begun: Begun, decided_on: Mapping[str, Any] = NOTHING) -> None:
        """Go from pending to active: its life begins now."""
        if self.state != PENDING:
            raise Bug("a task that is not pending has begun")
        self.state, self.version, self.approved = ACTIVE, self.version + 1, True
        self.give(begun.authority, decided_on)
        self.created, self.expires_at = begun.created_at.timestamp(), begun.expires_at
        self.deadline, self.last_used = begun.deadline, begun.boot
        if self.whom is not None:
            self.be_for(replace(self.whom, longest=self.deadline))

    def record(self) -> TaskRecord:
        """The task as it is now."""
        program = self.holder.program
        document: dict[str, Any] = {
            "type": self.type.name,
            "type_digest": self.type.digest,
            **document_of(self),
            "holder": {
                "pid": self.holder.pid,
                "start_time": self.holder.process.start_time,
                "program": None if program is None else [program.device, program.inode],
                "cgroup_digest": self.holder.cgroup_digest,
            },
            "reason": self.reason,
        }
        if self.approval is not None:
            document["approval"] = self.approval.document()
        return TaskRecord(self.id, self.state, self.version, document)
