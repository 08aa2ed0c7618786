"""The last good set of task types: the texts of the files of the set in force, kept in the agent's own database.

With it an agent starts whose folder of task types cannot be used. Nothing in it is taken on trust: it is parsed and
checked as a folder is.
"""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from sojourn.errors import InvalidPolicy, SojournError
from sojourn.jose.canonical_json import canonical, digest_of, exactly, seconds, texts
from sojourn.limits import KEPT_TYPES_MAX_BYTES
from sojourn.policy import task_types
from sojourn.policy.task_types import TypeSet
from sojourn.runtime.clock import Clock

log = structlog.get_logger()
_SCHEMA = 1
_OLDER = "the database is older than the last run, and so may its set of task types be"


class KeptText(Protocol):
    """One text that outlives the agent."""

    def load(self) -> str | None: ...

    async def save(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class LastGoodSet:
    """A set that was in force, of which folder, and since when."""

    types: TypeSet
    folder: Path
    accepted_at: datetime


class RecordedSets(Protocol):
    """Where the sets are that records name."""

    async def keep(self, digest: str, texts: Mapping[str, str]) -> None: ...


class LastGood:
    """Keeps the set in force, and has it at the next start."""

    def __init__(self, store: KeptText, clock: Clock, recorded: RecordedSets | None = None) -> None:
        """`recorded`: which has each set that was in force, for whoever reads the records of what it decided."""
        self._store = store
        self._clock = clock
        self._recorded = recorded
        self._in_records = ""  # the set that it has by now
        self._kept = _digest_of(store.load())

    async def keep(self, folder: Path, types: TypeSet) -> None:
        """Keep a set that is in force. Do nothing if it is kept already; raise what the store raises.

        One that is too large is not kept, and then there is none: an older one could allow what this one does not.
        """
        await self._keep(folder, types)
        await self.record(types)

    async def record(self, types: TypeSet) -> None:
        """Have a set that is in force among those that records name. Raise what the store raises."""
        if self._recorded is not None and types.digest != self._in_records:
            await self._recorded.keep(types.digest, types.texts)
            self._in_records = types.digest

    async def _keep(self, folder: Path, types: TypeSet) -> None:
        digest = _digest(folder, types.texts)
        if digest == self._kept:
            return
        at = int(self._clock.now().timestamp())
        about = {"schema": _SCHEMA, "folder": str(folder), "digest": types.digest, "at": at}
        text = canonical({**about, "files": dict(types.texts)})
        if len(text) > KEPT_TYPES_MAX_BYTES:
            reason = f"the set that was in force last is larger than the {KEPT_TYPES_MAX_BYTES} bytes that are kept"
            text = canonical({**about, "without": reason})
            log.warning("policy_not_kept", folder=str(folder), reason=reason)
        await self._store.save(text)
        self._kept = digest

    async def try_to_keep(self, folder: Path, types: TypeSet) -> bool:
        """The same, but what the store raises is told, and returned as False: the set is in force nonetheless."""
        return await self._tried(folder, self.keep(folder, types))

    async def try_to_record(self, folder: Path, types: TypeSet) -> bool:
        """The same of a set that is kept already, for those who read the records of what it decides."""
        return await self._tried(folder, self.record(types))

    async def _tried(self, folder: Path, keeping: Awaitable[None]) -> bool:
        try:
            await keeping
        except SojournError as error:
            log.warning("policy_not_kept", folder=str(folder), reason=error.public, detail=error.detail or None)
            return False
        return True

    def belongs_to(self, folder: Path) -> bool:
        """Whether the set that is kept has any task types, and is that of this folder."""
        try:
            document = _document(self._store.load())
            return document.get("folder") == str(folder) and bool(document.get("files") or "without" in document)
        except Exception:  # noqa: BLE001  # a damaged document may raise anything
            return False

    async def read(self) -> LastGoodSet:
        """The set that is kept. Raise InvalidPolicy: why there is none."""
        return await asyncio.to_thread(self._read, self._store.load())

    def _read(self, text: str | None) -> LastGoodSet:
        try:
            document = _document(text)
            if "without" in document:
                raise InvalidPolicy(exactly(str, document["without"]))
            folder = Path(exactly(str, document["folder"]))
            found = task_types.made_of(folder, texts(exactly(dict, document["files"])))
            if found.digest != document["digest"]:
                raise InvalidPolicy("the kept set of task types is damaged")
            accepted = datetime.fromtimestamp(seconds(document["at"]), UTC)
        except InvalidPolicy:
            raise
        except Exception as error:
            log.exception("kept_policy_damaged")
            raise InvalidPolicy("the kept set of task types is damaged") from error
        if not found:
            raise InvalidPolicy("the set that was in force last has no task types")
        return LastGoodSet(found, folder, accepted)


def of_older(text: str) -> str:
    """What is kept in the place of that text, where the database is older than the last run: no set, of the folder."""
    about: dict[str, object] = {"schema": _SCHEMA, "without": _OLDER}
    with suppress(Exception):  # a damaged document may raise anything
        about["folder"] = exactly(str, _document(text)["folder"])
    return canonical(about)


def _digest(folder: Path | str, files: Mapping[str, str]) -> str:
    """By which a set is known to be kept already."""
    return digest_of([str(folder), dict(files)])


def _digest_of(text: str | None) -> str:
    """The same of what is kept; empty if that is no set."""
    try:
        document = _document(text)
        return _digest(exactly(str, document["folder"]), texts(exactly(dict, document["files"])))
    except Exception:  # noqa: BLE001  # a damaged document may raise anything
        return ""


def _document(text: str | None) -> dict[str, object]:
    """What is kept. Raise InvalidPolicy, or whatever a damaged text raises."""
    if text is None:
        raise InvalidPolicy("no set has been in force here before")
    document = exactly(dict, json.loads(text))
    if document.get("schema") != _SCHEMA:
        raise InvalidPolicy("the set that was in force last was kept by another release")
    return document
