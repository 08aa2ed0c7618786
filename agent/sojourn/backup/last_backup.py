"""The last backup of the data folder, as the command that made it has written down beside the database."""

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import structlog

from sojourn.audit.journal import Audit
from sojourn.backup.create import LAST
from sojourn.errors import SojournError
from sojourn.jose.canonical_json import exactly
from sojourn.limits import BACKUP_LOOK_SECONDS
from sojourn.store.restorations import RestorationTable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BackedUp:
    """`at`: seconds since the epoch; `seq`: the last record of the journal that is in it."""

    at: int
    file: str
    seq: int
    sha256: str
    size: int


def read(folder: Path) -> BackedUp | None:
    """None: there was none, or what is there cannot be read."""
    try:
        said: dict[str, Any] = exactly(dict, json.loads((folder / LAST).read_bytes()))
        return BackedUp(
            exactly(int, said["at"]),
            exactly(str, said["file"]),
            exactly(int, said["seq"]),
            exactly(str, said["sha256"]),
            exactly(int, said["size"]),
        )
    except (OSError, SojournError, KeyError, ValueError):
        return None


class LastBackup:
    """What the agent knows of backups, and records of them: a backup has its keys in it."""

    def __init__(self, folder: Path, table: RestorationTable, audit: Audit) -> None:
        self._folder = folder
        self._table = table
        self._audit = audit

    def read(self) -> BackedUp | None:
        """The last one."""
        return read(self._folder)

    @property
    def timestamp(self) -> float:
        """When it was made, seconds since the epoch; 0: never, as far as is known."""
        found = self.read()
        return 0.0 if found is None else float(found.at)

    async def run(self) -> NoReturn:
        """Record each in the journal, soon after it was made, until cancelled."""
        noted = ""
        while True:
            found = await asyncio.to_thread(self.read)
            if found is not None and found.sha256 != noted:
                try:
                    if await self._table.backed_up() != found.sha256:
                        await self._note(found)
                    noted = found.sha256
                except SojournError as error:
                    log.error("backup_not_recorded", reason=error.public, detail=error.detail)
            await asyncio.sleep(BACKUP_LOOK_SECONDS)

    async def _note(self, found: BackedUp) -> None:
        said = asdict(found)
        fields = {"made_at": said.pop("at"), "until_seq": said.pop("seq"), **said}
        await self._table.note_backup(found.sha256, self._audit.event("backup_created", fields))
