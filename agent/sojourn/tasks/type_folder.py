"""The folder of task types that the agent follows: what it says is in force, whole, a moment after it has changed.

A set that cannot be used leaves the one in force as it is, and is told: in the log, the audit and `sojourn status`. At
the start that is the last good set, which the agent keeps; without it there are none until the folder is mended.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from sojourn.audit.journal import Audit
from sojourn.errors import Fault, InvalidPolicy, joined
from sojourn.files.folder_watch import INTERNAL, FolderFollower, WatchedFolder
from sojourn.limits import AUDITED_TEXT, TASK_TYPES
from sojourn.policy import cases, task_types, type_faults
from sojourn.policy.task_types import TypeSet
from sojourn.runtime.clock import Clock
from sojourn.tasks.last_good_types import LastGood, LastGoodSet
from sojourn.tasks.policy_reload import END, NARROW, Consequence

log = structlog.get_logger()
Take = Callable[[TypeSet], Awaitable[list[Consequence]]]
Check = Callable[[TypeSet], Sequence[Fault]]
FOLDER, LAST_GOOD, NONE = "folder", "last_good", "none"  # from where the set in force is
_FILES_PER_TYPE = 3
_CHANGED_SHOWN = 100


class TypeFolder(FolderFollower):
    """Keeps a set of task types that of a folder."""

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
        require_cases: bool = False,
        last_good: LastGood | None = None,
    ) -> None:
        """`take` brings a set into force. Events are named `event`_loaded, `event`_refused and so on.

        With `optional` the folder need not be there until it has been. `check` says what else is wrong with a set, in
        a thread: each fault names its file alone. With `require_cases` so do the cases of each type. `last_good` keeps
        the set in force for the next start.
        """
        super().__init__(folder, clock.boot, f"{event}_failed")
        self.types = TypeSet()
        self.loaded_at: datetime | None = None
        self.origin = FOLDER
        self.accepted_at: datetime | None = None  # when the last good set came into force, while that is in force
        self.without = ""  # why there was no last good set, while none is in force
        self.require_cases = require_cases
        self._take = take
        self._check = check
        self._audit = audit
        self._clock = clock
        self._event = event
        self._last_good = last_good
        self.on_brought: Callable[[TypeSet, Mapping[str, Any]], Awaitable[None]] = _nothing
        self._unkept = False  # the set in force could not be kept: its database did not take it
        self._point_at(folder, optional=optional)
        self._turn = asyncio.Lock()

    def _point_at(self, folder: Path, *, optional: bool) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._optional = optional
        self._watched = WatchedFolder(self.folder, self._is_ours, TASK_TYPES * _FILES_PER_TYPE)

    async def move(self, folder: Path, *, optional: bool, require_cases: bool) -> None:
        """Follow another folder, or by another rule. What is in force stays until what that says can be used."""
        async with self._turn:
            self.require_cases = require_cases
            self._point_at(folder, optional=optional)
        await self.look(again=True)

    async def _look(self, settled_seconds: float, again: bool) -> None:
        async with self._turn:
            read = partial(self._read, self.folder)
            found = await self._watched.changed(read, settled_seconds, again=again or self._due)
            if found is not None:
                await self._bring(found)
            elif self._unkept:
                await self._keep()

    async def read(self, other: Path | None = None) -> TypeSet:
        """What the folder says now, or `other`. Raise InvalidPolicy."""
        found = await asyncio.to_thread(self._read, other or self.folder)
        if isinstance(found, InvalidPolicy):
            raise found
        return found

    async def start(self) -> None:
        """Bring into force what the folder says as the agent starts; else the last good set, if there is one."""
        async with self._turn:
            if self._last_good is not None and self._last_good.belongs_to(self.folder):
                self._optional = False
            try:
                found = await self.read()
            except Exception as error:  # noqa: BLE001  # `_refuse` tells of it
                self._refuse(error)
            else:
                await self._bring(found)
                return
            await self._fall_back()

    async def _fall_back(self) -> None:
        """Bring the last good set into force. If that cannot be used either, there is none, and `without` says why."""
        said = {"folder": str(self.folder), "reason": self.fault[:AUDITED_TEXT]}
        try:
            kept = await self._kept()
        except InvalidPolicy as error:
            self.origin, self.without = NONE, joined(error.faults)
            event, said = f"{self._event}_none", {**said, "last_good": self.without[:AUDITED_TEXT]}
        else:
            self.origin, self.types, self.loaded_at = LAST_GOOD, kept.types, self._clock.now()
            self.accepted_at = kept.accepted_at
            await self._take(kept.types)
            await self.on_brought(kept.types, {})
            if self._last_good is not None:
                await self._last_good.try_to_record(self.folder, kept.types)
            event = f"{self._event}_last_good"
            said = {**said, "digest": kept.types.digest, "accepted_at": kept.accepted_at.isoformat()}
            if kept.folder != self.folder:  # the configuration names another since: as under a running agent, it stays
                said["of_folder"] = str(kept.folder)
        log.error(event, **said)
        self._audit.note(event, **said)

    async def _kept(self) -> LastGoodSet:
        """The last good set, checked as that of the folder is. Raise InvalidPolicy, whatever is wrong with it."""
        if self._last_good is None:
            raise InvalidPolicy("no set is kept")
        try:
            kept = await self._last_good.read()
            faults = await asyncio.to_thread(self._faults, kept.folder, kept.types)
        except InvalidPolicy:
            raise
        except Exception as error:
            log.exception(self._failed, folder=str(self.folder))
            raise InvalidPolicy(INTERNAL) from error
        if faults:
            raise InvalidPolicy(faults)
        return kept

    async def reload(self, **by: Any) -> list[Consequence]:
        """Bring into force what the folder says now; `by` is recorded. Raise InvalidPolicy: all is as it was then."""
        try:
            async with self._turn:
                return await self._bring(await self.read(), **by)
        except InvalidPolicy as error:
            self._refuse(error)
            raise

    async def take(self, found: TypeSet, /, **by: Any) -> list[Consequence]:
        """Bring a set into force that was just read; `by` is recorded."""
        async with self._turn:
            return await self._bring(found, **by)

    async def _bring(self, found: TypeSet | InvalidPolicy, **by: Any) -> list[Consequence]:
        if isinstance(found, InvalidPolicy):
            raise found
        was, self.fault = self.fault, ""
        if found.digest == self.types.digest and self.loaded_at is not None and not was:
            self.types = found  # its cases may be others
            await self._keep()
            return []
        before, first = self.types, self.loaded_at is None and not was
        changed = [name for name in sorted({*found, *before}) if _digest(found, name) != _digest(before, name)]
        self.types, self.loaded_at = found, self._clock.now()
        self.origin, self.accepted_at, self.without = FOLDER, None, ""
        consequences = await self._take(found)
        await self.on_brought(found, by)
        await self._keep()
        outcomes = [each.outcome for each in consequences]
        said = {
            "folder": str(self.folder),
            "digest": found.digest,
            "task_types": len(found),
            "changed": changed[:_CHANGED_SHOWN],
            "ended": outcomes.count(END),
            "narrowed": outcomes.count(NARROW),
        }
        event = f"{self._event}_loaded"
        self._audit.note(event, **said, **by)
        # At the start it is what is expected, and the command's words stand alone there.
        (log.debug if first else log.info)(event, **said)
        return consequences

    async def _keep(self) -> None:
        """Keep the set in force for the next start."""
        if self._last_good is not None:
            self._unkept = not await self._last_good.try_to_keep(self.folder, self.types)

    def _tell(self, fault: str) -> None:
        in_force = self.types.digest if self.loaded_at is not None else None
        event = f"{self._event}_refused"
        log.error(event, folder=str(self.folder), reason=fault, in_force=in_force)
        self._audit.note(event, folder=str(self.folder), reason=fault[:AUDITED_TEXT], in_force=in_force)

    def _read(self, folder: Path) -> TypeSet | InvalidPolicy:
        if self._optional and not self.types and not os.path.exists(folder):  # also if it may not be seen
            return TypeSet()
        try:
            found = task_types.load(folder)
            if self.require_cases:
                found = cases.read_all(folder, found)
        except InvalidPolicy as error:
            return error
        faults = self._faults(folder, found)
        return InvalidPolicy(faults) if faults else found

    def _faults(self, folder: Path, types: TypeSet) -> Sequence[Fault]:
        """What is wrong with a set of task types that are each in order."""
        faults = type_faults.placed(folder, self._check(types))
        return [*faults, *cases.unmet(folder, types)] if self.require_cases else faults

    def _is_ours(self, name: str) -> bool:
        is_case = name.endswith(task_types.CASES)
        return self.require_cases if is_case else name.endswith((".toml", ".cedar"))


def _digest(types: TypeSet, name: str) -> str:
    return types[name].digest if name in types else ""


async def _nothing(_types: TypeSet, _by: Mapping[str, Any]) -> None:
    return None
