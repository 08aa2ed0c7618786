"""What a witness answers to a log that wants a checkpoint cosigned (C2SP tlog-witness, add-checkpoint).

It cosigns a head only if a log that it trusts has signed it, and it is proved to begin with the last head that the
witness has cosigned of this log. Each log is served one request at a time; the head is on disk before the answer.
"""

import asyncio
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from sojourn.errors import InvalidInput, StoreFailed
from sojourn.operating_limits import WITNESS_LOGS
from sojourn.runtime.clock import Clock
from sojourn.tlog.add_checkpoint import SIZE_TYPE, AddCheckpoint
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.notes import Note, Signer, VerifierKey
from sojourn.witness.cosigned_heads import CosignedHeads

log = structlog.get_logger()
TEXT: Final = "text/plain; charset=utf-8"
Logs = Mapping[str, tuple[VerifierKey, ...]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP. `said`: why it is none of 200, for people and the log."""

    status: int
    body: bytes
    content_type: str = TEXT
    said: str = ""

    @classmethod
    def refusal(cls, status: int, said: str) -> "Answer":
        return cls(status, f"{said}\n".encode(), said=said)

    @classmethod
    def conflict(cls, size: int, said: str) -> "Answer":
        return cls(409, f"{size}\n".encode(), SIZE_TYPE, said)


def logs_of(vkeys: Iterable[str]) -> Logs:
    """The logs that are trusted, by their origins; a log may have several keys. Raise InvalidInput."""
    found: dict[str, list[VerifierKey]] = {}
    for text in vkeys:
        try:
            key = VerifierKey.parse(text)
        except InvalidInput as error:
            raise InvalidInput(f"{text[:200]!r}: {error.public}") from error
        found.setdefault(key.name, []).append(key)
    if len(found) > WITNESS_LOGS:
        raise InvalidInput(f"there are more than {WITNESS_LOGS} logs")
    return {origin: tuple(dict.fromkeys(keys)) for origin, keys in found.items()}


class Witness:
    """Cosigns for the logs in `logs`, which may be changed while it runs."""

    def __init__(self, signer: Signer, logs: Logs, heads: CosignedHeads, clock: Clock) -> None:
        self.logs = logs
        self._signer = signer
        self._heads = heads
        self._clock = clock
        self._turns: dict[str, asyncio.Lock] = {}

    async def add(self, unverified_body: bytes) -> Answer:
        """What is answered to one request. Raise StoreFailed, without anything cosigned."""
        try:
            request = AddCheckpoint.parse(unverified_body)
            checkpoint = Checkpoint.parse_extended(request.note.text)
        except InvalidInput as error:
            return Answer.refusal(400, error.public)
        keys = self.logs.get(checkpoint.origin)
        if keys is None:
            return Answer.refusal(404, f"the log {checkpoint.origin[:200]!r} is not known here")
        if not any(request.note.is_signed(key) for key in keys):
            return Answer.refusal(403, "the checkpoint is not signed by a key of its log that is known here")
        if request.old > checkpoint.size:
            return Answer.refusal(400, "the old size is larger than the checkpoint")
        async with self._turns.setdefault(checkpoint.origin, asyncio.Lock()):
            return await asyncio.to_thread(self._decide, request, checkpoint)

    def _decide(self, request: AddCheckpoint, checkpoint: Checkpoint) -> Answer:
        """In a thread, and nobody else's at the same time for this log."""
        last = self._heads.last(checkpoint.origin)
        known = 0 if last is None else last.size
        if last is not None and last.size == checkpoint.size and last.root != checkpoint.root:
            self._tell_conflict(request, checkpoint)
            return Answer.conflict(known, f"another head of this size was cosigned than {_shown(checkpoint)}")
        if request.old != known:
            return Answer.conflict(known, f"the last head that was cosigned has {known} leaves, and not {request.old}")
        if not request.proves(b"" if last is None else last.root, checkpoint):
            if last is not None and request.old < checkpoint.size:
                # Nothing shows that it contradicts anything: whoever has a true head can send it without its proof.
                self._heads.keep_unproved(checkpoint.origin, self._kept(request.note, checkpoint))
            return Answer.refusal(
                422, f"the proof does not lead from the last cosigned head: not proved is {_shown(checkpoint)}"
            )
        at = int(self._clock.now().timestamp())
        line = self._signer.cosign(request.note.text, at)
        if last is None or last.text != request.note.text:  # else it is on disk as the last one
            self._heads.keep(checkpoint, self._kept(request.note, checkpoint).with_lines([line]))
        log.info("witness_cosigned", origin=checkpoint.origin, size=checkpoint.size, before=known)
        return Answer(200, str(line).encode())

    def _kept(self, note: Note, checkpoint: Checkpoint) -> Note:
        """The note with no signatures but good ones of the log: anybody may have added others, in its name too."""
        keys = self.logs.get(checkpoint.origin, ())
        return Note(note.text, tuple(line for key in keys for line in note.good_lines(key)))

    def _tell_conflict(self, request: AddCheckpoint, checkpoint: Checkpoint) -> None:
        """Say it once for each such head, where there is room for it: whoever has one can send it again and again."""
        kept = self._heads.keep_conflict(checkpoint.origin, self._kept(request.note, checkpoint))
        if kept is None:
            return
        said = {"size": checkpoint.size, "root": b64encode(checkpoint.root).decode(), "path": kept or None}
        log.error("witness_conflict", origin=checkpoint.origin, reason="it has signed two heads of one size", **said)


def _shown(checkpoint: Checkpoint) -> str:
    return f"the head of {checkpoint.size} leaves with the root {b64encode(checkpoint.root).decode()}"


def check_state(heads: CosignedHeads, logs: Logs) -> None:
    """Look at what was cosigned of each of these logs. Raise StoreFailed if that cannot be told of one."""
    for origin in logs:
        try:
            heads.last(origin)
        except StoreFailed as error:
            raise StoreFailed(
                f"{error.public}; put back what was there last, or make a new witness with another key",
                detail=error.detail,
            ) from error
