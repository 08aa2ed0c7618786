"""A real journal with its signed log in a test's folder, and exports of it, without an agent."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fakes.clock import FakeClock
from fakes.databases import opened
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit, Event
from sojourn.audit.log_start import LogStart
from sojourn.audit.signed_log import SignedLog
from sojourn.endpoints.admin.audit_export import AuditExportApi
from sojourn.store.audit import AuditTable
from sojourn.store.audit_log import AuditLogTable
from sojourn.store.audit_pages import AuditPages
from sojourn.store.database import Database
from sojourn.store.policy_sets import PolicySetTable

BASE = "example.org/audit/here"


@dataclass
class SignedJournal:
    """What a start of the agent has of its journal."""

    folder: Path
    database: Database
    journal: AuditTable
    audit: Audit
    signed: SignedLog
    clock: FakeClock

    async def record(self, number: int, text: str = "") -> None:
        """Record so many events, and sign them."""
        at = int(self.clock.now().timestamp() * 1000)
        events = [Event(at, "task_begun", f'{{"n":{each},"text":"{text}"}}') for each in range(number)]
        await self.journal.append(events)
        assert await self.signed.settle()

    @property
    def vkey(self) -> str:
        return self.signed.state.vkey

    @property
    def checkpoint(self) -> bytes:
        """The last one."""
        return self.signed.state.checkpoint.encode()

    async def export(self, to: Path, since_ms: int = 0, until_ms: int = 0) -> Path:
        """Write an export into a new folder, as the command does."""
        pages = AuditPages(self.database)
        api = AuditExportApi(self.audit, self.journal, pages, self.signed, PolicySetTable(self.database), self.clock)
        call: Any = SimpleNamespace(peer=SimpleNamespace(who=0), by={"by_uid": 0, "by_pid": 1})
        async for part in api.export(call, pb.ExportAuditRequest(since_ms=since_ms, until_ms=until_ms)):
            path = to / part.file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(part.content)
        return to


@asynccontextmanager
async def started(
    folder: Path, *, epoch: int = 1, restored: tuple[bool, int] | None = None, kept_least: int = 1_000
) -> AsyncIterator[SignedJournal]:
    """One start on a data folder; `restored` as LogStart.begin has it."""
    clock = FakeClock()
    with opened(folder / "sojourn.db") as database:
        journal = AuditTable(database, kept_least=kept_least)
        audit = Audit(journal, clock)
        table = AuditLogTable(database, journal.append_in)
        start = LogStart(table, audit, folder / "keys", folder, BASE, clock)
        signed = await start.begin(epoch, table.first_seq(), restored)
        await signed.settle()
        yield SignedJournal(folder, database, journal, audit, signed, clock)


async def exported(folder: Path, numbers: Sequence[int], *, rotate: bool = False) -> tuple[Path, str, bytes]:
    """A folder with so many records, signed one after the other, the first log's key, and its first checkpoint."""
    async with started(folder) as here:
        vkey = here.vkey
        first = b""
        for number in numbers:
            await here.record(number)
            first = first or here.checkpoint
        if rotate:
            await here.signed.rotate({"by_uid": 0, "by_pid": 1})
        return await here.export(folder / "out"), vkey, first
