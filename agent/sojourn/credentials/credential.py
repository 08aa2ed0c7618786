"""A credential of a provider that a task has, or had: what is known of it, and how it ends.

    asking ──► held ──► ending ──► (gone: recalled | denied | expired)
       │                  │
       ├► (gone: refused) └► open ──► (gone: unrecallable)
       └► open, lost ──► ending, or (gone: lost)

It is `asking` before the provider is asked, so that one whose answer was lost is known of. It is `ending` when its task
is over, or has it no more, and it is to be taken back; `open` when it cannot be: then it stays good until it expires.
One whose answer was `lost` nobody ever had; it is taken back when its task is over, where that can be without a handle.
What is gone is in the audit alone, with how it ended and for how long it outlived its task.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import exactly, seconds, texts
from sojourn.providers.provider import Obtained
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.task import ACTIVE, Task
from sojourn.tasktoken.end_reasons import HANDOVER
from sojourn.tasktoken.grants import Grant

ASKING: Final = "asking"
HELD: Final = "held"
ENDING: Final = "ending"
OPEN: Final = "open"
GONE: Final = "gone"

# How one ended.
RECALLED: Final = "recalled"
DENIED: Final = "denied"
EXPIRED: Final = "expired"  # while its task had it, or while it was still being taken back
UNRECALLABLE: Final = "unrecallable"  # it expired, and could not be taken back
LOST: Final = "lost"  # nobody ever had it, and it cannot be good any more

UNFIT: Final = "unfit"  # why a task has one no more that could be given to nobody


@dataclass(slots=True, eq=False)
class Credential:
    """One credential. Changed by the book alone; `obtained` is in memory only, and gone when it is not handed out any
    more: what is kept of it is its sealed handle.
    """

    id: str  # ext_…
    task_id: str
    task_type: str
    spiffe_id: SpiffeId
    provider: str  # its name in the configuration
    grant: Grant
    asked_at: datetime
    expires_at: datetime  # while `asking`: at the latest
    expires_boot: float  # the same on the boot clock, seconds, which no step of the wall clock moves
    state: str = ASKING
    obtained: Obtained | None = field(default=None, repr=False)
    sealed_handle: bytes = field(default=b"", repr=False)
    public: Mapping[str, str] = field(default_factory=dict)
    over_at: datetime | None = None  # when the task ended, or had it no more
    attempts: int = 0  # to take it back, since the agent started
    fault: str = ""  # why the last one failed
    version: int = 0  # of its task, when it was asked for
    lost: bool = False  # no answer came that could be noted: nobody ever had it
    over_for: str = ""  # why it has it no more
    over_boot: float = 0.0  # `over_at` on the boot clock, seconds: what the residual window is measured by

    def covered(self, task: Task | None) -> bool:
        """Whether its task may have it: one that nobody has is the task's until it ends."""
        if task is None or not task.live or self.lost:
            return task is not None and task.live
        # While it is not known yet who holds a one-shot task, which is soon, what it has is neither given nor taken.
        active = task.state == ACTIVE or set(task.suspensions) == {HANDOVER}
        actions = task.authority.at(self.grant.resource)
        return active and self.version >= task.superseded and all(each in actions for each in self.grant.actions)

    def record(self) -> "CredentialRecord":
        """It as it is now, to be written."""
        document = {
            "task_type": self.task_type,
            "spiffe_id": str(self.spiffe_id),
            "resource": self.grant.resource,
            "actions": list(self.grant.actions),
            "asked_at": self.asked_at.timestamp(),
            "handle": self.sealed_handle.hex(),
            "public": dict(self.public),
            "over_at": None if self.over_at is None else self.over_at.timestamp(),
            "expires_boot": self.expires_boot,
            "over_boot": self.over_boot,
            "over_for": self.over_for,
            "lost": self.lost,
            "fault": self.fault,
        }
        expires_at = self.expires_at.timestamp()
        return CredentialRecord(self.id, self.task_id, self.provider, self.state, expires_at, document)


@dataclass(frozen=True, slots=True)
class CredentialRecord:
    """A credential as it is journaled. `document` is JSON's: what is not a column. What is `gone` is removed."""

    id: str
    task_id: str
    provider: str
    state: str
    expires_at: float  # seconds since the epoch
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JournaledCredential:
    """A credential as the journal gives it back. Nothing is checked: the file may be damaged.

    `boot_id` is that of this boot of the machine; the document has that of the boot whose clock it counts by.
    """

    id: str
    unverified_task_id: object
    unverified_provider: object
    unverified_state: object
    unverified_expires_at: object
    unverified_document: bytes
    boot_id: str

    def parse(self, clock: Clock) -> Credential:
        """Read it, and each member as what it must be. Raises whatever it meets.

        Of another boot nothing but the wall clock tells how long ago something was.
        """
        document = exactly(dict, json.loads(self.unverified_document))
        expires_at = _moment(self.unverified_expires_at)
        over_at = None if document["over_at"] is None else _moment(document["over_at"])
        if document.get("boot_id") == self.boot_id:
            expires_boot, over_boot = seconds(document["expires_boot"]), seconds(document["over_boot"])
        else:
            now, boot = clock.now(), clock.boot()
            expires_boot = boot + (expires_at - now).total_seconds()
            over_boot = 0.0 if over_at is None else boot - max(0.0, (now - over_at).total_seconds())
        state = exactly(str, self.unverified_state)
        if state not in {ASKING, HELD, ENDING, OPEN}:
            raise InvalidInput("not a state")
        return Credential(
            id=self.id,
            task_id=exactly(str, self.unverified_task_id),
            task_type=exactly(str, document["task_type"]),
            spiffe_id=SpiffeId.parse(exactly(str, document["spiffe_id"])),
            provider=exactly(str, self.unverified_provider),
            grant=Grant.parse(exactly(str, document["resource"]), (exactly(str, each) for each in document["actions"])),
            asked_at=_moment(document["asked_at"]),
            expires_at=expires_at,
            expires_boot=expires_boot,
            state=state,
            sealed_handle=bytes.fromhex(exactly(str, document["handle"])),
            public=texts(exactly(dict, document["public"])),
            over_at=over_at,
            over_boot=over_boot,
            over_for=exactly(str, document["over_for"]),
            lost=exactly(bool, document["lost"]),
            fault=exactly(str, document["fault"]),
        )


def _moment(value: object) -> datetime:
    return datetime.fromtimestamp(seconds(value), UTC)
