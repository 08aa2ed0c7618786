"""Which entries a SPIRE server gives this node, and the bundles of the trust domains that they name.

Entries come whole where they are few; where they are many the server lists their revisions, and what is new is asked
for. What cannot be read is left out and told, as one bad entry is no reason to have none.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import InvalidBundle, InvalidInput, LimitExceeded, NotFound
from sojourn.identity import entries as registrations
from sojourn.identity.entries import Entry
from sojourn.limits import ENTRY_ID_MAX_BYTES, REFRESH_HINT_SECONDS, UPSTREAM_ENTRIES
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi import messages
from sojourn.upstream.connection import ServerConnection
from sojourn.upstream.vouching import authority_id

SYNC: Final = "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries"
BUNDLE: Final = "/spire.api.server.bundle.v1.Bundle/GetBundle"
FEDERATED: Final = "/spire.api.server.bundle.v1.Bundle/GetFederatedBundle"
_REASON_MAX: Final = 500  # characters of why an entry is left out
_READ_AT_ONCE: Final = 50  # entries, some milliseconds: then others have a turn
_MASK: Final = types.EntryMask(
    spiffe_id=True,
    selectors=True,
    federates_with=True,
    admin=True,
    downstream=True,
    revision_number=True,
    store_svid=True,
    hint=True,
    additional_attributes=True,
    created_at=True,
)


@dataclass(frozen=True)
class Authorized:
    """The entries of a node by their IDs, as of one sync; `unread`: why some could not be read, by the beginning
    of theirs.

    An entry of another trust domain is none, and of more than UPSTREAM_ENTRIES those are left out whose IDs come last.
    What the server applies itself as it signs, such as DNS names and TTLs, is not in them. Their parent is the node.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def federates_with(self) -> set[TrustDomain]:
        """The trust domains that any of them names."""
        return {each for entry in self.entries.values() for each in entry.federates_with}


async def sync(server: ServerConnection, known: Authorized, node_id: SpiffeId) -> Authorized:
    """The entries of now. `known` are those of the last sync: an entry that is the same is the same object.

    Raise what a call raises; LimitExceeded for so many that even their list is too long.
    """
    made = _Read(node_id, known)
    async with server.duplex(SYNC, pb.SyncAuthorizedEntriesResponse) as call:
        answer = await call.ask(pb.SyncAuthorizedEntriesRequest(output_mask=_MASK))
        if not answer.entry_revisions:
            await made.take(answer.entries)
            return made.found()
        page, revisions = len(answer.entry_revisions), list(answer.entry_revisions)
        while answer.more:
            answer = await call.next()
            revisions += answer.entry_revisions
            if len(revisions) > 2 * UPSTREAM_ENTRIES:
                raise LimitExceeded(f"the SPIRE server has more than {2 * UPSTREAM_ENTRIES} entries for this node")
        revisions.sort(key=lambda each: each.id)
        made.leave_out((each.id for each in revisions[UPSTREAM_ENTRIES:]), f"more than {UPSTREAM_ENTRIES} entries")
        wanted = [each.id for each in revisions[:UPSTREAM_ENTRIES] if not made.keep(each)]
        for at in range(0, len(wanted), page):
            asked = frozenset(wanted[at : at + page])
            answer = await call.ask(pb.SyncAuthorizedEntriesRequest(ids=asked))
            await made.take(each for each in answer.entries if each.id in asked)
            while answer.more:
                answer = await call.next()
                await made.take(each for each in answer.entries if each.id in asked)
        await call.done()
    return made.found()


async def own_bundle(server: ServerConnection, trust_domain: TrustDomain) -> Bundle:
    """The bundle of the server's trust domain, with what is tainted. Raise InvalidBundle if it is of another, or has
    no X.509 authority. A server that gives no refresh hint says nothing of how often the bundle is to be fetched.
    """
    bundle = _bundle(await server.unary(BUNDLE, bundle_pb2.GetBundleRequest(), types.Bundle), trust_domain)
    if not bundle.x509_authorities:  # by which no server could be verified any more
        raise InvalidBundle(f"the bundle of {trust_domain.name!r} has no X.509 authority")
    return replace(bundle, refresh_hint_seconds=bundle.refresh_hint_seconds or REFRESH_HINT_SECONDS)


