"""X.509-SVIDs that are signed before anybody asks, so that a workload's first call waits for no server.

They are kept fresh from then on as if somebody watched. Some entries at a time, so that whoever does ask comes first.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import structlog

from sojourn.errors import SojournError
from sojourn.identity.entries import Entry, IdentityKey, Registration
from sojourn.identity.entry_changes import Change
from sojourn.identity.registry import Registry
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.limits import PREFETCHED_AT_ONCE

log = structlog.get_logger()


class Prefetch:
    """Of `most` entries; the oldest come first."""

    def __init__(self, registry: Registry, issuing: SvidIssuer, most: int) -> None:
        self._registry = registry
        self._svids = issuing.x509
        self._most = most
        self._watched: dict[str, IdentityKey] = {}  # by the entry's ID
        self._missing: dict[str, Entry] = {}  # that are to be signed
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._watched)

    def begin(self) -> None:
        """Take entries from now on."""
        self._registry.on_change(self._changed)
        self._fill()

    async def run(self) -> NoReturn:
        """Have them signed, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._missing:
                names = list(self._missing)[:PREFETCHED_AT_ONCE]
                signed = (self._signed(self._missing.pop(name)) for name in names)
                await asyncio.gather(*signed, return_exceptions=True)  # one that is given up ends no other

    async def _signed(self, entry: Entry) -> None:
        try:
            with suppress(SojournError):  # it is tried again, as one is that somebody waits for
                await self._svids.get(entry)
        except Exception:
            log.exception("svid_not_prefetched", entry_id=entry.id)

    def _changed(self, changes: Sequence[Change]) -> None:
        gone = 0
        for change in changes:
            if change.old is not None and (change.new is None or not self._wanted(change.new)):
                gone += self._drop(change.old.id)
        for change in changes:
            if change.new is not None and self._wanted(change.new):
                self._take(change.new)
        if gone and len(self._registry) > len(self._watched):
            self._fill()

    def _fill(self) -> None:
        rest = (entry for entry in self._registry if entry.id not in self._watched and self._wanted(entry))
        for entry in sorted(rest, key=lambda each: (each.created_at, each.id)):
            if len(self._watched) >= self._most:
                return
            self._take(entry)

    def _wanted(self, entry: Registration) -> bool:
        plain = isinstance(entry, Entry) and not (entry.store_svid or entry.disable_x509_svid_prefetch)
        return plain and self._registry.serves(entry)

    def _take(self, entry: Registration) -> None:
        assert isinstance(entry, Entry)  # wanted
        known = self._watched.get(entry.id)
        if known is None and len(self._watched) >= self._most:
            return
        if known != entry.key:
            self._drop(entry.id)
            self._watched[entry.id] = entry.key
            self._svids.watch(entry.key)
        self._missing[entry.id] = entry
        self._wake.set()

    def _drop(self, entry_id: str) -> bool:
        self._missing.pop(entry_id, None)
        key = self._watched.pop(entry_id, None)
        if key is not None:
            self._svids.unwatch(key)
        return key is not None
