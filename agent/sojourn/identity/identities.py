"""The identities of callers: what each has now, and telling those who hold a stream when that changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.attestation.service import Attestation
from sojourn.authority.embedded import EmbeddedAuthority
from sojourn.clock import Clock
from sojourn.errors import AttestationFailed, NoIdentity, SojournError, SvidRevoked, Unavailable
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.identity.foreign import ForeignBundles
from sojourn.identity.issued import IssuedSvid
from sojourn.identity.issuing import Issuing
from sojourn.identity.matching import EntryIndex, unique_hints
from sojourn.identity.registry import Change, Registry
from sojourn.identity.revocations import Revocations, RevokedSvid
from sojourn.limits import (
    ATTESTOR_RETRY_SECONDS,
    JWT_SVID_SIGNATURES_KEPT,
    STREAM_ATTESTED_SECONDS,
    UNMATCHED_HOLD_SECONDS,
)
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jose import Signatures
from sojourn.spiffe.jwtsvid import JwtSvid
from sojourn.spiffe.witsvid import WitSvid
from sojourn.spiffe.x509svid import X509Svid


@dataclass(slots=True, eq=False)
class Stream:
    """One open stream and what its caller has. `entries` is in the stated order, hints unique.

    `unsure`: an attestor could not tell when it was last asked, so it is asked again soon.
    """

    method: str
    peer: Peer
    attested: Attested
    entries: tuple[Entry, ...]
    since: datetime
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    last_push: datetime | None = None
    pushes: int = 0
    ending: SojournError | None = None  # why the stream ends at the next occasion
    unsure: bool = False
    revoked: bool = False  # an SVID that it was sent: it ends when it was sent the next one

    def pushed(self, at: datetime) -> None:
        """Note that the caller was sent something."""
        self.last_push = at
        self.pushes += 1

    async def next_change(self) -> None:
        """Return when something may have changed since the last time this returned, or it is time to attest again.

        Raise what the stream ends with, if it does.
        """
        self.check_closing()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ATTESTOR_RETRY_SECONDS if self.unsure else STREAM_ATTESTED_SECONDS):
                await self.changed.wait()
        self.changed.clear()
        self.check_closing()

    def end(self, error: SojournError) -> None:
        """Let the stream end with this error."""
        self.ending = error
        self.changed.set()

    def check_revoked(self) -> None:
        """Raise SvidRevoked if an SVID that the caller was sent is revoked: to call once another one was sent."""
        if self.revoked:
            raise SvidRevoked("the SVID was revoked, and replaced: connect again")

    def check_closing(self) -> None:
        if self.ending is not None:
            raise self.ending

    def check_open(self) -> None:
        """Raise NoIdentity when the caller has nothing any more, or what the stream ends with."""
        self.check_closing()
        if not self.entries:
            raise NoIdentity("no identity issued")


class Identities:
    """Answers "who is this, and what may it have?" and pushes when the answer changes."""

    def __init__(
        self,
        attestation: Attestation,
        registry: Registry,
        authority: EmbeddedAuthority,
        issuing: Issuing,
        revocations: Revocations,
        foreign: ForeignBundles,
        clock: Clock,
    ) -> None:
        self._attestation = attestation
        self._registry = registry
        self._authority = authority
        self._issuing = issuing
        self._revocations = revocations
        self._foreign = foreign
        self._clock = clock
        self._signatures = Signatures(JWT_SVID_SIGNATURES_KEPT)
        self._streams: set[Stream] = set()
        self._closing = False
        registry.on_change(self._registered)
        issuing.on_rotation(self._rotated)
        authority.on_change(self._bundle_changed)
        foreign.on_change(self._foreign_changed)
        revocations.on_change(self._bundle_changed)

    @property
    def bundle(self) -> Bundle:
        return self._authority.bundle

    @property
    def crls(self) -> tuple[bytes, ...]:
        """DER lists of our X.509-SVIDs that are revoked; none while nothing is."""
        return self._revocations.crls

    def bundles_of(self, entries: Sequence[Entry]) -> dict[TrustDomain, Bundle]:
        """The bundles that callers with these entries may have: our own first, then those they federate with."""
        own = self._authority.bundle
        return {own.trust_domain: own, **self._foreign.of(entries)}

    @property
    def streams(self) -> list[Stream]:
        return sorted(self._streams, key=lambda stream: stream.since)

    def by_process(self) -> Collection[Sequence[Stream]]:
        """The open streams of each process that holds any."""
        found: dict[tuple[int, int], list[Stream]] = {}
        for stream in self._streams:
            process = stream.peer.process
            found.setdefault((process.pid, process.start_time), []).append(stream)
        return found.values()

    async def of(self, peer: Peer) -> tuple[Entry, ...]:
        """The entries of a caller, in the stated order. Raise NoIdentity, or AttestationFailed if it cannot be told."""
        attested = await self._attestation.attest(peer)
        entries = self._match(attested)
        if not entries:
            raise self._nothing(attested)
        return entries

    async def entries_of(self, peer: Peer) -> tuple[Entry, ...]:
        """The entries of a caller, which may be none. Raise AttestationFailed."""
        return self._match(await self._attestation.attest(peer))

    async def of_process(self, pid: int) -> tuple[Entry, ...]:
        """The entries that a process would have if it called; none if it cannot be attested."""
        try:
            peer = Peer.of_pid(pid)
        except AttestationFailed:
            return ()
        try:
            return await self.entries_of(peer)
        except AttestationFailed:
            return ()
        finally:
            peer.close()

    def registered(self, spiffe_id: SpiffeId) -> tuple[Entry, ...]:
        """The entries for one SPIFFE ID, for a workload that is known by its SVID; none if it is not registered."""
        return self._registry.registered(spiffe_id)

    def is_revoked(self, kind: str, svid_id: str) -> bool:
        """Whether an SVID is on the deny list."""
        return self._revocations.names(kind, svid_id)

    async def entry_for(self, peer: Peer, spiffe_id: SpiffeId) -> Entry:
        """The caller's entry for one SPIFFE ID. Raise NoIdentity if it has none."""
        for entry in await self.of(peer):
            if entry.spiffe_id == spiffe_id:
                return entry
        raise NoIdentity("no identity issued")

    def x509_svid(self, entry: Entry) -> X509Svid:
        """The X.509-SVID of an entry, as good as it gets now."""
        return self._issuing.x509.get(entry)

    def jwt_svid(self, entry: Entry, audience: Sequence[str]) -> JwtSvid:
        """A JWT-SVID of an entry, as good as it gets now."""
        return self._issuing.jwt.get(entry, audience)

    def wit_svid(self, entry: Entry) -> WitSvid:
        """The WIT-SVID of an entry, as good as it gets now. Raise Unimplemented if that is switched off."""
        return self._issuing.wit.get(entry)

    def verify_jwt_svid(self, token: str, audience: Sequence[str], entries: Sequence[Entry] = ()) -> JwtSvid:
        """Validate a JWT-SVID for a caller with these entries: of our own trust domain, or one they federate with.

        Raise InvalidToken.
        """
        keys = {domain: bundle.jwt_authorities for domain, bundle in self.bundles_of(entries).items()}
        svid = jwtsvid.verify(token, audience, keys, self._clock.now(), self._signatures)
        return self._revocations.check(svid) if svid.spiffe_id.trust_domain == self.bundle.trust_domain else svid

    async def revoke(self, svids: Sequence[IssuedSvid]) -> list[RevokedSvid]:
        """Put SVIDs on the deny list, replace them on the streams that have them, and end those. Return new ones."""
        fresh = await self._revocations.revoke(svids)
        gone = {each.svid.id for each in fresh}
        lost = {kept.entry.key for kept in self._issuing.x509.kept() if kept.svid.serial in gone}
        lost |= {kept.entry.key for kept in self._issuing.wit.kept() if kept.svid.serial in gone}
        for key in lost:
            self._issuing.forget(key)
        named = {(each.svid.entry_id, each.svid.spiffe_id) for each in fresh}
        self._issuing.jwt.forget(lambda key: (key.entry_id, str(key.spiffe_id)) in named)
        for stream in self._streams:
            if any(entry.key in lost for entry in stream.entries):
                stream.revoked = True
                stream.changed.set()
        return fresh

    @asynccontextmanager
    async def stream(self, peer: Peer, method: str, *, required: bool = True) -> AsyncIterator[Stream]:
        """Hold a stream for a caller. One without identity waits UNMATCHED_HOLD_SECONDS, then NoIdentity is raised.

        When the caller's entries or their SVIDs or the bundle change, `stream.changed` is set; `stream.entries` is what
        the caller has now, and empty once it has nothing any more. Without `required` a caller that has nothing gets
        its stream at once, for what anybody may have.
        """
        attested = await self._attestation.attest(peer)
        stream = Stream(method, peer, attested, (), self._clock.now(), unsure=bool(attested.failures))
        if self._closing:
            stream.end(_closing())
        self._streams.add(stream)
        try:
            stream.check_closing()
            self._set_entries(stream, self._match(attested))
            if required and not stream.entries:
                await self._hold(stream)
            yield stream
        finally:
            self._streams.discard(stream)
            self._set_entries(stream, ())

    async def refresh(self, stream: Stream) -> None:
        """Attest a stream's caller again, as cheaply as can be: before each answer. Raise AttestationFailed.

        Because an attestor cannot tell, nothing is taken away: while the process is the same in the same cgroup, what
        was proved before holds; otherwise that it cannot be told is raised.
        """
        attested = await self._attestation.attest(stream.peer)
        if attested is stream.attested and not any(entry.expires_at for entry in stream.entries):
            return
        entries = self._match(attested)
        stream.unsure = bool(attested.failures)
        if stream.unsure and not set(stream.entries) <= set(entries):
            if attested.cgroup != stream.attested.cgroup:
                raise self._cannot_tell(attested)
            attested, entries = stream.attested, self._match(stream.attested)
        stream.attested = attested
        if entries != stream.entries:
            self._set_entries(stream, entries)

    def close(self) -> None:
        """End every stream, also those that come still, with Unavailable, so that clients come back."""
        self._closing = True
        for stream in self._streams:
            stream.end(_closing())

    async def _hold(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(UNMATCHED_HOLD_SECONDS):
                while not stream.entries:
                    await stream.next_change()
        except TimeoutError:
            raise self._nothing(stream.attested) from None

    def _match(self, attested: Attested) -> tuple[Entry, ...]:
        return unique_hints(self._registry.match(attested.selectors))

    def _nothing(self, attested: Attested) -> NoIdentity | AttestationFailed:
        # An attestor that could not tell might have earned the caller an identity: that is not a no.
        return self._cannot_tell(attested) if attested.failures else NoIdentity("no identity issued")

    def _cannot_tell(self, attested: Attested) -> AttestationFailed:
        reasons = "; ".join(f"{name} {reason}" for name, reason in sorted(attested.failures.items()))
        return AttestationFailed(detail=reasons)

    def _set_entries(self, stream: Stream, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            self._issuing.watch(entry.key)
        for entry in stream.entries:
            self._issuing.unwatch(entry.key)
        stream.entries = entries

    def _registered(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.old is not None:
                self._issuing.forget_entry(change.old.id)
        before, after = EntryIndex(), EntryIndex()
        for change in changes:
            if change.old is not None:
                before.add(change.old)
            if change.new is not None:
                after.add(change.new)
        for stream in self._streams:
            held = stream.attested.selectors
            if before.match(held) or after.match(held):
                self._set_entries(stream, self._match(stream.attested))
                stream.changed.set()

    def _rotated(self, key: IdentityKey) -> None:
        for stream in self._streams:
            if any(entry.id == key.entry_id and entry.spiffe_id == key.spiffe_id for entry in stream.entries):
                stream.changed.set()

    def _foreign_changed(self, trust_domain: TrustDomain) -> None:
        for stream in self._streams:
            if any(trust_domain in entry.federates_with for entry in stream.entries):
                stream.changed.set()

    def _bundle_changed(self) -> None:
        for stream in self._streams:
            stream.changed.set()


def _closing() -> Unavailable:
    return Unavailable("the agent is shutting down")