async def federated_bundle(server: ServerConnection, trust_domain: TrustDomain) -> Bundle | None:
    """The bundle of a foreign trust domain, which may have revoked all its authorities; None: the server has none."""
    request = bundle_pb2.GetFederatedBundleRequest(trust_domain=trust_domain.name)
    try:
        return _bundle(await server.unary(FEDERATED, request, types.Bundle), trust_domain)
    except NotFound:
        return None


def _bundle(message: types.Bundle, trust_domain: TrustDomain) -> Bundle:
    bundle = messages.bundle(message)
    tainted = {
        authority_id(authority)
        for authority, told in zip(bundle.x509_authorities, message.x509_authorities, strict=True)
        if told.tainted
    }
    tainted.update(each.key_id for each in message.jwt_authorities if each.tainted)
    bundle = replace(bundle, tainted=frozenset(tainted))
    if bundle.trust_domain != trust_domain:
        raise InvalidBundle(f"the SPIRE server gives the bundle of {bundle.trust_domain.name!r}")
    return bundle


class _Read:
    """Entries that are read one after the other."""

    def __init__(self, node_id: SpiffeId, known: Authorized) -> None:
        self._node_id = node_id
        self._known = known
        self._entries: dict[str, Entry] = {}
        self._unread: dict[str, str] = {}

    def keep(self, revision: pb.EntryRevision) -> bool:
        """Whether the entry of this revision is at hand: then it need not be sent."""
        return self._same(revision.id, revision.revision_number, revision.created_at)

    async def take(self, received: Iterable[types.Entry]) -> None:
        for number, message in enumerate(received, 1):
            if not number % _READ_AT_ONCE:
                await asyncio.sleep(0)
            if self._same(message.id, message.revision_number, message.created_at):
                continue
            try:
                self._entries[message.id] = self._entry(message)
            except InvalidInput as error:
                self.leave_out([message.id], error.public)
        most = UPSTREAM_ENTRIES if len(self._entries) > UPSTREAM_ENTRIES else 2 * UPSTREAM_ENTRIES
        if len(self._entries) + len(self._unread) > most:
            raise LimitExceeded(f"the SPIRE server has more than {most} entries for this node")

    def leave_out(self, ids: Iterable[str], why: str) -> None:
        self._unread.update((each[:ENTRY_ID_MAX_BYTES], why[:_REASON_MAX]) for each in ids)

    def found(self) -> Authorized:
        return Authorized(self._entries, self._unread)

    def _same(self, name: str, revision: int, created_at: int) -> bool:
        entry = self._known.entries.get(name)
        if entry is None or entry.parent_id != self._node_id:
            return False
        if entry.revision != revision or created_at not in {0, entry.created_at}:
            return False
        self._entries[name] = entry
        return True

    def _entry(self, message: types.Entry) -> Entry:
        if not message.id:
            raise InvalidInput("it has no ID")
        entry = Entry(
            id=message.id,
            spiffe_id=messages.spiffe_id(message.spiffe_id),
            parent_id=self._node_id,
            selectors=messages.selectors(message.selectors),
            hint=message.hint,
            federates_with=tuple(TrustDomain.parse(each) for each in message.federates_with),
            admin=message.admin,
            downstream=message.downstream,
            store_svid=message.store_svid,
            disable_x509_svid_prefetch=message.additional_attributes.disable_x509_svid_prefetch,
            jwt_svid_include_jti=message.additional_attributes.jwt_svid_include_jti,
            revision=message.revision_number,
            created_at=message.created_at,
        )
        registrations.check(entry, self._node_id.trust_domain)
        return entry
