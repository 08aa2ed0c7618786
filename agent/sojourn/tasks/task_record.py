"""Tasks as the journal has them: what is written of one, what it gives back, and with what one begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sojourn.tasktoken.grants import Authority


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as it is journaled. `document` is JSON's: what is not a column."""

    id: str
    state: str
    version: int
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JournaledTask:
    """A task as the journal gives it back. Nothing is checked: the file may be damaged."""

    id: str
    unverified_version: object
    unverified_state: object
    same_boot: bool  # whether it was written since the machine was last started
    unverified_document: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """With what a task that was pending begins, and until when. `boot` and `deadline` are on the boot clock."""

    authority: Authority
    created_at: datetime
    expires_at: datetime
    boot: float
    deadline: float
