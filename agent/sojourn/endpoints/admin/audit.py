"""Of sojourn.v1.Admin: the audit journal as it is, and as it grows."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, nullcontext
from typing import Any

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit, Record
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput, Unavailable
from sojourn.limits import (
    AUDIT_EVENTS_WANTED,
    AUDIT_FOLLOW_SECONDS,
    AUDIT_FOLLOWERS,
    AUDIT_LISTED,
    AUDIT_PAGE_BYTES,
    AUDIT_WANTED_TEXT,
)
from sojourn.quota.concurrency import Concurrency
from sojourn.store.audit_pages import AuditPages, AuditQuery

_SEQ_MAX = 2**63 - 1  # that a database holds


class AuditReadingApi:
    """For operators. A reader takes what it can, and what it has not taken yet is read later: nothing waits for it."""

    def __init__(self, audit: Audit, pages: AuditPages, is_closing: Callable[[], bool]) -> None:
        self._audit = audit
        self._pages = pages
        self._is_closing = is_closing
        self._followers = Concurrency(AUDIT_FOLLOWERS, "readers that follow the audit journal")

    def admin_methods(self) -> dict[str, Method]:
        return {"ReadAudit": Method("stream", pb.ReadAuditRequest, self.read)}

    async def read(self, call: Call, request: pb.ReadAuditRequest) -> AsyncIterator[pb.ListAuditResponse]:
        wanted = _wanted(request.filter)
        if request.last > AUDIT_LISTED:
            raise InvalidInput(f"last is more than {AUDIT_LISTED}")
        with self._followers.one(call.peer.who) if request.follow else nullcontext():
            if unwritten := await self._audit.settle():
                yield pb.ListAuditResponse(unwritten=unwritten)
            seq = request.filter.after_seq
            if wanted.since_ms:
                seq = max(seq, await self._pages.before_time(wanted.since_ms))
            end = await self._pages.last()
            if request.last:
                seq = await self._before_last(end, seq, wanted, request.last)
            rest = self._follow(seq, wanted) if request.follow else self._until(end, seq, wanted)
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

    async def _until(self, end: int, seq: int, wanted: AuditQuery) -> AsyncGenerator[pb.ListAuditResponse, None]:
        """All behind `seq` up to `end`: what is recorded meanwhile is for who follows."""
        while seq < end:
            page = await self._pages.after(seq, wanted)
            seq = page.seq
            for message in _messages(record for record in page.records if record.seq <= end):
                yield message
            if page.end:
                return

    async def _follow(self, seq: int, wanted: AuditQuery) -> AsyncGenerator[pb.ListAuditResponse, None]:
        """All behind `seq`, for as long as it is listened to. Raise Unavailable when the agent stops."""
        while not self._is_closing():
            page = await self._pages.after(seq, wanted)
            seq = page.seq
            for message in _messages(page.records):
                yield message
            if page.end:
                await asyncio.sleep(AUDIT_FOLLOW_SECONDS)
        raise Unavailable("the agent is shutting down")


def message_of(record: Record) -> pb.AuditRecord:
    """A record as a message."""
    made = pb.AuditRecord(seq=record.seq, at_ms=record.at_ms, event=record.event, digest=record.digest)
    made.fields.update(json.loads(record.fields))
    return made


def _messages(records: Iterable[Record]) -> Iterator[pb.ListAuditResponse]:
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
    answer, room = pb.ListAuditResponse(), AUDIT_PAGE_BYTES
    found: list[pb.AuditRecord] = []
    for record in reversed(records):
        made = message_of(record)
        room -= made.ByteSize()
        if found and room < 0:
            answer.left_out = len(records) - len(found)
            break
        found.append(made)
    answer.records.extend(reversed(found))
    return answer


def _wanted(asked: Any) -> AuditQuery:
    if len(asked.events) > AUDIT_EVENTS_WANTED:
        raise InvalidInput(f"more than {AUDIT_EVENTS_WANTED} events")
    if any(len(text) > AUDIT_WANTED_TEXT for text in (*asked.events, asked.task_id, asked.type)):
        raise InvalidInput(f"an event, a task or a type is longer than {AUDIT_WANTED_TEXT} characters")
    if asked.since_ms < 0 or asked.after_seq > _SEQ_MAX:
        raise InvalidInput("since_ms or after_seq is out of range")
    return AuditQuery(tuple(asked.events), asked.task_id, asked.type, asked.since_ms)
