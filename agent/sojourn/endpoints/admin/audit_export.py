"""Of sojourn.v1.Admin: the journal as files that a stranger checks without the agent.

The agent makes each byte of them and signs what the folder says of itself; the command writes them down. It reads page
by page, as others do who read the journal, and holds up nobody.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.cosigned_notes import id_of
from sojourn.audit.journal import Audit
from sojourn.audit.leaves import line_of
from sojourn.audit.log_state import LogState
from sojourn.audit.signed_log import SignedLog
from sojourn.audit.stamped_notes import StampFile
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import FailedPrecondition, InvalidInput, NotFound, StoreFailed
from sojourn.evidence import policy_sets
from sojourn.evidence.manifest import (
    COSIGNED,
    MANIFEST,
    MANIFEST_NOTE,
    RECORDS,
    STAMP,
    ExportedLog,
    Manifest,
    statement,
)
from sojourn.limits import AUDIT_FOLLOWERS
from sojourn.operating_limits import EXPORT_PIECE_BYTES, EXPORT_RECORDS, EXPORT_TILES
from sojourn.quota.concurrency import Concurrency
from sojourn.runtime.clock import Clock
from sojourn.store.audit import AuditTable
from sojourn.store.audit_pages import AuditPages
from sojourn.store.policy_sets import PolicySetTable
from sojourn.tlog.merkle import HASH_BYTES
from sojourn.tlog.notes import Note
from sojourn.tlog.tiles import WIDTH, Tiles, path_of, widths


class AuditExportApi:
    """For operators."""

    def __init__(
        self,
        audit: Audit,
        journal: AuditTable,
        pages: AuditPages,
        signed: SignedLog,
        sets: PolicySetTable,
        clock: Clock,
    ) -> None:
        self._audit = audit
        self._journal = journal
        self._pages = pages
        self._signed = signed
        self._sets = sets
        self._clock = clock
        self._exporting = Concurrency(AUDIT_FOLLOWERS, "exports of the audit journal")

    def admin_methods(self) -> dict[str, Method]:
        return {"ExportAudit": Method("stream", pb.ExportAuditRequest, self.export)}

    async def export(self, call: Call, request: pb.ExportAuditRequest) -> AsyncIterator[pb.ExportAuditPart]:
        if request.since_ms < 0 or request.until_ms < 0:
            raise InvalidInput("since_ms or until_ms is out of range")
        with self._exporting.one(call.peer.who):
            async with aclosing(self._parts(request.since_ms, request.until_ms)) as parts:
                async for part in parts:
                    yield part
        self._audit.note("audit_exported", since_ms=request.since_ms, until_ms=request.until_ms, **call.by)

    async def _parts(self, since_ms: int, until_ms: int) -> AsyncGenerator[pb.ExportAuditPart, None]:
        await self._audit.settle()
        await self._signed.settle()
        # Before the logs, so that nothing is cosigned of what the folder does not have yet.
        cosigned, stamps = self._signed.cosigned.all(), await asyncio.to_thread(self._signed.stamped.all)
        logs = await self._signed.logs()
        first = await self._journal.first()
        begin = max(first, await self._pages.before_time(since_ms) + 1) if since_ms else first
        end = min(logs[-1].end_seq, await self._pages.before_time(until_ms)) if until_ms else logs[-1].end_seq
        if end < begin:
            raise NotFound("the journal has no records of that time that a checkpoint has")
        before = await self._journal.digest_before(begin)
        # One without leaves, of which some were vouched for, has lost them: whoever checks the folder is to see that.
        ends = [
            (each, each.first_seq if not each.size and cosigned.get(each.origin) else each.end_seq)
            for each in logs[:-1]
        ]
        wanted = [each for each, last in ends if each.first_seq <= end and max(begin, each.first_seq) <= last]
        wanted.append(logs[-1])
        files: dict[str, str] = {}
        digest, total = hashlib.sha256(), end - begin + 1
        async for lines, done in self._lines(begin, end):
            digest.update(lines)
            for piece in _pieces(lines):
                yield pb.ExportAuditPart(file=RECORDS, content=piece, done=done, total=total)
        files[RECORDS] = digest.hexdigest()
        async for path, content in self._policy_sets(begin, end):
            if path not in files:
                files[path] = hashlib.sha256(content).hexdigest()
                for piece in _pieces(content):
                    yield pb.ExportAuditPart(file=path, content=piece)
        for state in wanted:
            async for part in self._log(
                state, first, cosigned.get(state.origin, {}), stamps.get(id_of(state.origin), ()), files
            ):
                yield part
        if await self._journal.first() > first:
            raise FailedPrecondition("the journal was pruned meanwhile: export it again, into another folder")
        manifest = Manifest(
            made_at=int(self._clock.now().timestamp()),
            begin=begin,
            end=end,
            before=before,
            pruned_until=first - 1,
            since_ms=since_ms,
            until_ms=until_ms,
            logs=tuple(_exported(each) for each in wanted),
            files=files,
        ).written()
        for piece in _pieces(manifest):
            yield pb.ExportAuditPart(file=MANIFEST, content=piece, done=total, total=total)
        note = str(self._signed.sign_export(statement(manifest))).encode()
        yield pb.ExportAuditPart(file=MANIFEST_NOTE, content=note, done=total, total=total)

    async def _policy_sets(self, begin: int, end: int) -> AsyncIterator[tuple[str, bytes]]:
        """The files of the sets of task types that records may name: each set, and the texts in it."""
        for digest in await self._sets.named(begin, end):
            digests, texts = await self._sets.files(digest)
            yield policy_sets.path_of(digest), policy_sets.written(digests)
            for each, text in texts.items():
                yield policy_sets.text_path_of(each), text.encode()

    async def _lines(self, begin: int, end: int) -> AsyncIterator[tuple[bytes, int]]:
        """The records as lines, page by page, with how many there were by then."""
        behind = begin - 1
        while behind < end:
            until = min(end, behind + EXPORT_RECORDS)
            records = await self._signed.store.records(behind, until)
            behind = until
            yield b"".join(line_of(each) + b"\n" for each in records), behind - begin + 1

    async def _log(
        self,
        state: LogState,
        first: int,
        cosigned: Mapping[str, Note],
        stamps: Sequence[StampFile],
        files: dict[str, str],
    ) -> AsyncIterator[pb.ExportAuditPart]:
        """The files of one log. `cosigned`: by the IDs of witnesses' keys. What is to stand in the manifest comes into
        `files`.
        """
        folder = _exported(state).folder
        proofs = await self._signed.store.rotations(state.number)
        named = {f"{folder}/rotation-{each:04d}.tlog-proof": proof for each, proof in enumerate(proofs, 1)}
        named[f"{folder}/checkpoint"] = state.checkpoint
        gone = max(0, first - state.first_seq)
        # Where all leaves of a stamp are gone nothing could be compared.
        async for name, content in self._stamps([each for each in stamps if each.size > gone]):
            files[f"{folder}/{name}"] = hashlib.sha256(content).hexdigest()
            for piece in _pieces(content):
                yield pb.ExportAuditPart(file=f"{folder}/{name}", content=piece)
        named |= {f"{folder}/{COSIGNED}{key_id}": str(note) for key_id, note in cosigned.items()}
        for name, text in named.items():
            files[name] = hashlib.sha256(text.encode()).hexdigest()
            yield pb.ExportAuditPart(file=name, content=text.encode())
        needed = self._signed.cosigned.tiles(state.origin)
        page: list[tuple[int, int, int]] = []
        for each in widths(state.size):
            level, index, _ = each
            if level or (index + 1) * WIDTH > gone or index in needed:
                page.append(each)
            if len(page) == EXPORT_TILES:
                for name, tile in await self._tiles(state, page):
                    yield pb.ExportAuditPart(file=f"{folder}/{name}", content=tile)
                page = []
        for name, tile in await self._tiles(state, page):
            yield pb.ExportAuditPart(file=f"{folder}/{name}", content=tile)

    async def _stamps(self, stamps: Sequence[StampFile]) -> AsyncIterator[tuple[str, bytes]]:
        """What was stamped, and the stamps, by their names."""
        for each in stamps:
            pair = await asyncio.to_thread(self._signed.stamped.read, each)
            if pair is not None:
                for end, content in zip((".note", ".tsr"), pair, strict=True):
                    yield f"{STAMP}{each.path.name}{end}", content

    async def _tiles(self, state: LogState, page: list[tuple[int, int, int]]) -> list[tuple[str, bytes]]:
        def work(tiles: Tiles) -> list[tuple[str, bytes]]:
            return [
                (path_of(level, index, width), tiles(level, index)[: width * HASH_BYTES])
                for level, index, width in page
            ]

        try:
            return await self._signed.store.with_tiles(state.number, work)
        except KeyError as error:
            raise StoreFailed("the log's tree in the database lacks a tile", detail=str(error)) from error


def _exported(state: LogState) -> ExportedLog:
    return ExportedLog(state.origin, state.first_seq, state.size, state.reason)


def _pieces(octets: bytes) -> Iterator[bytes]:
    for at in range(0, max(1, len(octets)), EXPORT_PIECE_BYTES):
        yield octets[at : at + EXPORT_PIECE_BYTES]
