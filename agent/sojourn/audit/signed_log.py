"""The journal as a signed log: checkpoints of its tree, made behind the records and in nobody's way.

What is signed is on disk by then: records first, then tiles and checkpoint in one write, then the file beside the
database, then whoever asks. So no moment of a crash leaves a checkpoint that the next start would contradict: what the
database lacks is made again from the records. Where a database went back, another log begins (`audit/log_start.py`).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sojourn.audit.cosigned_notes import CosignedNotes
from sojourn.audit.journal import Audit, Event, Record
from sojourn.audit.leaves import leaf_of, line_of
from sojourn.audit.log_key import LogKey
from sojourn.audit.log_state import LogState
from sojourn.audit.stamped_notes import StampedNotes
from sojourn.errors import NotFound, SojournError, StoreFailed
from sojourn.files import atomic
from sojourn.operating_limits import LOG_AGAIN_SECONDS, LOG_AT_ONCE, LOG_PAUSE_SECONDS, LOG_SIGN_SECONDS, LOG_UNSIGNED
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.tlog.checkpoints import Checkpoint, Proof
from sojourn.tlog.merkle import consistency_proof, inclusion_proof, leaf_hash
from sojourn.tlog.notes import Note, Signer
from sojourn.tlog.tiles import Edge, TileNodes, Tiles

log = structlog.get_logger()
T = TypeVar("T")
CHECKPOINT = "audit.checkpoint"  # in the data folder: the last one, which no database that is put back takes with it


class LogStore(Protocol):
    """Where logs are kept."""

    async def logs(self) -> list[LogState]: ...

    async def begin(self, log: LogState, events: Sequence[Event]) -> None: ...

    async def save(self, log: LogState, tiles: Sequence[tuple[int, int, bytes]], rotation: str = "") -> None: ...

    async def records(self, behind: int, until: int) -> list[Record]: ...

    async def rotations(self, number: int) -> list[str]: ...

    async def with_tiles(self, number: int, work: Callable[[Tiles], T]) -> T: ...


class SignedLog:
    """One log while it is signed. `state` is what is on disk of it."""

    def __init__(
        self, store: LogStore, audit: Audit, key: LogKey, folder: Path, clock: Clock, state: LogState, edge: Edge
    ) -> None:
        """`folder`: the data folder. `edge`: that of the tree of `state`. `sign_with` comes before anything else."""
        self.state = state
        self.fault = ""  # why no checkpoint can be made
        self.on_signed: Hooks[[]] = Hooks()  # there is a checkpoint more
        self.signed_at = 0  # when the last checkpoint of this run was made, seconds since the epoch
        self.store = store
        self.cosigned, self.stamped = CosignedNotes(folder), StampedNotes(folder)
        self._audit = audit
        self._key = key
        self._file = folder / CHECKPOINT
        self._clock = clock
        self._edge = edge
        self._signer: Signer | None = None
        self._signing = asyncio.Lock()
        self._wake, self._many = asyncio.Event(), asyncio.Event()
        self._written = 0  # the last record that is on disk, as far as was heard

    def sign_with(self, private: Ed25519PrivateKey) -> None:
        self._signer = Signer(self.state.origin, private)

    def heard(self, loop: asyncio.AbstractEventLoop, seq: int) -> None:
        """The journal is on disk up to this record. Called in the writer's thread, after each commit."""
        if seq == self._written:
            return
        self._written = seq
        if not self._wake.is_set():
            loop.call_soon_threadsafe(self._wake.set)
        elif self.unsigned >= LOG_UNSIGNED and not self._many.is_set():
            loop.call_soon_threadsafe(self._many.set)

    @property
    def unsigned(self) -> int:
        """How many records no checkpoint has yet."""
        return max(0, self._written - self.state.end_seq)

    async def run(self) -> NoReturn:
        """Sign what is recorded, until cancelled."""
        while True:
            await self._wake.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOG_SIGN_SECONDS):
                    await self._many.wait()
            self._wake.clear()
            self._many.clear()
            if not await self.settle(LOG_PAUSE_SECONDS):
                await asyncio.sleep(LOG_AGAIN_SECONDS)
                self._wake.set()

    async def finish(self) -> None:
        """Sign what this run has recorded, if that is soon done; the next start goes on with the rest."""
        if self.unsigned <= LOG_AT_ONCE:
            await self.settle()

    async def settle(self, pause_seconds: float = 0.0) -> bool:
        """Sign all that is on disk now. False: it cannot be, and the log and `fault` say why.

        `pause_seconds`: between two checkpoints, where a journal of an earlier release has many records to sign.
        """
        try:
            # Not what comes meanwhile, too: under load that would be a checkpoint after the other without a pause.
            while True:
                if len(await self.step()) < LOG_AT_ONCE:
                    break
                await asyncio.sleep(pause_seconds)
        except (SojournError, OSError) as error:
            said = error.public if isinstance(error, SojournError) else str(error.strerror)
            if said != self.fault:
                log.error("audit_log_not_signed", reason=said, detail=str(error), origin=self.state.origin)
            self.fault = said
            return False
        self.fault = ""
        return True

    async def step(self) -> list[Record]:
        """Sign the next LOG_AT_ONCE records, if there are any, and return them.

        Raise StoreFailed, StoreFull, and OSError if only the file could not be written.
        """
        async with self._signing:
            return await self._step()

    async def _step(self) -> list[Record]:
        before = self.state.end_seq
        records = await self.store.records(before, before + LOG_AT_ONCE)
        if records:
            edge, tiles, note = await asyncio.to_thread(self._grown, records)
            await self._save(replace(self.state, size=edge.size, checkpoint=str(note)), tiles)
            self._edge = edge
            await asyncio.to_thread(atomic.write, self._file, self.state.checkpoint.encode())
        return records

    async def _save(self, state: LogState, tiles: Sequence[tuple[int, int, bytes]], rotation: str = "") -> None:
        await self.store.save(state, tiles, rotation)
        self.state, self.signed_at = state, int(self._clock.now().timestamp())
        self.on_signed.tell()

    def _grown(self, records: Sequence[Record]) -> tuple[Edge, list[tuple[int, int, bytes]], Note]:
        """The tree with these records: its edge, the tiles that are new or wider, and its checkpoint."""
        edge, seq = self._edge.copy(), self.state.end_seq
        tiles: list[tuple[int, int, bytes]] = []
        for record in records:
            seq += 1
            if record.seq != seq:
                raise StoreFailed(f"record {seq} is not in the journal: nothing is signed from there on")
            tiles += edge.append(leaf_hash(leaf_of(line_of(record))))
        return edge, [*tiles, *edge.partial()], self._signed(edge, [self._signer])

    def _signed(self, edge: Edge, signers: Sequence[Signer | None]) -> Note:
        text = Checkpoint(self.state.origin, edge.size, edge.root()).text
        at = int(self._clock.now().timestamp())
        lines = [line for each in signers if each is not None for line in (each.sign(text), each.cosign(text, at))]
        return Note(text, tuple(lines))

    async def rotate(self, by: Mapping[str, Any]) -> None:
        """Sign with a new key from now on: a record says so, and a checkpoint of it is signed by both.

        Raise StoreFailed, StoreFull, NotOnDisk: the key before signs on then.
        """
        private = await asyncio.to_thread(self._key.make)
        new = Signer(self.state.origin, private)
        async with self._signing:
            while len(await self._step()) >= LOG_AT_ONCE:
                pass
            fields = {"vkey_before": self.state.vkey, "vkey": str(new.key), "origin": self.state.origin}
            await self._audit.commit("audit_key_rotated", **fields, **by)
            record = None
            while record is None and (records := await self._step()):
                record = next((each for each in records if str(new.key) in each.fields), record)
            if record is None:
                raise StoreFailed("the record of the rotation is not in the journal")
            note = self._signed(self._edge, [self._signer, new])
            made = await self._prove(self.state, record, note)
            await self._save(replace(self.state, vkey=str(new.key), checkpoint=str(note)), (), str(made))
            self._signer = new
            await asyncio.to_thread(self._key.settle)
            await asyncio.to_thread(atomic.write, self._file, self.state.checkpoint.encode())

    async def lead_on(self, old: int) -> tuple[Note, list[bytes]]:
        """The last checkpoint, and the proof that its tree begins with that of `old` leaves, which is none for 0.

        Raise NotFound if that was pruned, or is longer.
        """
        state = self.state
        if not 0 <= old <= state.size:
            raise NotFound(f"the log has {state.size} leaves, and not {old}")
        try:
            proof = await self.store.with_tiles(
                state.number,
                lambda tiles: consistency_proof(TileNodes(tiles), old, state.size) if old else [],
            )
        except KeyError as error:
            raise NotFound(f"what leads on from {old} leaves of the log was pruned", detail=str(error)) from error
        return Note.parse(state.checkpoint.encode()), proof

    def sign_export(self, text: str) -> Note:
        """Sign what an exported folder says of itself. Raise StoreFailed."""
        if self._signer is None:
            raise StoreFailed("there is no key to sign with")
        return Note(text, (self._signer.sign(text),))

    async def prove(self, seq: int) -> Proof:
        """The proof that a record is in the log, by the checkpoint that most witnesses have cosigned of those that have
        it, or else by the log's last one. Raise NotFound.
        """
        if seq > self.state.end_seq:
            await self.settle()
        of = next((each for each in await self.logs() if each.first_seq <= seq <= each.end_seq), None)
        records = [] if of is None else await self.store.records(seq - 1, seq)
        if of is None or not records:
            raise NotFound(
                f"there is no record {seq} in the journal that a checkpoint has: it was pruned, or is to come"
            )
        note = self.cosigned.for_record(of.origin, seq - of.first_seq) or Note.parse(of.checkpoint.encode())
        return await self._prove(of, records[0], note)

    async def logs(self) -> list[LogState]:
        """All logs that there were, the one that is signed now last."""
        return [*await self.earlier(), self.state]

    async def earlier(self) -> list[LogState]:
        """Those before the one that is signed now."""
        return (await self.store.logs())[:-1]

    async def _prove(self, state: LogState, record: Record, note: Note) -> Proof:
        index, size = record.seq - state.first_seq, Checkpoint.parse(note.text).size
        try:
            path = await self.store.with_tiles(
                state.number, lambda tiles: inclusion_proof(TileNodes(tiles), index, size)
            )
        except KeyError as error:
            raise StoreFailed("the log's tree in the database lacks a tile", detail=str(error)) from error
        return Proof(line_of(record), index, tuple(path), note)
