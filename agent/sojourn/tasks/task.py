"""One task: what it is, and the states that it goes through.

    active ⇄ suspended ──► completed | revoked | expired

An end makes the version grow, and a terminal state never changes again. Versions are (epoch << 32) | counter, so that
one given after a restart is larger than any before it. A task is suspended while it is decided whether the one who ran
its holder takes it over; its tokens are refused meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sojourn.clock import Alarm
from sojourn.errors import Bug, TaskOver
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.grants import Authority
from sojourn.tasks.holders import Hold
from sojourn.tasks.policy import Param, Principal
from sojourn.tasks.types import TaskType

ACTIVE, SUSPENDED = "active", "suspended"
COMPLETED, REVOKED, EXPIRED = "completed", "revoked", "expired"


@dataclass(slots=True, eq=False)
class Task:
    """A task and its holder. Changed by the engine alone."""

    id: str
    type: TaskType
    spiffe_id: SpiffeId
    entry_id: str
    uid: int
    authority: Authority
    params: Mapping[str, Param]
    created_at: datetime
    expires_at: datetime  # wall time, for people and tokens
    deadline: float  # boot clock, seconds: what counts
    holder: Hold
    binding: str  # stream | process | one-shot
    session: bool
    version: int
    state: str = ACTIVE
    reason: str = ""
    tokens_issued: int = 0
    alarm: Alarm | None = field(default=None)
    heir: Hold | None = field(default=None)  # who takes a one-shot task over when its holder returns 0

    @property
    def live(self) -> bool:
        """Whether the task has not ended; it may be suspended."""
        return self.state in {ACTIVE, SUSPENDED}

    def check_active(self, boot: float) -> None:
        """Raise TaskOver unless the task is active; its deadline counts before its state."""
        if self.live and boot >= self.deadline:
            raise TaskOver("the task is over: its time is up")
        if not self.live:
            raise TaskOver(f"the task is over: {self.state}, {self.reason}")
        if self.state != ACTIVE:
            raise TaskOver(f"the task is {self.state}: {self.reason}")

    def finish(self, state: str, reason: str) -> None:
        """Go to a terminal state."""
        if not self.live:
            raise Bug("an ended task was ended again")
        self.state = state
        self.reason = reason
        self.version += 1

    def suspend(self, reason: str) -> None:
        if self.state != ACTIVE:
            raise Bug("a task that is not active was suspended")
        self.state, self.reason = SUSPENDED, reason

    def resume(self) -> None:
        if self.state != SUSPENDED:
            raise Bug("a task that is not suspended was resumed")
        self.state, self.reason = ACTIVE, ""

    def principal(self) -> Principal:
        return Principal(self.id, self.type.name, str(self.spiffe_id), self.state, self.tokens_issued)
