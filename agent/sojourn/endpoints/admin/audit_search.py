"""Of sojourn.v1.Admin: the audit journal searched, a page at a time.

A page token says behind which record the next page begins. So whoever reads on misses nothing and is told nothing
twice, whatever is recorded or pruned between two pages, and nothing is kept for a reader.
"""

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit, Record
from sojourn.audit.reads import JournalReads
from sojourn.endpoints.admin.audit import fitting
from sojourn.endpoints.admin.audit_filter import AuditFilters
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import key_of, token_of
from sojourn.errors import InvalidInput
from sojourn.limits import AUDIT_SEARCHED
from sojourn.operating_limits import PAGE_BYTES, PAGE_ITEMS
from sojourn.store.audit_pages import AuditPages, AuditQuery

_KINDS = (str, int)  # of a token's parts: the order, and the record behind which the next page begins
_NEWEST, _OLDEST = "newest", "oldest"


class AuditSearchApi:
    """For operators."""

    def __init__(self, audit: Audit, pages: AuditPages, filters: AuditFilters, reads: JournalReads) -> None:
        self._audit = audit
        self._pages = pages
        self._filters = filters
        self._reads = reads

    def admin_methods(self) -> dict[str, Method]:
        return {"SearchAudit": Method("unary", pb.SearchAuditRequest, self.search)}

    async def search(self, call: Call, request: pb.SearchAuditRequest) -> pb.SearchAuditResponse:
        wanted, said = self._filters.wanted(request.filter)
        if wanted.containing:
            raise InvalidInput("task_id is not the ID of a task: `tsk_` and 22 characters")
        order = _OLDEST if request.oldest_first else _NEWEST
        behind = _behind(request.page_token, order)
        unwritten = await self._audit.settle()
        most = min(request.page_size or AUDIT_SEARCHED, PAGE_ITEMS)
        low = request.filter.after_seq
        if request.oldest_first:
            found, more = await self._forward(low if behind is None else max(low, behind), wanted, most)
        else:
            top = None if behind is None else behind - 1
            last = await self._pages.newest(most + 1, wanted, top, low)
            found, more = last[::-1][:most], len(last) > most
        answer = pb.SearchAuditResponse(records=fitting(found, PAGE_BYTES))
        if more or len(answer.records) < len(found):
            answer.next_page_token = token_of((order, answer.records[-1].seq))
        answer.unwritten = unwritten
        self._reads.tell(call.by, said, len(answer.records))
        return answer

    async def _forward(self, seq: int, wanted: AuditQuery, most: int) -> tuple[list[Record], bool]:
        """The records behind `seq`, and whether there are more."""
        found: list[Record] = []
        while True:
            page = await self._pages.after(seq, wanted, most + 1 - len(found))
            found, seq = [*found, *page.records], page.seq
            if page.end or len(found) > most:
                return found[:most], len(found) > most


def _behind(unverified_token: str, order: str) -> int | None:
    """The record that a token names, if there is one. Raise InvalidInput."""
    if not unverified_token:
        return None
    of, seq = key_of(unverified_token, _KINDS)
    if of != order or not isinstance(seq, int) or not 1 <= seq < 2**63:
        raise InvalidInput("page_token is one of a search in the other order")
    return seq
