"""Case 23: the agent is killed at every record of its journal, and in the middle of every write.

A kill leaves what was written to the database's files by then. So the files are copied after each commit while tasks go
through their lives, and a next run begins on each copy, and on each copy whose last write is cut short.
"""

import asyncio
import copy
import itertools
import json
import random
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore
from fakes.task_room import TRIAGE_ENTRY, Room
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.audit.journal import Audit, Event
from sojourn.errors import ActionOutsideType, TaskOver
from sojourn.errors.oauth import ActionUsedUp
from sojourn.identity.registry import Registry
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.restorations import RestorationTable
from sojourn.store.tasks import TaskTable
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.recovery import Recovery
from sojourn.tasks.single_use import SingleUses
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.task_record import JournaledTask, TaskRecord
from sojourn.tasks.use_counter import UseCounter
from sojourn.tasktoken.end_reasons import OPERATOR
from sojourn.tasktoken.grants import Authority, Grant

pytestmark = pytest.mark.full

TYPES = {"triage": task_type(limits='{"ticket:write" = 9}')}
READ = Authority((Grant(TICKETS, ("ticket:read",)),))
STEPS = 32
CUTS = (1, 700, 4_120, 5_000)  # bytes: within a page, a whole page with its header, and more


@dataclass
class Known:
    """What callers were told. `changing` are tasks of which something was asked and not yet answered."""

    live: dict[str, int] = field(default_factory=dict)  # with the greatest version that was told
    ended: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    changing: set[str] = field(default_factory=set)
    uses: dict[str, int] = field(default_factory=dict)  # of an action that is counted, by task


@dataclass(frozen=True)
class Copy:
    """The database's files at one moment, and what was known then."""

    folder: Path
    known: Known


class CopyingStore:
    """The real journal; after each commit, and before anybody is told of it, the files are copied."""

    def __init__(self, database: Database, folder: Path, known: Known) -> None:
        self._table = TaskTable(database, AuditTable(database))
        self._folder = folder
        self._known = known
        self.copies: list[Copy] = []

    async def save(self, record: TaskRecord, event: Event) -> None:
        await self._table.save(record, event)
        self.copy()

    async def record(self, event: Event) -> None:
        await self._table.record(event)
        self.copy()

    async def append(self, events: Sequence[Event]) -> None:
        for event in events:
            await self.record(event)

    async def unfinished(self) -> list[JournaledTask]:
        return await self._table.unfinished()

    async def take_over(self, changes: Sequence[tuple[TaskRecord, Event]]) -> None:
        await self._table.take_over(changes)

    def copy(self) -> None:
        place = self._folder / f"copy{len(self.copies)}"
        place.mkdir()
        for name in ("sojourn.db", "sojourn.db-wal"):
            shutil.copy(self._folder / name, place / name)
        self.copies.append(Copy(place, copy.deepcopy(self._known)))


class Life:
    """Tasks of one process: begun, used, suspended, resumed, narrowed and ended, as chance will have it."""

    def __init__(self, room: Room, known: Known, chance: random.Random) -> None:
        self._room = room
        self._changing = TaskChanges(room.engine)
        self._counting = UseCounter(room.engine, SingleUses(room.clock.boot))
        self._known = known
        self._chance = chance

    async def step(self) -> None:
        live = sorted(self._known.live)
        doing = (
            self._chance.choice(["begin", "token", "use", "suspend", "resume", "narrow", "end"]) if live else "begin"
        )
        if doing == "begin":
            task = await self._room.begin()
            self._known.live[task.id] = task.version
            return
        found = self._room.engine.tasks.find(self._chance.choice(live))
        assert found is not None
        self._known.changing.add(found.id)
        try:
            match doing:
                case "token":
                    token = await self._room.engine.token(found, TICKETS, ())
                    self._known.tokens.add(str(token.claims["jti"]))
                case "use":
                    token = await self._room.engine.token(found, TICKETS, ("ticket:write",))
                    self._known.tokens.add(str(token.claims["jti"]))
                    await self._counting.use(token, "ticket:write")
                    self._known.uses[found.id] = self._known.uses.get(found.id, 0) + 1
                case "suspend":
                    await self._changing.suspend(found, OPERATOR, "why not")
                case "resume" if OPERATOR in found.suspensions:
                    await self._changing.resume(found, OPERATOR)
                case "narrow" if WIKI in found.authority.resources:
                    await self._changing.narrow(found, READ, "holder")
                case "end":
                    await self._room.engine.complete(found, failed=False)
        except TaskOver:  # a token of a suspended task
            assert doing in {"token", "use"}
        except (ActionOutsideType, ActionUsedUp):  # it was narrowed, or there is no use left
            assert doing == "use"
        self._known.changing.discard(found.id)
        if found.live:
            self._known.live[found.id] = found.version
        else:
            del self._known.live[found.id]
            self._known.ended.add(found.id)


