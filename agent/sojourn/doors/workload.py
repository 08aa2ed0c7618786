"""The SPIFFE Workload API (SPIFFE_Workload_API.md), with SPIRE's codes and texts."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

from sojourn._pb import workload_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.clock import Clock
from sojourn.doors import claims
from sojourn.doors.calls import Call, Method
from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidToken
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities, Stream
from sojourn.limits import AUDIENCE_MAX_BYTES, AUDIENCES_PER_JWT_SVID, AUDITED_TEXT
from sojourn.oversight.audit import Audit
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId

SERVICE = "SpiffeWorkloadAPI"
_ANSWERS_KEPT = 1_024
AUDITED_AUDIENCES = 5


class WorkloadApi:
    """The five calls. Answers that many callers share are serialised once."""

    def __init__(self, identities: Identities, audit: Audit, clock: Clock) -> None:
        self._identities = identities
        self._audit = audit
        self._clock = clock
        self._answers: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def methods(self) -> dict[str, Method]:
        return {
            "FetchX509SVID": Method("stream", pb.X509SVIDRequest, self.fetch_x509_svid),
            "FetchX509Bundles": Method("stream", pb.X509BundlesRequest, self.fetch_x509_bundles),
            "FetchJWTSVID": Method("unary", pb.JWTSVIDRequest, self.fetch_jwt_svid),
            "FetchJWTBundles": Method("stream", pb.JWTBundlesRequest, self.fetch_jwt_bundles),
            "ValidateJWTSVID": Method("unary", pb.ValidateJWTSVIDRequest, self.validate_jwt_svid),
        }

    def fetch_x509_svid(self, call: Call, _request: pb.X509SVIDRequest) -> AsyncIterator[bytes]:
        return self._pushes(call.peer, "FetchX509SVID", self._x509_svids)

    def fetch_x509_bundles(self, call: Call, _request: pb.X509BundlesRequest) -> AsyncIterator[bytes]:
        return self._pushes(call.peer, "FetchX509Bundles", self._x509_bundles)

    def fetch_jwt_bundles(self, call: Call, _request: pb.JWTBundlesRequest) -> AsyncIterator[bytes]:
        return self._pushes(call.peer, "FetchJWTBundles", self._jwt_bundles)

    async def fetch_jwt_svid(self, call: Call, request: pb.JWTSVIDRequest) -> pb.JWTSVIDResponse:
        audience = _audience(request.audience)
        entries: Sequence[Entry]
        if request.spiffe_id:
            entries = [await self._identities.entry_for(call.peer, _requested_id(request.spiffe_id))]
        else:
            entries = await self._identities.of(call.peer)
        answer = pb.JWTSVIDResponse()
        for entry in entries:
            svid = self._identities.issue_jwt(entry, audience)
            self._audit.note(
                "jwt_svid_issued",
                spiffe_id=str(svid.spiffe_id),
                entry_id=entry.id,
                audience=[each[:AUDITED_TEXT] for each in audience[:AUDITED_AUDIENCES]],
                jti=svid.claims["jti"],
                expires_at=svid.claims["exp"],
                pid=call.peer.process.pid,
                uid=call.peer.uid,
            )
            answer.svids.add(spiffe_id=str(svid.spiffe_id), svid=svid.token, hint=entry.hint)
        return answer

    async def validate_jwt_svid(self, call: Call, request: pb.ValidateJWTSVIDRequest) -> pb.ValidateJWTSVIDResponse:
        if not request.audience:
            raise InvalidInput("audience must be specified")
        if not request.svid:
            raise InvalidInput("svid must be specified")
        # Any process on this machine may ask, as at SPIRE: the answer is about the token. Tokens of other trust domains
        # are for those who federate with them.
        bundles = self._identities.bundles_of(await self._identities.entries_of(call.peer))
        keys = {domain: bundle.jwt_authorities for domain, bundle in bundles.items()}
        try:
            svid = jwtsvid.verify(request.svid, [request.audience], keys, self._clock.now())
            answer = pb.ValidateJWTSVIDResponse(spiffe_id=str(svid.spiffe_id))
            claims.put(answer.claims, {**svid.claims, "aud": list(svid.audience)})
        except InvalidToken as error:
            self._audit.denied("jwt_svid_rejected", call.peer.uid, pid=call.peer.process.pid, reason=error.reason_code)
            raise
        return answer

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _pushes(self, peer: Peer, method: str, make: Callable[[Stream], bytes]) -> AsyncIterator[bytes]:
        """Each answer that differs from the last one; ends with NoIdentity when the caller has nothing any more."""
        last = b""
        async with self._identities.stream(peer, method) as stream:
            while True:
                await self._identities.refresh(stream)
                stream.check_open()
                answer = make(stream)
                if answer != last:
                    last = answer
                    stream.pushed(self._clock.now())
                    yield answer
                await stream.next_change()

    def forget_answers(self) -> None:
        """Drop the ready-made answers: a key in them is no longer in use."""
        self._answers.clear()

    def _x509_svids(self, stream: Stream) -> bytes:
        bundle, *foreign = self._identities.bundles_of(stream.entries).values()
        svids = [(entry, self._identities.x509_svid(entry)) for entry in stream.entries]
        key = (bundle, *foreign, *((entry.id, entry.revision, svid.serial) for entry, svid in svids))
        answer = self._answers.get(key)
        if answer is None:
            message = pb.X509SVIDResponse()
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
            answer = self._answers[key] = message.SerializeToString(deterministic=True)
            if len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
        return answer

    def _x509_bundles(self, stream: Stream) -> bytes:
        bundles = self._identities.bundles_of(stream.entries)
        message = pb.X509BundlesResponse(bundles={str(domain.id): each.x509_der for domain, each in bundles.items()})
        return message.SerializeToString(deterministic=True)

    def _jwt_bundles(self, stream: Stream) -> bytes:
        bundles = self._identities.bundles_of(stream.entries)
        message = pb.JWTBundlesResponse(bundles={str(domain.id): each.jwks for domain, each in bundles.items()})
        return message.SerializeToString(deterministic=True)


def _audience(audience: Sequence[str]) -> tuple[str, ...]:
    if not audience or not all(audience):
        raise InvalidInput("audience must be specified")
    if len(audience) > AUDIENCES_PER_JWT_SVID:
        raise InvalidInput(f"more than {AUDIENCES_PER_JWT_SVID} audiences")
    if any(len(each.encode()) > AUDIENCE_MAX_BYTES for each in audience):
        raise InvalidInput(f"audience is longer than {AUDIENCE_MAX_BYTES} bytes")
    return tuple(audience)


def _requested_id(text: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text)
    except InvalidSpiffeId as error:
        raise InvalidInput(f"invalid requested SPIFFE ID: {error.public}") from error


def seconds(moment: datetime | None) -> int:
    """Seconds since the epoch; 0 for none."""
    return int(moment.timestamp()) if moment else 0
