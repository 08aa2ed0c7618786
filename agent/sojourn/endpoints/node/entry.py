"""SPIRE's entry API for nodes: the entries that a node gets, whole where they are few, by their revisions otherwise."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.endpoints.grpc.calls import Call, first_of, next_of
from sojourn.endpoints.node.callers import NodeMethod, NodeMethods
from sojourn.errors import InvalidInput
from sojourn.identity.entries import Entry
from sojourn.limits import NODE_ENTRIES_IN_A_STEP, NODE_ENTRIES_PAGE, REQUEST_SECONDS
from sojourn.server.authorized_entries import AuthorizedEntries
from sojourn.server.node_records import Node
from sojourn.server.nodes import Nodes
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.entry.v1.Entry"
# What SPIRE has in an entry: the rest is for those who ask for it.
_SPIRES: Final = types.EntryMask(
    spiffe_id=True,
    parent_id=True,
    selectors=True,
    x509_svid_ttl=True,
    federates_with=True,
    admin=True,
    downstream=True,
    expires_at=True,
    dns_names=True,
    revision_number=True,
    store_svid=True,
    jwt_svid_ttl=True,
    hint=True,
    created_at=True,
    additional_attributes=True,
)


class NodeEntryApi:
    """A node hears of its own entries, and of no others."""

    def __init__(self, nodes: Nodes, authorized: AuthorizedEntries) -> None:
        self._nodes = nodes
        self._authorized = authorized

    def methods(self) -> NodeMethods:
        return {
            "GetAuthorizedEntries": NodeMethod("unary", pb.GetAuthorizedEntriesRequest, self.get),
            "SyncAuthorizedEntries": NodeMethod("bidi", pb.SyncAuthorizedEntriesRequest, self.sync),
        }

    async def get(
        self, node: Node, _call: Call, request: pb.GetAuthorizedEntriesRequest
    ) -> pb.GetAuthorizedEntriesResponse:
        found = self._authorized.of(node).values()
        return pb.GetAuthorizedEntriesResponse(entries=await _messages(found, _mask(request)))

    async def sync(self, node: Node, call: Call, _request: None) -> AsyncIterator[pb.SyncAuthorizedEntriesResponse]:
        request = await first_of(call, REQUEST_SECONDS)
        if request.ids:
            raise InvalidInput("specifying IDs on initial request is not supported")
        mask = _mask(request)
        if not mask.revision_number:
            raise InvalidInput("revision number cannot be masked")
        found = self._authorized.of(node)
        if len(found) <= NODE_ENTRIES_PAGE:
            yield pb.SyncAuthorizedEntriesResponse(entries=await _messages(found.values(), mask))
            return
        entries = list(found.values())
        for start in range(0, len(entries), NODE_ENTRIES_PAGE):
            page = entries[start : start + NODE_ENTRIES_PAGE]
            await asyncio.sleep(0)
            revisions = [
                pb.EntryRevision(id=each.id, revision_number=each.revision, created_at=each.created_at) for each in page
            ]
            more = start + NODE_ENTRIES_PAGE < len(entries)
            yield pb.SyncAuthorizedEntriesResponse(entry_revisions=revisions, more=more)
        while (request := await next_of(call.requests)) is not None:
            self._nodes.check_stands(node)
            wanted = sorted({each for each in request.ids if each in found})
            # One request is answered by one message at the least, also if none of its entries is there.
            for start in range(0, len(wanted) or 1, NODE_ENTRIES_PAGE):
                ids = wanted[start : start + NODE_ENTRIES_PAGE]
                more = start + NODE_ENTRIES_PAGE < len(wanted)
                messages = await _messages((found[each] for each in ids), mask)
                yield pb.SyncAuthorizedEntriesResponse(entries=messages, more=more)


def _mask(request: Any) -> types.EntryMask:
    return convert.output_mask(request) or _SPIRES


async def _messages(entries: Iterable[Entry], mask: types.EntryMask) -> list[types.Entry]:
    made = []
    for number, each in enumerate(entries, 1):
        if not number % NODE_ENTRIES_IN_A_STEP:
            await asyncio.sleep(0)
        made.append(convert.entry_message(each, mask))
    return made
