"""Which log is signed from a start on: the one of before, or a new one, and why.

A log must never sign two heads of which neither begins with the other. So wherever what is in the database may not be
all that was signed, a new one begins: with a random ID, and a key of its own. A record names the one before, and the
last checkpoint that is known of it.
"""

import secrets
from contextlib import suppress
from pathlib import Path

import structlog

from sojourn.audit.journal import Audit
from sojourn.audit.log_key import LogKey
from sojourn.audit.log_state import AHEAD, DAMAGED, FIRST_LOG, KEY_LOST, LOST, MISSING, REASONS, RESTORED, LogState
from sojourn.audit.signed_log import CHECKPOINT, LogStore, SignedLog
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import InvalidInput
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import root
from sojourn.tlog.notes import NOTE_MAX_BYTES, Note, VerifierKey
from sojourn.tlog.tiles import Edge, TileNodes, Tiles

log = structlog.get_logger()


class LogStart:
    """One start of the agent."""

    def __init__(
        self,
        store: LogStore,
        audit: Audit,
        keys: Path,
        folder: Path,
        base: str,
        clock: Clock,
        *,
        seal: KeySeal | None = None,
    ) -> None:
        """`keys`: the folder of keys; `folder`: the data folder; `base`: TRUST_DOMAIN/audit/NODE, as origins begin.
        `seal`: what keys are sealed with, if they are.
        """
        self._store = store
        self._audit = audit
        self._key = LogKey(keys, seal)
        self._folder = folder
        self._base = base
        self._clock = clock

    async def begin(self, epoch: int, first_seq: int, restored: tuple[bool, int] | None) -> SignedLog:
        """`epoch`: the number of this start; `first_seq`: of the first record that the journal has.

        `restored`: of the last time that the database was not that of the last run, whether there was none at all, and
        the number of that start. Raise StoreFailed, StoreFull, CannotStart.
        """
        logs = await self._store.logs()
        state = logs[-1] if logs else None
        last = self._last()
        why = await self._why(state, last, epoch, first_seq, restored)
        if state is not None and not why:
            private = self._key.of(VerifierKey.parse(state.vkey).public)
            assert private is not None
            edge = await self._store.with_tiles(state.number, lambda tiles: Edge.of(state.size, tiles))
            made = SignedLog(self._store, self._audit, self._key, self._folder, self._clock, state, edge)
            made.sign_with(private)
            return made
        return await self._anew(state, last, why or FIRST_LOG, epoch, first_seq)

    async def _why(
        self,
        state: LogState | None,
        last: tuple[Checkpoint, Note] | None,
        epoch: int,
        first_seq: int,
        restored: tuple[bool, int] | None,
    ) -> str:
        """Why a new log is to begin; '': it is not."""
        if state is None:
            if restored is None or restored[1] != epoch:
                return FIRST_LOG
            return LOST if restored[0] else RESTORED
        if restored is not None and restored[1] > state.epoch:
            return RESTORED
        if self._key.of(VerifierKey.parse(state.vkey).public) is None:
            return KEY_LOST
        if first_seq > state.end_seq + 1:
            return MISSING
        if last is not None and last[0].origin == state.origin and last[0].size > state.size:
            return AHEAD
        known = None if last is None or last[0].origin != state.origin else last[0]
        return await self._store.with_tiles(state.number, lambda tiles: _damage(state, known, tiles))

    def _last(self) -> tuple[Checkpoint, Note] | None:
        """The checkpoint in the file beside the database, as far as it is one. It is not verified."""
        with suppress(OSError, InvalidInput):
            with (self._folder / CHECKPOINT).open("rb") as file:
                note = Note.parse(file.read(NOTE_MAX_BYTES))
            return Checkpoint.parse(note.text), note
        return None

    async def _anew(
        self, state: LogState | None, last: tuple[Checkpoint, Note] | None, why: str, epoch: int, first_seq: int
    ) -> SignedLog:
        origin = f"{self._base}/{secrets.token_hex(8)}"
        private = self._key.make()
        at_ms = milliseconds(self._clock.now())
        begin = first_seq if state is None or why == DAMAGED else max(first_seq, state.end_seq + 1)
        previous = _known(state, last)
        made = LogState(
            number=1 if state is None else state.number + 1,
            origin=origin,
            first_seq=begin,
            reason=why,
            epoch=epoch,
            vkey=str(VerifierKey(origin, private.public_key().public_bytes_raw())),
            begun_ms=at_ms,
            previous=previous,
        )
        fields = {
            "origin": origin,
            "vkey": made.vkey,
            "first_seq": begin,
            "reason": why,
            "previous_origin": previous.partition("\n")[0] or (None if state is None else state.origin),
            "previous_checkpoint": previous or None,
        }
        events = [self._audit.event("audit_log_begun", fields)]
        if why == KEY_LOST:
            lost = {"reason": self._key.fault, "origin": fields["previous_origin"]}
            events.insert(0, self._audit.event("audit_key_lost", lost))
        if why != FIRST_LOG:
            event = KEY_LOST if why == KEY_LOST else "audit_log_begun_anew"
            said = f"{REASONS[why]}; a new log begins: give those who check it its key, `sojourn audit key`"
            # A database that was restored, or is gone, was told of before.
            tell = log.info if why in {RESTORED, LOST} else log.error
            tell(event, reason=f"{said} ({self._key.fault})" if why == KEY_LOST else said, origin=origin)
        await self._store.begin(made, events)
        self._key.settle()
        signed = SignedLog(self._store, self._audit, self._key, self._folder, self._clock, made, Edge())
        signed.sign_with(private)
        return signed


def _known(state: LogState | None, last: tuple[Checkpoint, Note] | None) -> str:
    """The last checkpoint that is known of the log before, as a note; '' if none is."""
    if state is None:
        return "" if last is None else str(last[1])
    ahead = last is not None and last[0].origin == state.origin and last[0].size >= state.size
    if ahead and last is not None and last[1].is_signed(VerifierKey.parse(state.vkey)):
        return str(last[1])
    return state.checkpoint


def _damage(state: LogState, known: Checkpoint | None, tiles: Tiles) -> str:
    """DAMAGED if the tree in the database is not that of its last checkpoint, and of the one that is known; else ''."""
    try:
        edge = Edge.of(state.size, tiles)
        if state.size:
            note = Note.parse(state.checkpoint.encode())
            checkpoint = Checkpoint(state.origin, state.size, edge.root())
            if note.text != checkpoint.text or not note.is_signed(VerifierKey.parse(state.vkey)):
                return DAMAGED
    except (KeyError, InvalidInput):
        return DAMAGED
    if known is not None and known.size:
        with suppress(KeyError):  # what it ends in was pruned: nothing can be told by it
            if root(TileNodes(tiles), known.size) != known.root:
                return DAMAGED
    return ""