async def lived(stack: AsyncExitStack, folder: Path, seed: int) -> tuple[Room, list[Copy]]:
    """A life of STEPS steps on a database in `folder`, with a copy for each commit and one after each step."""
    database = stack.enter_context(opened(folder / "sojourn.db"))
    known = Known()
    store = CopyingStore(database, folder, known)
    room = Room(FakeClock(), TYPES, store=store, epoch=await RestorationTable(database, AuditTable(database)).begin(0))
    stack.callback(room.end_everything)
    writer = asyncio.ensure_future(room.engine.journal.run())
    stack.callback(writer.cancel)
    life = Life(room, known, random.Random(seed))
    for _ in range(STEPS):
        await life.step()
        store.copy()
    return room, store.copies


async def check(room: Room, folder: Path, known: Known) -> None:
    """Begin the next run on a copy: nothing that was told is otherwise, and nothing is active."""
    with opened(folder / "sojourn.db") as database:
        journal = AuditTable(database)
        table = TaskTable(database, journal)
        following = Room(room.clock, TYPES, store=table, epoch=await RestorationTable(database, journal).begin(0))
        try:
            registry = Registry(FakeEntryStore([TRIAGE_ENTRY]), TRUST_DOMAIN, [NODE], room.clock, following.alarms)
            audit = Audit(table, room.clock)  # type: ignore[arg-type]
            await Recovery(
                following.engine,
                MassEnd(following.engine),
                registry,
                following.holders,
                table,
                audit,
                following.alarms,
                {},
            ).run()
            live = {task.id: task for task in following.engine.tasks.all()}
            assert {"suspended"} >= {task.state for task in live.values()}
            assert set() == known.live.keys() - known.changing - live.keys()
            assert set() == known.ended & live.keys()
            assert all(task.version > known.live.get(task.id, 0) for task in live.values())
            counted = {name: task.spent.counted.get("ticket:write", 0) for name, task in live.items()}
            told = {name: known.uses.get(name, 0) for name in live}
            assert all(told[name] <= counted[name] <= told[name] + (name in known.changing) for name in live)
            assert (0, "") == (await journal.verify())[1:]
            issued = {_jti(each.fields) for each in await journal.tail(10_000) if each.event == "token_issued"}
            assert set() == known.tokens - issued
        finally:
            following.end_everything()


def _jti(fields: str) -> Any:
    return json.loads(fields)["jti"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 2])
async def test_case_23_killed_at_every_record(stack: AsyncExitStack, tmp_path: Path, seed: int) -> None:
    """What was acknowledged is so, what has ended stays so, versions grow, and the journal's chain is whole."""
    room, copies = await lived(stack, tmp_path, seed)
    assert len(copies) > STEPS
    for each in copies:
        await check(room, each.folder, each.known)


@pytest.mark.timeout(180)
async def test_case_23_killed_within_every_write(stack: AsyncExitStack, tmp_path: Path) -> None:
    """A write that was cut short is as if it had never been: nobody had been told of it."""
    room, copies = await lived(stack, tmp_path, 3)
    cut_short = 0
    for before, after in itertools.pairwise(copies):
        size = (before.folder / "sojourn.db-wal").stat().st_size
        written = (after.folder / "sojourn.db-wal").read_bytes()
        for cut in CUTS:
            if len(written) - cut <= size:  # nothing was written between the two, or less than that
                continue
            place = tmp_path / f"cut{cut_short}"
            place.mkdir()
            shutil.copy(after.folder / "sojourn.db", place / "sojourn.db")
            (place / "sojourn.db-wal").write_bytes(written[:-cut])
            cut_short += 1
            await check(room, place, after.known)
            shutil.rmtree(place)
    assert cut_short > STEPS
