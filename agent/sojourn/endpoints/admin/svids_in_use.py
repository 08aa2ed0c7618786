"""Of sojourn.v1.Admin: the streams that are open and the X.509-SVIDs that are in use, in pages."""

from datetime import datetime, timedelta
from typing import Final

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.api.workload import seconds
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages
from sojourn.identity import svid_lifetime
from sojourn.identity.identities import Identities
from sojourn.identity.streams import IdentityStream
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.identity.svid_rotation import CachedSvid
from sojourn.limits import STATUS_ROWS
from sojourn.spiffe.x509svid import X509Svid

_FIRST: Final = pb.ListStreamsRequest(page_size=STATUS_ROWS)


class InUseApi:
    """For operators."""

    def __init__(self, identities: Identities, issuing: SvidIssuer, default_ttl: timedelta | None) -> None:
        self._identities = identities
        self._issuing = issuing
        self._default_ttl = default_ttl
        # A stream has no name of its own; where it lies is its own while it is open.
        self._streams: Pages[IdentityStream, pb.Stream] = Pages(
            (datetime, int), lambda stream: (stream.since, id(stream)), _stream
        )
        self._svids: Pages[CachedSvid[X509Svid], pb.Svid] = Pages(
            (str, str), lambda kept: (kept.entry.id, str(kept.svid.spiffe_id)), self.svid
        )

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ListStreams": Method("unary", pb.ListStreamsRequest, self.list_streams),
            "ListSvids": Method("unary", pb.ListSvidsRequest, self.list_svids),
        }

    async def list_streams(self, _call: Call, request: pb.ListStreamsRequest) -> pb.ListStreamsResponse:
        page, token = self._streams.page(self._identities.streams, request)
        return pb.ListStreamsResponse(streams=page, next_page_token=token)

    async def list_svids(self, _call: Call, request: pb.ListSvidsRequest) -> pb.ListSvidsResponse:
        page, token = self._svids.page(self._issuing.x509.kept(), request)
        return pb.ListSvidsResponse(svids=page, next_page_token=token)

    def tell(self, status: pb.GetStatusResponse) -> None:
        """Have a status tell the first of both, and how many more there are."""
        streams, kept = self._identities.streams, self._issuing.x509.kept()
        status.streams.extend(self._streams.page(streams, _FIRST)[0])
        status.streams_left_out = len(streams) - len(status.streams)
        status.svids.extend(self._svids.page(kept, _FIRST)[0])
        status.svids_left_out = len(kept) - len(status.svids)

    def svid(self, kept: CachedSvid[X509Svid]) -> pb.Svid:
        return pb.Svid(
            entry_id=kept.entry.id,
            spiffe_id=str(kept.svid.spiffe_id),
            serial=kept.svid.serial,
            not_after=seconds(kept.svid.not_after),
            rotate_at=seconds(kept.rotate_at),
            lifetime=svid_lifetime.reason(kept.entry, self._default_ttl, kept.svid),
        )


def _stream(stream: IdentityStream) -> pb.Stream:
    return pb.Stream(
        method=stream.method,
        pid=stream.peer.process.pid,
        uid=stream.peer.uid,
        exe=stream.peer.process.program_path(),
        since=seconds(stream.since),
        last_push=seconds(stream.last_push),
        pushes=stream.pushes,
    )
