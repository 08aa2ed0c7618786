"""The folder of task types that the agent follows: what it says is in force, whole, a moment after it has changed.

A set that cannot be used leaves the one in force as it is, and is told: in the log, the audit and `sojourn status`.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from sojourn.clock import Clock
from sojourn.errors import Fault, InvalidPolicy, SojournError, joined
from sojourn.folders import WatchedFolder
from sojourn.limits import (
    AUDITED_TEXT,
    FOLLOWED_LOOK_SECONDS,
    FOLLOWED_RETRY_SECONDS,
    FOLLOWED_SETTLED_SECONDS,
    TASK_TYPES,
)
from sojourn.oversight.audit import Audit
from sojourn.tasks import types as task_types
from sojourn.tasks.reloading import END, NARROW, Consequence
from sojourn.tasks.types import TypeSet

log = structlog.get_logger()
Take = Callable[[TypeSet], Awaitable[list[Consequence]]]
Check = Callable[[TypeSet], Sequence[Fault]]
_FILES_PER_TYPE = 2
_CHANGED_SHOWN = 100


class TypeFolder:
    """Keeps a set of task types that of a folder. `fault` is why the newest set is not in force, empty if it is."""

    def __init__(
        self,
        folder: Path,
        take: Take,
        audit: Audit,
        clock: Clock,
        *,
        event: str,
        optional: bool,
        check: Check = lambda _types: (),
    ) -> None:
        """`take` brings a set into force. Events are named `event`_loaded, `event`_refused and `event`_failed.

        With `optional` the folder need not be there until it has been. `check` says what else is wrong with a set, in
        a thread: each fault names its file alone.
        """
        self.folder = Path(os.path.abspath(folder))
        self.types = TypeSet()
        self.loaded_at: datetime | None = None
        self.fault = ""
        self._take = take
        self._check = check
        self._audit = audit
        self._clock = clock
        self._loaded_event, self._refused_event, self._failed_event = (
            f"{event}_{what}" for what in ("loaded", "refused", "failed")
        )
        self._optional = optional
        self._retry_at = 0.0
        self._watched = WatchedFolder(self.folder, _is_ours, TASK_TYPES * _FILES_PER_TYPE)
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Have the folder read soon, whether or not it has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look at the folder again and again, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FOLLOWED_LOOK_SECONDS):
                    await self._wake.wait()
            again = self._wake.is_set()
            self._wake.clear()
            await self.look(settled_seconds=FOLLOWED_SETTLED_SECONDS, again=again)

    async def look(self, *, settled_seconds: float = 0.0, again: bool = False) -> None:
        """Bring the folder into force if it has changed, and has not changed further for `settled_seconds`."""
        try:
            async with self._turn:
                await self._look(settled_seconds, again)
        except InvalidPolicy as error:
            self._refused(joined(error.faults))
        except SojournError as error:
            self._refused(error.public)
        except Exception:
            log.exception(self._failed_event, folder=str(self.folder))
            self._refused("internal error; the log has it")

    async def _look(self, settled_seconds: float, again: bool) -> None:
        due = bool(self.fault) and self._clock.boot() >= self._retry_at
        found = await self._watched.changed(lambda: self._read(self.folder), settled_seconds, again=again or due)
        if found is not None:
            await self._bring(found)

    async def read(self, other: Path | None = None) -> TypeSet:
        """What the folder says now, or `other`. Raise InvalidPolicy."""
        found = await asyncio.to_thread(self._read, other or self.folder)
        if isinstance(found, InvalidPolicy):
            raise found
        return found

    async def start(self) -> None:
        """Bring into force what the folder says as the agent starts. Raise InvalidPolicy."""
        async with self._turn:
            await self._bring(await self.read())

    async def reload(self, **by: Any) -> list[Consequence]:
        """Bring into force what the folder says now; `by` is recorded. Raise InvalidPolicy: all is as it was then."""
        try:
            async with self._turn:
                return await self._bring(await self.read(), **by)
        except InvalidPolicy as error:
            self._refused(joined(error.faults))
            raise

    async def _bring(self, found: TypeSet | InvalidPolicy, **by: Any) -> list[Consequence]:
        if isinstance(found, InvalidPolicy):
            raise found
        was, self.fault = self.fault, ""
        if found.digest == self.types.digest and self.loaded_at is not None and not was:
            return []
        before, first = self.types, self.loaded_at is None
        changed = [name for name in sorted({*found, *before}) if _digest(found, name) != _digest(before, name)]
        self.types, self.loaded_at = found, self._clock.now()
        consequences = await self._take(found)
        outcomes = [each.outcome for each in consequences]
        said = {
            "folder": str(self.folder),
            "digest": found.digest,
            "task_types": len(found),
            "changed": changed[:_CHANGED_SHOWN],
            "ended": outcomes.count(END),
            "narrowed": outcomes.count(NARROW),
        }
        self._audit.note(self._loaded_event, **said, **by)
        # At the start it is what is expected, and the command's words stand alone there.
        (log.debug if first else log.info)(self._loaded_event, **said)
        return consequences

    def _refused(self, fault: str) -> None:
        """Tell why a set is not in force: once, and again when the reason is another."""
        self._retry_at = self._clock.boot() + FOLLOWED_RETRY_SECONDS
        if fault == self.fault:
            return
        self.fault = fault
        in_force = self.types.digest if self.loaded_at is not None else None
        log.error(self._refused_event, folder=str(self.folder), reason=fault, in_force=in_force)
        self._audit.note(self._refused_event, folder=str(self.folder), reason=fault[:AUDITED_TEXT], in_force=in_force)

    def _read(self, folder: Path) -> TypeSet | InvalidPolicy:
        if self._optional and not self.types and not os.path.exists(folder):  # also if it may not be seen
            return TypeSet()
        try:
            found = task_types.load(folder)
        except InvalidPolicy as error:
            return error
        faults = self._check(found)
        return InvalidPolicy(task_types.placed(folder, faults)) if faults else found


def _digest(types: TypeSet, name: str) -> str:
    return types[name].digest if name in types else ""


def _is_ours(name: str) -> bool:
    return name.endswith((".toml", ".cedar")) and not name.endswith(task_types.CASES)
