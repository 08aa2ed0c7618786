"""The SPIFFE Workload API (SPIFFE_Workload_API.md), with SPIRE's codes and texts."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from operator import attrgetter

from google.protobuf.message import Message

from sojourn._pb import workload_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.audit.journal import Audit
from sojourn.audit.journal_room import Recordable, always
from sojourn.endpoints.api.signed_answers import Waited, entries_to_send
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import (
    InvalidInput,
    InvalidToken,
    NoIdentity,
    PolicyDenied,
    Unavailable,
    Unimplemented,
    told_as,
)
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.identity.signatures import Overtaken
from sojourn.identity.streams import IdentityStream, StreamStep
from sojourn.limits import (
    AUDIENCE_MAX_BYTES,
    AUDIENCES_PER_JWT_SVID,
    AUDITED_AUDIENCES,
    AUDITED_TEXT,
    JWT_SVIDS_KEPT,
    SIGNATURE_WAIT_SECONDS,
    VALIDATIONS_KEPT,
    VALIDATIONS_KEPT_BYTES,
)
from sojourn.quota.lru import Lru, Recent, Room
from sojourn.runtime.clock import Clock
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.spireapi import struct_claims

SERVICE = "SpiffeWorkloadAPI"
_ANSWERS_KEPT = 1_024


class WorkloadApi:
    """The five calls, and the two of the WIT-SVID profile. Answers that many callers share are serialised once."""

    def __init__(
        self,
        identities: Identities,
        audit: Audit,
        clock: Clock,
        *,
        wit: bool,
        reserving: Callable[[SpiffeId, str], str] = lambda _spiffe_id, _audience: "",
        recordable: Recordable = always,
    ) -> None:
        """`wit`: whether WIT-SVIDs are offered; their calls are Unimplemented otherwise (Workload API, 7).

        `reserving`: the provider that alone shows a workload's JWT-SVIDs for an audience, or ''. `recordable`: raises
        if a JWT-SVID may add no record.
        """
        self._wit = wit
        self._reserving = reserving
        self._recordable = recordable
        self._identities = identities
        self._audit = audit
        self._clock = clock
        self._x509_waited = Waited(identities.issuing.x509, attrgetter("entries"), self._x509_svids)
        self._answers: Lru[tuple[object, ...], bytes] = Lru(_ANSWERS_KEPT, by_age=True)
        self._given: Lru[tuple[str, int, int, int, int], bool] = Lru(JWT_SVIDS_KEPT)  # which JWT-SVIDs, to whom
        self._validated: Recent[str, bytes] = Recent(
            Room(VALIDATIONS_KEPT, VALIDATIONS_KEPT_BYTES), Room(VALIDATIONS_KEPT // 4, VALIDATIONS_KEPT_BYTES // 4)
        )

    def methods(self) -> dict[str, Method]:
        return {
            "FetchX509SVID": Method("stream", pb.X509SVIDRequest, self.fetch_x509_svid),
            "FetchX509Bundles": Method("stream", pb.X509BundlesRequest, self.fetch_x509_bundles),
            "FetchJWTSVID": Method("unary", pb.JWTSVIDRequest, self.fetch_jwt_svid),
            "FetchJWTBundles": Method("stream", pb.JWTBundlesRequest, self.fetch_jwt_bundles),
            "ValidateJWTSVID": Method("unary", pb.ValidateJWTSVIDRequest, self.validate_jwt_svid),
            "FetchWITSVID": Method("stream", pb.WITSVIDRequest, self.fetch_wit_svid),
            "FetchWITBundles": Method("stream", pb.WITBundlesRequest, self.fetch_wit_bundles),
        }

    def fetch_x509_svid(self, call: Call, _request: pb.X509SVIDRequest) -> AsyncIterator[bytes]:
        return self._pushes(call, "FetchX509SVID", self._x509_svids, self._x509_waited)

    def fetch_x509_bundles(self, call: Call, _request: pb.X509BundlesRequest) -> AsyncIterator[bytes]:
        return self._pushes(call, "FetchX509Bundles", self._x509_bundles)

    def fetch_jwt_bundles(self, call: Call, _request: pb.JWTBundlesRequest) -> AsyncIterator[bytes]:
        return self._pushes(call, "FetchJWTBundles", self._jwt_bundles)

    async def fetch_jwt_svid(self, call: Call, request: pb.JWTSVIDRequest) -> pb.JWTSVIDResponse:
        audience = audience_of(request.audience)
        wanted = _requested_id(request.spiffe_id) if request.spiffe_id else None
        entries: Sequence[Entry]
        if wanted is None:
            entries = await self._identities.of(call.peer)
        else:
            entries = [await self._identities.entry_for(call.peer, wanted)]
        allowed = self._allowed(call.peer, entries, audience)
        found: list[tuple[Entry, VerifiedJwtSvid]] = []
        for entry in allowed:
            svid = self._identities.jwt_svid(entry, audience)
            if svid is None:
                found = await self._signed(call.peer, wanted, allowed, audience)
                break
            found.append((entry, svid))
        answer = pb.JWTSVIDResponse()
        for entry, svid in found:
            self._record(call.peer, entry, svid)
            answer.svids.add(spiffe_id=str(svid.spiffe_id), svid=svid.token, hint=entry.hint)
        return answer

    async def _signed(
        self, peer: Peer, wanted: SpiffeId | None, allowed: list[Entry], audience: Sequence[str]
    ) -> list[tuple[Entry, VerifiedJwtSvid]]:
        """The JWT-SVIDs of a caller, of which some have to be waited for. What it may have is looked at again when all
        are signed, and signed again where that has changed. Raise Unavailable if it takes too long.
        """

        async def again() -> None:
            entries = await self._entries(peer, wanted)
            if [entry for entry in entries if self._reserved(entry, audience) is None] != allowed:
                raise Overtaken

        try:
            async with asyncio.timeout(SIGNATURE_WAIT_SECONDS):
                while True:
                    try:
                        svids = await self._identities.issuing.jwt.get(allowed, audience, again)
                        return list(zip(allowed, svids, strict=True))
                    except Overtaken:
                        await asyncio.sleep(0)  # others have a turn, whatever `of` has at hand
                        allowed = self._allowed(peer, await self._entries(peer, wanted), audience)
        except TimeoutError:
            raise Unavailable(f"a JWT-SVID was not signed within {SIGNATURE_WAIT_SECONDS:g} s: ask again") from None

    async def _entries(self, peer: Peer, wanted: SpiffeId | None) -> Sequence[Entry]:
        """Those of a caller: all, or the one for the SPIFFE ID that it wants."""
        return await self._identities.of(peer) if wanted is None else [await self._identities.entry_for(peer, wanted)]

    def _allowed(self, peer: Peer, entries: Sequence[Entry], audience: Sequence[str]) -> list[Entry]:
        """Those of a caller's entries whose JWT-SVIDs it may have for these audiences. Raise PolicyDenied if none."""
        allowed, refused = [], None
        for entry in entries:
            reserved = self._reserved(entry, audience)
            if reserved is None:
                allowed.append(entry)
            else:
                refused = self._refusal(peer, entry, *reserved)
        if refused is not None and not allowed:
            raise refused
        return allowed

    def _refusal(self, peer: Peer, entry: Entry, each: str, provider: str) -> PolicyDenied:
        """Why a workload is given none for an audience: with it, it would have without a task what its tasks get."""
        said = {"spiffe_id": str(entry.spiffe_id), "audience": each, "provider": provider}
        self._audit.denied("jwt_svid_refused", peer.who, **peer.details, **said)
        return PolicyDenied(
            f"JWT-SVIDs of {str(entry.spiffe_id)!r} for {each!r} are for provider {provider!r}"
            " alone, which gives its tasks credentials: begin a task (or set identity.jwt_svid_for_providers)"
        )

    def _reserved(self, entry: Entry, audience: Sequence[str]) -> tuple[str, str] | None:
        """The first audience for which a provider alone shows the entry's JWT-SVIDs, and that provider."""
        for each in audience:
            provider = self._reserving(entry.spiffe_id, each)
            if provider:
                return each[:AUDITED_TEXT], provider
        return None

    def _record(self, peer: Peer, entry: Entry, svid: VerifiedJwtSvid) -> None:
        """Record which process has which JWT-SVID: once, however often it is served the same, if no record was lost.

        Raise AuditFull or LimitExceeded if that may not be, so that it is not given.
        """
        process, jti = peer.process, svid.claims.get("jti") or ""  # of a server's there may be none
        which = jti or hashlib.sha256(svid.token.encode()).hexdigest()
        given = (which, *process.key, peer.uid, self._audit.lost)
        if self._given.get(given):
            return
        self._recordable(svid.spiffe_id)
        self._audit.note(
            "jwt_svid_issued",
            spiffe_id=str(svid.spiffe_id),
            entry_id=entry.id,
            audience=[each[:AUDITED_TEXT] for each in svid.audience[:AUDITED_AUDIENCES]],
            jti=jti,
            expires_at=svid.claims["exp"],
            pid=process.pid,
            uid=peer.uid,
        )
        self._given.put(given, True)

    async def validate_jwt_svid(self, call: Call, request: pb.ValidateJWTSVIDRequest) -> bytes:
        if not request.audience:
            raise InvalidInput("audience must be specified")
        if not request.svid:
            raise InvalidInput("svid must be specified")
        # Any process on this machine may ask, as at SPIRE: the answer is about the token. Tokens of other trust domains
        # are for those who federate with them.
        try:
            svid = await self._identities.verify_for(call.peer, request.svid, [request.audience])
            return self._told(svid)
        except InvalidToken as error:
            self._audit.denied("jwt_svid_rejected", call.peer.who, **call.peer.details, reason=error.reason_code)
            raise

    def _told(self, svid: VerifiedJwtSvid) -> bytes:
        """What is said of a token that is good, ready to be sent: it is the same for whoever may ask."""
        told = self._validated.get(svid.token)
        if told is None:
            answer = pb.ValidateJWTSVIDResponse(spiffe_id=str(svid.spiffe_id))
            struct_claims.put(answer.claims, {**svid.claims, "aud": list(svid.audience)})
            told = answer.SerializeToString()
            self._validated.put(svid.token, told, str(svid.spiffe_id), len(svid.token) + len(told))
        return told

    def fetch_wit_svid(self, call: Call, request: pb.WITSVIDRequest) -> AsyncIterator[bytes]:
        self._check_wit()
        wanted = _requested_id(request.spiffe_id) if request.spiffe_id else None

        def entries_of(stream: IdentityStream) -> Sequence[Entry]:
            entries = [entry for entry in stream.entries if wanted in {None, entry.spiffe_id}]
            if not entries:
                raise NoIdentity("no identity issued")
            return entries

        waited = Waited(self._identities.issuing.wit, entries_of, lambda _, entries: self._wit_svids(entries))
        return self._pushes(call, "FetchWITSVID", lambda stream: self._wit_svids(entries_of(stream)), waited)

    def fetch_wit_bundles(self, call: Call, _request: pb.WITBundlesRequest) -> AsyncIterator[bytes]:
        self._check_wit()
        return self._pushes(call, "FetchWITBundles", self._wit_bundles)

    def _check_wit(self) -> None:
        if not self._wit:
            raise Unimplemented("WIT-SVIDs are switched off: set identity.wit_svids in the agent's configuration")

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _pushes(
        self, call: Call, method: str, make: Callable[[IdentityStream], bytes | None], waited: Waited | None = None
    ) -> AsyncIterator[bytes]:
        """Each answer that differs from the last one; ends with NoIdentity when the caller has nothing any more.

        An answer goes out in the very step that wakes the stream, where nothing has to be waited for; what has to be,
        and each end, is for the steps of the call: `make` returns None then, and `waited` makes it.
        """
        last = b""
        held: Sequence[Entry] = ()  # those of which the last answer was

        def push(step: StreamStep) -> bool:
            nonlocal last, held
            if not stream.entries or stream.revoked or not self._identities.holds(stream, step.looks):
                return False
            answer = step.answer(make, stream)
            if answer is None:
                return False
            if answer != last:
                if not call.send_now(answer):
                    return False
                last, held = answer, stream.entries
                stream.pushed(self._clock.now())
            return True

        async with self._identities.stream(call.peer, method) as stream:
            while True:
                stream.check_open()
                answer = make(stream)
                entries: Sequence[Entry] = stream.entries
                if answer is None:
                    assert waited is not None  # whatever else is sent is there
                    entries = await entries_to_send(self._identities, waited, stream, held)
                    answer = waited.make(stream, entries)
                if answer is not None and answer != last:
                    last, held = answer, entries
                    stream.pushed(self._clock.now())
                    yield answer
                stream.check_revoked()
                await stream.next_change(push)
                await self._identities.refresh(stream)

    def forget_answers(self) -> None:
        """Drop the ready-made answers: a key in them is no longer in use."""
        self._answers.clear()

    def _x509_svids(self, stream: IdentityStream, entries: Sequence[Entry] | None = None) -> bytes | None:
        """The answer for these entries of the stream, or for all; None: an SVID has to be waited for."""
        svids = []
        for entry in stream.entries if entries is None else entries:
            svid = self._identities.x509_svid(entry)
            if svid is None:
                return None
            svids.append((entry, svid))
        bundle, *foreign = self._x509_bundles_of(stream)  # with an SVID there is a root
        crls = self._identities.crls
        key = (bundle, *foreign, crls, *((entry.id, entry.revision, svid.serial) for entry, svid in svids))

        def message() -> pb.X509SVIDResponse:
            message = pb.X509SVIDResponse(crl=crls)
            for entry, svid in svids:
                message.svids.add(
                    spiffe_id=str(svid.spiffe_id),
                    x509_svid=svid.chain_der,
                    x509_svid_key=svid.key_der,
                    bundle=bundle.x509_der,
                    hint=entry.hint,
                )
            for other in foreign:
                message.federated_bundles[str(other.trust_domain.id)] = other.x509_der
            return message

        return self._shared(key, message)

    def _shared(self, key: tuple[object, ...], make: Callable[[], Message]) -> bytes:
        """What `make` makes, the same for all whose answer has this key: each stream holds what it was sent last."""
        answer = self._answers.get(key)
        if answer is None:
            answer = make().SerializeToString(deterministic=True)
            self._answers.put(key, answer)
        return answer

    def _x509_bundles(self, stream: IdentityStream) -> bytes:
        found, crls = self._x509_bundles_of(stream), self._identities.crls

        def message() -> pb.X509BundlesResponse:
            bundles = {str(each.trust_domain.id): each.x509_der for each in found}
            return pb.X509BundlesResponse(crl=crls, bundles=bundles)

        return self._shared(("x509", crls, *found), message)

    def _x509_bundles_of(self, stream: IdentityStream) -> list[Bundle]:
        """The bundles that the caller may have, ours first. A trust domain without X.509 authorities has no X509-SVIDs
        (X509-SVID.md 6.2) and is left out: to some libraries an empty bundle spoils the whole message.
        """
        return [each for each in self._identities.bundles_of(stream.entries).values() if each.x509_authorities]

    def _jwt_bundles(self, stream: IdentityStream) -> bytes:
        found = self._identities.bundles_of(stream.entries).values()

        def message() -> pb.JWTBundlesResponse:
            return pb.JWTBundlesResponse(bundles={str(each.trust_domain.id): each.jwks for each in found})

        return self._shared(("jwt", *found), message)

    def _wit_svids(self, entries: Sequence[Entry]) -> bytes | None:
        """None: one has to be waited for."""
        message = pb.WITSVIDResponse()
        for entry in entries:
            svid = self._identities.wit_svid(entry)
            if svid is None:
                return None
            message.svids.add(
                spiffe_id=str(svid.spiffe_id), wit_svid=svid.token, wit_svid_key=svid.key_jwk, hint=entry.hint
            )
        return message.SerializeToString(deterministic=True)

    def _wit_bundles(self, stream: IdentityStream) -> bytes:
        own, *foreign = self._identities.bundles_of(stream.entries).values()
        offered = [own, *(bundle for bundle in foreign if bundle.wit_authorities)]

        def message() -> pb.WITBundlesResponse:
            return pb.WITBundlesResponse(bundles={str(each.trust_domain.id): each.wit_jwks for each in offered})

        return self._shared(("wit", *offered), message)


def audience_of(audience: Sequence[str], missing: str = "audience must be specified") -> tuple[str, ...]:
    """The audiences that a JWT-SVID is asked for. Raise InvalidInput."""
    if not audience or not all(audience):
        raise InvalidInput(missing)
    if len(audience) > AUDIENCES_PER_JWT_SVID:
        raise InvalidInput(f"more than {AUDIENCES_PER_JWT_SVID} audiences")
    if any(len(each.encode()) > AUDIENCE_MAX_BYTES for each in audience):
        raise InvalidInput(f"audience is longer than {AUDIENCE_MAX_BYTES} bytes")
    return tuple(audience)


def _requested_id(text: str) -> SpiffeId:
    with told_as(InvalidInput, "invalid requested SPIFFE ID"):
        return SpiffeId.parse(text)


def seconds(moment: datetime | None) -> int:
    """Seconds since the epoch; 0 for none."""
    return int(moment.timestamp()) if moment else 0
