"""A credential of a provider that a task has, or had: what is known of it, and how it ends.

    asking ──► held ──► ending ──► (gone: recalled | denied | expired)
       │                  │
       └► (gone: refused) └► open ──► (gone: expired)

It is `asking` before the provider is asked, so that one whose answer was lost is known of. It is `ending` when its task
is over, or has it no more, and it is to be taken back; `open` when it cannot be: then it stays good until it expires.
What is gone is in the audit alone, with how it ended and for how long it outlived its task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from sojourn.providers.provider import Obtained
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.grants import Grant
from sojourn.tasks.task import Task

ASKING: Final = "asking"
HELD: Final = "held"
ENDING: Final = "ending"
OPEN: Final = "open"


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
    state: str = ASKING
    obtained: Obtained | None = field(default=None, repr=False)
    sealed_handle: bytes = field(default=b"", repr=False)
    public: Mapping[str, str] = field(default_factory=dict)
    over_at: datetime | None = None  # when the task ended, or had it no more
    attempts: int = 0  # to take it back
    fault: str = ""  # why the last one failed


class Book(Protocol):
    """The credentials of this agent, each journaled before it is used."""

    async def ask(self, task: Task, provider: str, grant: Grant, longest: datetime) -> Credential:
        """Note on disk that a provider is about to be asked. Raise what the store raises, or LimitExceeded."""

    async def hold(self, credential: Credential, obtained: Obtained, **decided: Any) -> None:
        """Note on disk what was obtained, with its audit record; only then may it be handed out.

        `decided`: on what policy decided. Raise TaskOver if the task has ended, or has the grant no more: it is being
        taken back then.
        """

    def refused(self, credential: Credential, why: str) -> None:
        """The provider gave nothing. It is written later."""

    def lost(self, credential: Credential, why: str) -> None:
        """No answer came that could be noted: it may exist. It is written later, and taken back if that can be."""

    def of(self, task_id: str) -> tuple[Credential, ...]:
        """Those of a task that are not gone, the oldest first."""
