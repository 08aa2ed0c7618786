"""The kill switch: a task type, a workload or a person is switched off. None of its tasks lives, and none begins.

Operators do it, and for people their issuer by signed events; what one has switched off no event of another switches
on. Switching off is in force before it is on disk, and is written behind it where the disk takes nothing: what stops
need not wait. Switching on is on disk first.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import AlreadyExists, LimitExceeded, NotFound, SojournError
from sojourn.errors.oauth import NotOnDisk
from sojourn.limits import AUDITED_TEXT, PEOPLE_BLOCKED_BY_SIGNALS, REDECIDED_AT_ONCE, TASK_BLOCKS
from sojourn.runtime.background import Background, Retry
from sojourn.runtime.clock import Alarms, Clock
from sojourn.tasks.blocks import PERSON, TYPE, Block
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.task import Task
from sojourn.tasktoken.end_reasons import BLOCKED, explanation_of

log = structlog.get_logger()
RETRY_SECONDS = 1.0  # after which what the disk did not take is written again


class BlockStore(Protocol):
    """Where blocks are kept."""

    async def save(self, values: Sequence[Block], events: Sequence[Event]) -> None:
        """Keep these in the place of those before, with the records of the changes. Raise what the store does."""


class KillSwitch:
    """Changes the engine's blocks, one change at a time."""

    def __init__(self, engine: TaskEngine, store: BlockStore, audit: Audit, clock: Clock, alarms: Alarms) -> None:
        self._engine = engine
        self._store = store
        self._audit = audit
        self._clock = clock
        self._lock = asyncio.Lock()
        self._unwritten: dict[tuple[str, str, str], Event] = {}  # what is off, and the disk does not say so yet
        self._background = Background("blocks_not_written")
        self._again = Retry(alarms, self._background, RETRY_SECONDS, self._write_behind)

    async def switch_off(self, kind: str, name: str, reason: str, by: Mapping[str, Any]) -> Sequence[Task]:
        """End the live tasks of a type or workload, and have none begin. Return those that were live.

        Raise UnknownTaskType, AlreadyExists, LimitExceeded; or NotOnDisk: it is off then.
        """
        if kind == TYPE and not self._engine.no_types:  # without types, what is to be off may have lost its file
            self._engine.type_named(name)
        said = reason[:AUDITED_TEXT] or "no reason given"
        return await self._off(Block(kind, name, said, self._now()), explanation_of(reason), by)

    async def block_by_signal(self, person: str, event: str, source: str, at: int, by: Mapping[str, Any]) -> None:
        """Switch off whoever has this pseudonym, since a signed event of `source` says that something has happened to
        their account `at` a time, seconds since the epoch. Nothing is done if that is so already.

        Raise as `switch_off`.
        """
        said = f"{event}, as {source[:AUDITED_TEXT]} says"
        try:
            await self._off(Block(PERSON, person, said, at, source), "", {**by, "source": source})
        except AlreadyExists:
            return

    async def unblock_by_signal(self, person: str, source: str, at: int, by: Mapping[str, Any]) -> bool:
        """Switch on whom events of this `source` have switched off before `at`. Return whether they were off by them.

        Times are whole seconds: of what has happened in the same one, nobody knows the order, and it stays off.
        """
        return await self._on(
            lambda block: (block.kind, block.name, block.source) == (PERSON, person, source) and block.since < at,
            {PERSON: person, "source": source, **by},
        )

    async def switch_on(self, kind: str, name: str, by: Mapping[str, Any]) -> None:
        """Let tasks of a type or workload begin again, whoever has switched it off.

        Raise NotFound, or what the store raises: it stays off then.
        """
        if not await self._on(lambda block: (block.kind, block.name) == (kind, name), {kind: name, **by}):
            raise NotFound(f"{name[:100]!r} is not switched off")

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    async def close(self) -> None:
        """The agent stops: write what is not on disk, if that can be."""
        if self._unwritten:
            await self._write_behind()
        await self._background.quiet()

    async def _off(self, made: Block, explanation: str, by: Mapping[str, Any]) -> Sequence[Task]:
        return await asyncio.shield(self._background.run(self._switched_off(made, explanation, by)))

    async def _switched_off(self, made: Block, explanation: str, by: Mapping[str, Any]) -> Sequence[Task]:
        async with self._lock:
            known = self._engine.blocks.all()
            before = next((block for block in known if block.key == made.key), None)
            if before is not None and not _is_news(made, before):
                if made.key not in self._unwritten:
                    raise AlreadyExists(f"{made.name!r} is switched off already")
                await self._write()
                return ()
            if before is None:
                _check_room(made, known)
            elif before.source:  # events may come in another order than they happened
                made = replace(made, since=max(made.since, before.since))
            self._engine.blocks.replace([*(each for each in known if each.key != made.key), made])
            ended = await self._stop(made, explanation)
            fields = {made.kind: made.name, "reason": made.reason, "ended": len(ended), **by}
            self._unwritten[made.key] = self._audit.event("tasks_blocked", fields)
            await self._write()
        return ended

    async def _write(self) -> None:
        """Have on disk what is off. Raise NotOnDisk, and try again behind it."""
        try:
            await self._store.save(self._engine.blocks.all(), [*self._unwritten.values()])
        except BaseException as error:
            self._again.ask()
            if not isinstance(error, SojournError):
                raise
            raise NotOnDisk(
                f"it is switched off, and that is not on disk yet: {error.public}; it is tried again until the agent"
                " stops",
                detail=error.detail,
            ) from error
        self._unwritten.clear()

    async def _write_behind(self) -> None:
        async with self._lock:
            try:
                if self._unwritten:
                    await self._write()
            except NotOnDisk as error:
                log.error("blocks_not_written", reason=error.public, detail=error.detail, waiting=len(self._unwritten))

    async def _on(self, which: Callable[[Block], bool], fields: Mapping[str, Any]) -> bool:
        async with self._lock:
            known = self._engine.blocks.all()
            left = [block for block in known if not which(block)]
            if left == known:
                return False
            event = self._audit.event("tasks_unblocked", dict(fields))
            await self._store.save(left, [*self._unwritten.values(), event])
            self._engine.blocks.replace(left)
            self._unwritten.clear()
        return True

    async def _stop(self, block: Block, explanation: str) -> Sequence[Task]:
        """End what is live of it. None begins meanwhile, and others have their turn in between."""
        found = self._live_of(block)
        for number, task in enumerate(found, 1):
            if task.live:
                self._engine.stop(task, BLOCKED, explanation)
            if number % REDECIDED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return found

    def _live_of(self, block: Block) -> Sequence[Task]:
        """The live tasks of what is off. Those of a person are found in one step, however many there are of others."""
        if block.kind == PERSON:
            return self._engine.tasks.people.of_pseudonym(block.name)
        return [each for each in self._engine.tasks.all() if block.stops(each.type.name, each.spiffe_id)]


def _is_news(made: Block, before: Block) -> bool:
    """Whether an event says that it has happened once more: what switched on in between does so no longer."""
    return bool(made.source) and made.since > before.since


def _check_room(made: Block, known: Sequence[Block]) -> None:
    """Raise LimitExceeded if there are too many. What issuers say takes no room of the operators'."""
    most = PEOPLE_BLOCKED_BY_SIGNALS if made.source else TASK_BLOCKS
    if sum(bool(each.source) == bool(made.source) for each in known) >= most:
        raise LimitExceeded(f"more than {most} blocks")
