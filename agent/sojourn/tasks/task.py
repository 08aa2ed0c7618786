"""One task: what it is, and the states that it goes through.

    active ──► completed | revoked | expired

Every change makes the version grow; a terminal state never changes again. Versions are (epoch << 32) | counter, so
that one given after a restart is larger than any before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sojourn.attestation.process import Process
from sojourn.clock import Alarm
from sojourn.errors import Bug, TaskOver
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.grants import Authority
from sojourn.tasks.policy import Param, Principal
from sojourn.tasks.types import TaskType

ACTIVE, COMPLETED, REVOKED, EXPIRED = "active", "completed", "revoked", "expired"


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
    holder: Process
    binding: str  # stream | process | one-shot
    session: bool
    version: int
    state: str = ACTIVE
    reason: str = ""
    tokens_issued: int = 0
    alarm: Alarm | None = field(default=None)
    heir: Process | None = field(default=None)  # who takes a one-shot task over when its holder returns 0

    @property
    def live(self) -> bool:
        return self.state == ACTIVE

    def check_active(self, boot: float) -> None:
        """Raise TaskOver unless the task is active; its deadline counts before its state."""
        if self.live and boot >= self.deadline:
            raise TaskOver("the task is over: its time is up")
        if not self.live:
            raise TaskOver(f"the task is over: {self.state}, {self.reason}")

    def finish(self, state: str, reason: str) -> None:
        """Go to a terminal state."""
        if not self.live:
            raise Bug("an ended task was ended again")
        self.state = state
        self.reason = reason
        self.version += 1

    def principal(self) -> Principal:
        return Principal(self.id, self.type.name, str(self.spiffe_id), self.state, self.tokens_issued)
