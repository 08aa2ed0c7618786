"""The task types that are in force and the candidate beside them, each kept that of its folder."""

import asyncio
import os
from dataclasses import asdict
from pathlib import Path

import structlog

from sojourn.clock import Clock
from sojourn.errors import CannotStart, InvalidPolicy
from sojourn.oversight.audit import Audit
from sojourn.tasks.changing import Changing
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.reloading import Consequence, Reloading
from sojourn.tasks.shadow import Difference, Shadow
from sojourn.tasks.typefolder import Check, TypeFolder
from sojourn.tasks.types import TypeSet

log = structlog.get_logger()


class Policies:
    """Both sets of an engine. `candidate` is None if there is no folder of one."""

    def __init__(
        self,
        engine: TaskEngine,
        changing: Changing,
        folder: Path | None,
        candidate: Path | None,
        audit: Audit,
        clock: Clock,
        check: Check = lambda _types: (),
    ) -> None:
        """`folder` None: the usual one, which need not be there. `check`: see TypeFolder."""
        self._audit = audit
        self._engine = engine
        self.reloading = Reloading(engine, changing)
        self.folder = TypeFolder(
            folder or usual_folder(),
            self.reloading.apply,
            audit,
            clock,
            event="policy",
            optional=folder is None,
            check=check,
        )
        self.candidate: TypeFolder | None = None
        if candidate is not None:
            engine.shadow = Shadow(clock, self._differs)
            self.candidate = TypeFolder(
                candidate, self._take_candidate, audit, clock, event="shadow_policy", optional=False, check=check
            )
        self._folders = [each for each in (self.folder, self.candidate) if each is not None]

    async def start(self) -> None:
        """Bring both into force. Raise CannotStart if the set that counts cannot be used; the candidate may be bad."""
        try:
            await self.folder.start()
        except InvalidPolicy as error:
            raise CannotStart(f"task types: {error.public}") from error
        if self.candidate is not None:
            await self.candidate.look()

    async def run(self) -> None:
        """Follow the folders, until cancelled."""
        await asyncio.gather(*(folder.run() for folder in self._folders))

    def wake(self) -> None:
        """Have the folders read soon, whether or not they have changed."""
        for folder in self._folders:
            folder.wake()

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
    if os.geteuid() == 0:
        return Path("/etc/sojourn/task-types")
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sojourn" / "task-types"
    except RuntimeError:  # a user without a home
        return Path("/etc/sojourn/task-types")
