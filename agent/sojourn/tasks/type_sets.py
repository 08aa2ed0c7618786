"""The task types that are in force and the candidate beside them, each kept that of its folder."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from sojourn.audit.journal import Audit
from sojourn.config.paths import config_dir
from sojourn.policy.task_types import TaskType, TypeSet
from sojourn.runtime.clock import Clock
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.last_good_types import LastGood
from sojourn.tasks.policy_reload import Consequence, PolicyReload
from sojourn.tasks.shadow_policy import Difference, Shadow
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.type_folder import FOLDER, NONE, Check, TypeFolder

log = structlog.get_logger()
# What callers are told. Which file is wrong, and how, is for operators.
_NONE_IN_FORCE = "no task types are in force: the agent can use neither those of its folder nor an earlier set of them"


class Policies:
    """Both sets of an engine. `candidate` is None if there is no folder of one."""

    def __init__(
        self,
        engine: TaskEngine,
        changing: TaskChanges,
        folder: Path | None,
        candidate: Path | None,
        audit: Audit,
        clock: Clock,
        check: Check = lambda _types: (),
        *,
        require_cases: bool = False,
        last_good: LastGood | None = None,
        usual: Path | None = None,
    ) -> None:
        """`folder` None: the usual one, which need not be there. `usual`: another than an agent's. For the rest see
        TypeFolder.
        """
        self._audit = audit
        self._engine = engine
        self._clock = clock
        self._check = check
        self.reloading = PolicyReload(engine, changing)
        self.folder = TypeFolder(
            folder or usual or usual_folder(),
            self._take,
            audit,
            clock,
            event="policy",
            optional=folder is None,
            check=check,
            require_cases=require_cases,
            last_good=last_good,
        )
        self.candidate: TypeFolder | None = None
        self._turn = asyncio.Lock()  # of whoever exchanges the candidate
        self._group: asyncio.TaskGroup | None = None
        self._following: asyncio.Task[None] | None = None  # the candidate
        if candidate is not None:
            self._put(self._candidate_of(candidate))

    async def start(self) -> None:
        """Bring both into force. What cannot be used is told, and hinders no start: see TypeFolder."""
        await self.folder.start()
        if self.folder.origin == NONE:
            self._engine.no_types = _NONE_IN_FORCE
        if self.candidate is not None:
            await self.candidate.look()

    async def run(self) -> None:
        """Follow the folders, until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self.folder.run())
            self._follow()

    def wake(self) -> None:
        """Have the folders read soon, whether or not they have changed."""
        for folder in (self.folder, self.candidate):
            if folder is not None:
                folder.wake()

    @property
    def in_force(self) -> Mapping[str, TaskType]:
        """The task types by which tasks are decided now."""
        return self._engine.types

    @property
    def caution(self) -> str:
        """What people must hear of the task types in force, if they are not those of the folder; empty: they are."""
        if self.folder.origin == FOLDER:
            return ""
        said = f"the task types in {str(self.folder.folder)!r} cannot be used: {self.folder.fault}"
        if self.folder.origin == NONE:
            return (
                f"{said}; NO task types are in force ({self.folder.without}): identities are served, and no task begins"
            )
        accepted = self.folder.accepted_at
        return f"{said}; the last good set is in force, of {accepted:%Y-%m-%d %H:%M:%S} UTC"

    async def move(self, folder: Path | None, *, require_cases: bool) -> None:
        """Follow another folder from now on, or by another rule, the candidate's too; `folder` as at the beginning.

        What is in force stays until what the folder says can be used.
        """
        await self.folder.move(folder or usual_folder(), optional=folder is None, require_cases=require_cases)
        async with self._turn:
            if self.candidate is not None:
                await self.candidate.move(self.candidate.folder, optional=False, require_cases=require_cases)

    async def try_candidate(self, folder: Path, **by: Any) -> TypeFolder:
        """Have the set in a folder asked beside from now on, in the place of any other; `by` is recorded.

        Raise InvalidPolicy if it cannot be used: all is as it was then.
        """
        async with self._turn:
            made = self._candidate_of(folder)
            types = await made.read()
            self._put(made)
            await made.take(types, **by)
            return made

    async def follow_candidate(self, folder: Path | None) -> None:
        """Have the set in a folder asked beside once it can be used; None: no set is any more."""
        async with self._turn:
            self._put(None if folder is None else self._candidate_of(folder))
            if self.candidate is not None:
                await self.candidate.look()

    async def drop_candidate(self, **by: Any) -> None:
        """Have no candidate asked any more."""
        async with self._turn:
            if self.candidate is not None:
                self._audit.note("shadow_policy_dropped", folder=str(self.candidate.folder), **by)
            self._put(None)

    def _candidate_of(self, folder: Path) -> TypeFolder:
        return TypeFolder(
            folder,
            self._take_candidate,
            self._audit,
            self._clock,
            event="shadow_policy",
            optional=False,
            check=self._check,
            require_cases=self.folder.require_cases,
        )

    def _put(self, candidate: TypeFolder | None) -> None:
        """Have another candidate, or none, and follow its folder if folders are followed by now."""
        self.candidate = candidate
        self._engine.shadow = None if candidate is None else Shadow(self._clock, self._differs)
        if self._following is not None:
            self._following.cancel()
            self._following = None
        self._follow()

    def _follow(self) -> None:
        if self._group is not None and self.candidate is not None:
            self._following = self._group.create_task(self.candidate.run())

    async def _take(self, types: TypeSet) -> list[Consequence]:
        self._engine.no_types = ""
        return await self.reloading.apply(types)

    async def _take_candidate(self, types: TypeSet) -> list[Consequence]:
        assert self._engine.shadow is not None
        self._engine.shadow.replace(types)
        return []

    def _differs(self, found: Difference, candidate: str) -> None:
        fields = asdict(found)
        self._audit.note("shadow_difference", **fields, policy_set=self._engine.types.digest, candidate_set=candidate)
        log.info("shadow_difference", **fields)


def usual_folder() -> Path:
    """Where task types are when the configuration does not say."""
    if (folder := config_dir()) is not None:
        return folder / "task-types"
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sojourn" / "task-types"
    except RuntimeError:  # a user without a home
        return Path("/etc/sojourn/task-types")
