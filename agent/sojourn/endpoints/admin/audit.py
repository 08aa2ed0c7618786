"""Of sojourn.v1.Admin: the audit journal as it is, and as it grows."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, nullcontext

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit, Record
from sojourn.audit.reads import JournalReads
from sojourn.endpoints.admin.audit_filter import AuditFilters
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput, Unavailable
from sojourn.limits import (
    AUDIT_FOLLOW_SECONDS,
    AUDIT_FOLLOWERS,
    AUDIT_LISTED,
    AUDIT_PAGE_BYTES,
)
from sojourn.quota.concurrency import Concurrency
from sojourn.store.audit_pages import AuditPages, AuditQuery

_LISTED = 50  # records, where nobody says how many


class AuditReadingApi:
    """For operators. A reader takes what it can, and what it has not taken yet is read later: nothing waits for it."""

    def __init__(
        self,
        audit: Audit,
        pages: AuditPages,
        filters: AuditFilters,
        reads: JournalReads,
        is_closing: Callable[[], bool],
    ) -> None:
        self._audit = audit
        self._pages = pages
        self._filters = filters
        self._reads = reads
        self._is_closing = is_closing
        self._followers = Concurrency(AUDIT_FOLLOWERS, "readers that follow the audit journal")

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ListAudit": Method("unary", pb.ListAuditRequest, self.list),
            "ReadAudit": Method("stream", pb.ReadAuditRequest, self.read),
        }

    async def list(self, call: Call, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
        wanted, said = self._filters.wanted(pb.AuditFilter(task_id=request.task_id))
        unwritten = await self._audit.settle()
        answer = newest(await self._pages.newest(min(request.limit or _LISTED, AUDIT_LISTED), wanted))
        answer.unwritten = unwritten
        self._reads.tell(call.by, said, len(answer.records))
        return answer

    async def read(self, call: Call, request: pb.ReadAuditRequest) -> AsyncIterator[pb.ListAuditResponse]:
        wanted, said = self._filters.wanted(request.filter)
        if max(request.last, request.first) > AUDIT_LISTED:
            raise InvalidInput(f"last or first is more than {AUDIT_LISTED}")
        if request.first and (request.last or request.follow):
            raise InvalidInput("first goes without last and follow")
        if request.from_now and (request.last or request.filter.after_seq or not request.follow):
            raise InvalidInput("from_now goes with follow, and without last and after_seq")
        count = 0
        with self._followers.one(call.peer.who) if request.follow else nullcontext():
            if request.follow:
                self._reads.tell(call.by, {**said, "follow": "begun"}, 0)
            try:
                async with aclosing(self._parts(request, wanted)) as parts:
                    async for part in parts:
                        count += len(part.records)
                        yield part
            finally:
                self._reads.tell(call.by, {**said, "follow": "ended"} if request.follow else said, count)

    async def _parts(
        self, request: pb.ReadAuditRequest, wanted: AuditQuery
    ) -> AsyncGenerator[pb.ListAuditResponse, None]:
        if unwritten := await self._audit.settle():
            yield pb.ListAuditResponse(unwritten=unwritten)
        end = await self._pages.last()
        seq = end if request.from_now else request.filter.after_seq
        if request.last:
            seq = await self._before_last(end, seq, wanted, request.last)
        if request.follow:
            seq = min(seq, end)  # a database that was put back has no later ones
            yield pb.ListAuditResponse(begin=seq)
        rest = self._follow(seq, wanted) if request.follow else self._until(end, seq, wanted, request.first)
        async with aclosing(rest):
            async for page in rest:
                yield page

    async def _before_last(self, seq: int, low: int, wanted: AuditQuery, number: int) -> int:
        """Behind what the last records up to `seq` begin, so many at the most. None of them is kept."""
        found = 0
        while found < number:
            page = await self._pages.before(seq, low, wanted, number - found)
            found, seq = found + len(page.records), page.seq
            if page.end:
                break
        return seq

    async def _until(
        self, end: int, seq: int, wanted: AuditQuery, first: int
    ) -> AsyncGenerator[pb.ListAuditResponse, None]:
        """All behind `seq` up to `end`: what is recorded meanwhile is for who follows. `first`: so many at the most, 0:
        all; and whether there are more is said.
        """
        room, last = first, 0
        while seq < end:
            page = await self._pages.after(seq, wanted)
            seq = page.seq
            found = [record for record in page.records if record.seq <= end]
            for message in messages_of(found[:room] if first else found):
                yield message
            if first and len(found) > room:
                yield pb.ListAuditResponse(next_after=found[room - 1].seq if room else last)
                return
            room, last = room - len(found), found[-1].seq if found else last
            if page.end:
                return

    async def _follow(self, seq: int, wanted: AuditQuery) -> AsyncGenerator[pb.ListAuditResponse, None]:
        """All behind `seq`, for as long as it is listened to. Raise Unavailable when the agent stops."""
        while not self._is_closing():
            page = await self._pages.after(seq, wanted)
            seq = page.seq
            for message in messages_of(page.records):
                yield message
            if page.end:
                await asyncio.sleep(AUDIT_FOLLOW_SECONDS)
        raise Unavailable("the agent is shutting down")


def message_of(record: Record) -> pb.AuditRecord:
    """A record as a message."""
    made = pb.AuditRecord(seq=record.seq, at_ms=record.at_ms, event=record.event, digest=record.digest)
    made.fields.update(json.loads(record.fields))
    return made


def messages_of(records: Iterable[Record]) -> Iterator[pb.ListAuditResponse]:
    """The records in messages of AUDIT_PAGE_BYTES or, if one record alone is longer, of one record."""
    message, size = pb.ListAuditResponse(), 0
    for record in records:
        made = message_of(record)
        size += made.ByteSize()
        if message.records and size > AUDIT_PAGE_BYTES:
            yield message
            message, size = pb.ListAuditResponse(), made.ByteSize()
        message.records.append(made)
    if message.records:
        yield message


def newest(records: Sequence[Record]) -> pb.ListAuditResponse:
    """As many of the newest records as one message of AUDIT_PAGE_BYTES has room for, the oldest of them first."""
    found = fitting(reversed(records), AUDIT_PAGE_BYTES)
    return pb.ListAuditResponse(records=reversed(found), left_out=len(records) - len(found))


def fitting(records: Iterable[Record], room: int) -> list[pb.AuditRecord]:
    """As many of the first of them as this many bytes have room for: one at least, if there is one."""
    found: list[pb.AuditRecord] = []
    for record in records:
        made = message_of(record)
        room -= made.ByteSize()
        if found and room < 0:
            break
        found.append(made)
    return found
