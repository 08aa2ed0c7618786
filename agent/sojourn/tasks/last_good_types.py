"""The last good set of task types: the texts of the files of the set in force, kept in the agent's own database.

With it an agent starts whose folder of task types cannot be used. Nothing in it is taken on trust: it is parsed and
checked as a folder is.
"""

import asyncio
import json
from collections.abc import Mapping
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


class LastGood:
    """Keeps the set in force, and has it at the next start."""

    def __init__(self, store: KeptText, clock: Clock, *, stale: bool = False) -> None:
        """`stale`: the database is older than the last run, so that what it keeps may have been replaced since."""
        self._store = store
        self._clock = clock
        self._stale = stale
        self._kept = _digest_of(store.load())

    async def keep(self, folder: Path, types: TypeSet) -> None:
        """Keep a set that is in force. Do nothing if it is kept already; raise what the store raises.

        One that is too large is not kept, and then there is none: an older one could allow what this one does not.
        """
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
        try:
            await self.keep(folder, types)
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
        if self._stale:
            reason = "the database is older than the last run, and so may its set of task types be"
            await self._forget(reason)
            raise InvalidPolicy(reason)
        return await asyncio.to_thread(self._read, self._store.load())

    async def _forget(self, reason: str) -> None:
        """Have no start after this one take what is kept either."""
        self._kept = ""
        try:
            await self._store.save(canonical({"schema": _SCHEMA, "without": reason}))
        except SojournError as error:
            log.warning("policy_not_forgotten", reason=error.public, detail=error.detail or None)

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
