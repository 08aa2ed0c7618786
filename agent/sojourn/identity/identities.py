"""The identities of callers: what each has now, and telling those who hold a stream when that changes."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress

from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.attestation.proc_snapshot import Looks
from sojourn.attestation.selectors import Selector
from sojourn.attestation.service import Attestation, cannot_tell
from sojourn.audit.journal import Event
from sojourn.errors import AttestationFailed, InvalidToken, NoIdentity, SojournError, Unavailable
from sojourn.errors.oauth import ShuttingDown
from sojourn.identity.entries import Entry, IdentityKey, Registration
from sojourn.identity.entry_changes import Change
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.identity.matcher import EntryIndex, might_match, that_matter, unique_hints
from sojourn.identity.registry import Registry
from sojourn.identity.revocation_list import ENTRY, RevokedIdentity, RevokedSvid
from sojourn.identity.revocations import Revocations
from sojourn.identity.streams import IdentityStream
from sojourn.identity.subscriptions import Streams
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.identity.trust import TrustSource
from sojourn.limits import UNMATCHED_HOLD_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jwtsvid import ReadTokens, VerifiedJwtSvid
from sojourn.spiffe.witsvid import WitSvid
from sojourn.spiffe.x509svid import X509Svid


class Identities:
    """Answers "who is this, and what may it have?" and pushes when the answer changes."""

    def __init__(
        self,
        attestation: Attestation,
        registry: Registry,
        authority: TrustSource,
        issuing: SvidIssuer,
        revocations: Revocations,
        foreign: ForeignBundles,
        clock: Clock,
    ) -> None:
        self._attestation = attestation
        self._registry = registry
        self._authority = authority
        self.issuing = issuing
        self._revocations = revocations
        self._foreign = foreign
        self._clock = clock
        self._read = ReadTokens()
        self.streams = Streams(issuing.watch, issuing.unwatch)
        self.on_no_identity: Hooks[[]] = Hooks()  # a caller was told that it has none
        self.why_none: Callable[[], SojournError | None] = lambda: None  # why nobody here has any
        self._closing = False
        registry.on_change(self._registered)
        issuing.on_rotation(self._rotated)
        authority.on_change(self._bundle_changed)
        foreign.on_change(self._foreign_changed)
        revocations.on_change(self._bundle_changed)
        revocations.on_revoked(self._revoked)

    @property
    def bundle(self) -> Bundle:
        return self._authority.bundle

    @property
    def crls(self) -> tuple[bytes, ...]:
        """DER lists of our X.509-SVIDs that are revoked; none while nothing is."""
        return self._revocations.crls

    def bundles_of(self, entries: Sequence[Registration]) -> dict[TrustDomain, Bundle]:
        """The bundles that callers with these entries may have: our own first, then those they federate with."""
        own = self._authority.bundle
        return {own.trust_domain: own, **self._foreign.of(entries)}

    async def of(self, peer: Peer) -> tuple[Entry, ...]:
        """The entries of a caller, in the stated order. Raise NoIdentity, or AttestationFailed if it cannot be told:
        also if an attestor could not tell by which the caller might have more.
        """
        entries = self._settled(await self._attestation.attest(peer))
        if not entries:
            raise self._no_identity()
        return entries

    async def any_of(self, peer: Peer) -> tuple[Entry, ...]:
        """The entries of a caller who need not have any. Raise AttestationFailed if it cannot be told."""
        return self._settled(await self._attestation.attest(peer))

    async def of_process(self, pid: int) -> tuple[Entry, ...]:
        """The entries that a process would have if it called; none if there is none. Raise AttestationFailed."""
        with _peer_of(pid) as peer:
            return self._settled(await self._attestation.attest(peer)) if peer is not None else ()

    async def has(self, peer: Peer, spiffe_ids: Collection[SpiffeId]) -> bool:
        """Whether a caller has one of these SPIFFE IDs. Raise AttestationFailed if that cannot be told."""
        attested = await self._attestation.attest(peer)
        if any(entry.spiffe_id in spiffe_ids for entry in self._match(attested)):
            return True
        self._check_told(attested, spiffe_ids)
        return False

    async def process_has(self, pid: int, spiffe_ids: Collection[SpiffeId]) -> bool:
        """Whether a process would have one of these if it called. Raise AttestationFailed if that cannot be told."""
        with _peer_of(pid) as peer:
            return peer is not None and await self.has(peer, spiffe_ids)

    def registered(self, spiffe_id: SpiffeId) -> tuple[Entry, ...]:
        """The entries for one SPIFFE ID, for a workload that is known by its SVID; none if it is not registered."""
        return self._registry.registered(spiffe_id)

    def are_still(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Those of these entries that are registered as they were when they were found."""
        return tuple(entry for entry in entries if self._registry.has_still(entry))

    def is_revoked(self, kind: str, svid_id: str, spiffe_id: SpiffeId) -> bool:
        """Whether an SVID with this SPIFFE ID is on the deny list."""
        return self._revocations.denies(kind, svid_id, spiffe_id)

    async def entry_for(self, peer: Peer, spiffe_id: SpiffeId) -> Entry:
        """The caller's entry for one SPIFFE ID. Raise NoIdentity if it has none, AttestationFailed if that cannot be
        told.
        """
        attested = await self._attestation.attest(peer)
        entries = self._match(attested)
        for entry in entries:
            if entry.spiffe_id == spiffe_id:
                return entry
        self._check_told(attested, {spiffe_id})
        raise self._no_identity()

    def x509_svid(self, entry: Entry) -> X509Svid | None:
        """The X.509-SVID of an entry, as good as it gets now; None: it has to be waited for, in `issuing`."""
        return self.issuing.x509.look(entry)

    def jwt_svid(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid | None:
        """A JWT-SVID of an entry, as good as it gets now; None: it has to be waited for, in `issuing`."""
        return self.issuing.jwt.look(entry, audience)

    def wit_svid(self, entry: Entry) -> WitSvid | None:
        """The WIT-SVID of an entry, as good as it gets now; None: it has to be waited for, in `issuing`. Raise
        Unimplemented if that is switched off.
        """
        return self.issuing.wit.look(entry)

    def verify_jwt_svid(
        self, token: str, audience: Sequence[str], entries: Sequence[Registration] = ()
    ) -> VerifiedJwtSvid:
        """Validate a JWT-SVID for a caller with these entries, of our trust domain or one they federate with, or raise
        InvalidToken.
        """
        keys = {domain: bundle.jwt_authorities for domain, bundle in self.bundles_of(entries).items()}
        svid = jwtsvid.verify(token, audience, keys, self._clock.now(), self._read)
        return self._revocations.check(svid) if svid.spiffe_id.trust_domain == self.bundle.trust_domain else svid

    async def verify_for(self, peer: Peer, token: str, audience: Sequence[str]) -> VerifiedJwtSvid:
        """Validate a JWT-SVID for a caller. Raise InvalidToken, or AttestationFailed if what else it has matters."""
        attested = await self._attestation.attest(peer)
        try:
            return self.verify_jwt_svid(token, audience)  # of our own trust domain: for whoever asks
        except InvalidToken as error:
            if error.reason_code != jwtsvid.UNKNOWN_TRUST_DOMAIN:
                raise
        entries = self._match(attested)
        try:
            return self.verify_jwt_svid(token, audience, entries)
        except InvalidToken:
            possible = [entry for entry in self._possible(attested, entries) if entry.federates_with]
            if possible:
                with suppress(InvalidToken):
                    self.verify_jwt_svid(token, audience, (*entries, *possible))
                    raise cannot_tell(attested) from None
            raise

    async def revoke(self, svids: Sequence[IssuedSvid], events: Sequence[Event] = ()) -> list[RevokedSvid]:
        """Put SVIDs on the deny list, replace them on the streams that have them, and end those. Return new ones.

        Raise what `Revocations.revoke` raises.
        """
        return await self._revocations.revoke(svids, events)

    def revoke_identity(self, identity: RevokedIdentity) -> None:
        """Put an identity on the deny list, replace what it has on the streams, and end those."""
        field = "entry_id" if identity.kind == ENTRY else "spiffe_id"
        in_use, lost = self.issuing.forget_identity(lambda key: str(getattr(key, field)) == identity.name)
        self._end_streams(lost)
        self._revocations.put_identity(identity, in_use)

    def _revoked(self, revoked: Sequence[RevokedSvid]) -> None:
        self.issuing.forget_revoked(revoked)
        gone = {each.svid.id for each in revoked}
        lost = {kept.entry.key for kept in self.issuing.x509.kept() if kept.svid.serial in gone}
        lost |= {kept.entry.key for kept in self.issuing.wit.kept() if kept.svid.serial in gone}
        for key in lost:
            self.issuing.forget(key)
        self._end_streams(lost)

    def _end_streams(self, lost: Collection[IdentityKey]) -> None:
        """Have those who hold something of these identities get another SVID, and then their streams end."""
        for key in lost:
            for stream in self.streams.having(key):
                stream.revoked = True
                stream.wake()

    def stream(self, peer: Peer, method: str, *, required: bool = True) -> AbstractAsyncContextManager[IdentityStream]:
        """Hold a stream for a caller. One without identity waits UNMATCHED_HOLD_SECONDS, then NoIdentity is raised.
        Raise AttestationFailed if it cannot be told what the caller has, be that less or more.

        When the caller's entries or their SVIDs or the bundle change, `stream.changed` is so; `stream.entries` is what
        the caller has now, and empty once it has nothing any more. Without `required` a caller that has nothing gets
        its stream at once, for what anybody may have. As the stream begins, its caller was looked at just now: the
        first answer needs no `refresh`, if nothing else was waited for.
        """
        return _Holding(self, peer, method, required=required)

    async def begin(self, peer: Peer, method: str, *, required: bool) -> IdentityStream:
        """Begin a stream, as `stream` says. Whoever has it closes it in `streams`."""
        attested = await self._attestation.attest(peer)
        stream = self.streams.open(method, peer, attested, self._clock.now())
        if self._closing:
            stream.end(ShuttingDown())
        try:
            stream.check_closing()
            self.streams.give(stream, self._settled(attested))
            if required and not stream.entries:
                await self._hold(stream)
                await self.refresh(stream)
                stream.check_open()
        except BaseException:
            self.streams.close(stream)
            raise
        return stream

    async def refresh(self, stream: IdentityStream) -> None:
        """Attest a stream's caller again, as cheaply as can be: before each answer. Raise AttestationFailed.

        Because an attestor cannot tell, nothing is taken away: while the process is the same in the same cgroup, what
        it said before holds; otherwise that it cannot be told is raised. And nothing is given that might be second to
        what cannot be told.
        """
        attested = await self._attestation.attest(stream.peer)
        if attested is stream.attested and not any(entry.expires_at for entry in stream.entries):
            return
        entries = self._settled(attested, stream.entries)
        stream.unsure = bool(attested.failures)
        stream.attested = attested
        if entries != stream.entries:
            self.streams.give(stream, entries)

    def holds(self, stream: IdentityStream, looks: Looks) -> bool:
        """Whether a stream's caller still is what it was attested as, and has what it had: the look before an answer
        for which nothing has to be waited for. Without it, `refresh` tells. Raise AttestationFailed.
        """
        attested = self._attestation.still(stream.peer, looks)
        return attested is stream.attested and not any(entry.expires_at for entry in stream.entries)

    def close(self) -> None:
        """End every stream, also those that come still, with Unavailable, so that clients come back."""
        self._closing = True
        for stream in self.streams:
            stream.end(Unavailable("the agent is shutting down"))  # not ShuttingDown: it may have been answered

    async def _hold(self, stream: IdentityStream) -> None:
        try:
            async with asyncio.timeout(UNMATCHED_HOLD_SECONDS if self.why_none() is None else 0):
                while not stream.entries:
                    await stream.next_change()
        except TimeoutError:
            self._settled(stream.attested)  # it may have become more than one can tell
            raise self._no_identity() from None

    def _no_identity(self) -> SojournError:
        self.on_no_identity.tell()
        return self.why_none() or NoIdentity("no identity issued")

    def _match(self, attested: Attested) -> tuple[Entry, ...]:
        return unique_hints(self._registry.match(attested.selectors, attested.untold))

    def _possible(self, attested: Attested, entries: Sequence[Entry]) -> Iterator[Registration]:
        """What a caller that has these entries might have beside, if all attestors could tell."""
        return that_matter(entries, self._registry.possible(attested.selectors, attested.untold))

    def _check_told(self, attested: Attested, spiffe_ids: Collection[SpiffeId]) -> None:
        """Raise AttestationFailed if a caller that has none of these might have one, if all attestors could tell."""
        if not attested.untold:
            return
        if any(
            might_match(entry, attested.selectors, attested.untold)
            for each in spiffe_ids
            for entry in self._registry.that_make(each)
            if self._registry.serves(entry)
        ):
            raise cannot_tell(attested)

    def _settled(self, attested: Attested, held: Sequence[Entry] | None = None) -> tuple[Entry, ...]:
        """What the caller has. Raise AttestationFailed if it might have more, since that might come first.

        To a caller who holds entries already, what is left of them is given then, unless one that is not left might be.
        """
        entries = self._match(attested)
        if not attested.untold or not any(True for _ in self._possible(attested, entries)):
            return entries
        mine = {entry.key for entry in held or ()}  # by another SPIFFE ID of the same template it would be new
        kept = tuple(entry for entry in entries if entry.key in mine)
        lost = [self._registry.get(key.entry_id) for key in mine.difference(entry.key for entry in kept)]
        if (
            held is None
            or (held and not kept)
            or any(might_match(each, attested.selectors, attested.untold) for each in lost if each is not None)
        ):
            raise cannot_tell(attested)
        return kept

    def _registered(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.old is not None:
                self.issuing.forget_entry(change.old.id)
        before, after = EntryIndex(), EntryIndex()
        for change in changes:
            if change.old is not None:
                before.add(change.old)
            if change.new is not None:
                after.add(change.new)
        # Callers of whom the same is proved, and all of it could be told, have the same: it is found once.
        found: dict[frozenset[Selector], tuple[Entry, ...] | None] = {}
        for stream in self.streams:
            held, untold = stream.attested.selectors, stream.attested.untold
            if untold:
                touched = any(each.match(held) or any(each.possible(held, untold)) for each in (before, after))
                if touched:
                    self._settle(stream)
            else:
                if held not in found:
                    touched = bool(before.match(held) or after.match(held))
                    found[held] = self._match(stream.attested) if touched else None
                entries = found[held]
                if entries is not None:
                    self.streams.give(stream, entries)
                    stream.wake()

    def _settle(self, stream: IdentityStream) -> None:
        """Give a stream what its caller has now, or end it if that cannot be told."""
        try:
            self.streams.give(stream, self._settled(stream.attested, stream.entries))
            stream.wake()
        except AttestationFailed as error:
            stream.end(error)

    def _rotated(self, key: IdentityKey) -> None:
        for stream in self.streams.having(key):
            stream.wake()

    def _foreign_changed(self, trust_domain: TrustDomain) -> None:
        self._read.clear()
        for stream in self.streams:
            if any(trust_domain in entry.federates_with for entry in stream.entries):
                stream.wake()

    def _bundle_changed(self) -> None:
        self._read.clear()
        for stream in self.streams:
            stream.wake()


class _Holding(AbstractAsyncContextManager[IdentityStream]):
    """A stream from its beginning to its end. Short ones are many: a generator would take twice as long."""

    __slots__ = ("_identities", "_method", "_peer", "_required", "_stream")

    def __init__(self, identities: Identities, peer: Peer, method: str, *, required: bool) -> None:
        self._identities = identities
        self._peer = peer
        self._method = method
        self._required = required
        self._stream: IdentityStream | None = None

    async def __aenter__(self) -> IdentityStream:
        self._stream = await self._identities.begin(self._peer, self._method, required=self._required)
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        assert self._stream is not None  # set by __aenter__
        self._identities.streams.close(self._stream)


@contextmanager
def _peer_of(pid: int) -> Iterator[Peer | None]:
    """A process that is asked about, or None if there is none, or no more."""
    try:
        peer = Peer.of_pid(pid)
    except AttestationFailed:
        yield None
        return
    try:
        yield peer
    finally:
        peer.close()
