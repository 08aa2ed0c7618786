"""gRPC to a SPIRE server: TLS by its SPIFFE ID, with the node's own SVID or, before it has one, with none.

The server's only name is its SPIFFE ID, which gRPC's own client cannot check: `spiffetls.bridge` does TLS for it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from sojourn._pb.google.rpc.status_pb2 import Status
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import InvalidInput, NodeRefused, NotFound, Refused, SojournError, UpstreamUnavailable
from sojourn.limits import UPSTREAM_CALL_SECONDS, UPSTREAM_MESSAGE_MAX_BYTES
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SERVER_PATH, SpiffeId
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.authorize import authorize_id
from sojourn.spiffetls.bridge import Bridge
from sojourn.spiffetls.context import SpiffeContext, UnshownContext
from sojourn.workloadapi.messages import X509Context, X509SvidWithHint

Answer = TypeVar("Answer", bound=Message)
ENTRIES: Final = "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries"
_NO_FIELD: Final = types.EntryMask()
_NOT_TOLD: Final = "Internal error from Core"  # gRPC's own words for a call that ended as a message was sent
_LOST: Final = frozenset({_NOT_TOLD, "Stream removed"})  # and for one whose connection has gone
_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
_DETAILS: Final = "grpc-status-details-bin"
_PERMISSION: Final = "spire.api.types.PermissionDeniedDetails"
BANNED: Final = "banned"
MUST_REATTEST: Final = "must_reattest"
NOT_ACTIVE: Final = "not_active"
REASONS: Final = {1: "expired", 2: "not_attested", 3: NOT_ACTIVE, 4: BANNED, 5: MUST_REATTEST}
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", UPSTREAM_MESSAGE_MAX_BYTES),
)
_CODES: Final[dict[grpc.StatusCode, Callable[..., SojournError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNIMPLEMENTED: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
}
_OTHER_AUTHORITY: Final = (
    "if the server has another authority now, which this node has not heard of before, put what `spire-server bundle"
    " show` prints in the place of the bundle in [upstream], and start this agent again"
)


class ServerFault(UpstreamUnavailable):
    """The server is there and has answered: it cannot do what it was asked for. Its connection is good, and whoever
    asks for something else may have it. `said`: its own words.
    """

    def __init__(self, public: str, *, said: str = "") -> None:
        super().__init__(public)
        self.said = said


def server_id(bundle: Bundle) -> SpiffeId:
    """The SPIFFE ID of each server of a trust domain."""
    return SpiffeId.from_parts(bundle.trust_domain.name, SERVER_PATH)


class _Shown:
    """What a connection shows, and what it verifies the server by: the same for as long as it lives."""

    version = 1

    def __init__(self, bundle: Bundle, svid: X509Svid | None) -> None:
        shown = () if svid is None else (X509SvidWithHint(svid.spiffe_id, svid.chain, svid.key),)
        self.context = X509Context(shown, {bundle.trust_domain: bundle.x509_authorities})

    @property
    def present(self) -> Self:
        return self


class ServerConnection:
    """Calls to a server at HOST:PORT, as the node whose `svid` is shown: `async with ServerConnection(…) as server`.

    With another SVID, or another bundle, another connection is made. Raise InvalidInput for no address.
    """

    def __init__(self, address: str, bundle: Bundle, svid: X509Svid | None = None) -> None:
        kind = UnshownContext if svid is None else SpiffeContext
        context = kind(_Shown(bundle, svid), authorize_id(server_id(bundle)), server_side=False)
        context.set_alpn_protocols(["h2"])
        self.address = address
        self._bridge = Bridge(address, context)
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        await self._bridge.open()
        self._channel = grpc.aio.insecure_channel(f"unix:{self._bridge.path}", options=_OPTIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        channel, self._channel = self._channel, None
        try:
            if channel is not None:
                await channel.close()
        finally:
            await self._bridge.close()

    async def unary(
        self, method: str, request: Message, answer: type[Answer], seconds: float = UPSTREAM_CALL_SECONDS
    ) -> Answer:
        """Make a call with one answer. Raise NodeRefused, UpstreamUnavailable (ServerFault), or another
        SojournError.
        """
        call = self._open.unary_unary(method, request_serializer=_serialize, response_deserializer=answer.FromString)
        try:
            made: Answer = await call(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise self.failure(error.code(), error.details(), error.trailing_metadata()) from error
        return made

    def duplex(self, method: str, answer: type[Answer], seconds: float = UPSTREAM_CALL_SECONDS) -> "Duplex[Answer]":
        """Begin a call with a stream each way."""
        call = self._open.stream_stream(method, request_serializer=_serialize, response_deserializer=answer.FromString)
        return Duplex(self, call(timeout=seconds))

    async def check_node(self) -> None:
        """Raise what a call raises if the server does not take us for its node now.

        gRPC may not say how a stream has ended that the server ends while it begins: a call that needs the same does.
        """
        await self.unary(
            ENTRIES, pb.GetAuthorizedEntriesRequest(output_mask=_NO_FIELD), pb.GetAuthorizedEntriesResponse
        )

    @property
    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise InvalidInput("this connection is not open: use it as `async with`")
        return self._channel

    def failure(self, code: grpc.StatusCode, details: str | None, trailers: Any) -> SojournError:
        """Our error for a call's status, text and trailing metadata. What the server says is told as its word."""
        said = (details or "")[:500]
        reason = _reason(trailers) if code is grpc.StatusCode.PERMISSION_DENIED else None
        if reason is not None:
            return NodeRefused(f"the SPIRE server refuses this node: {said or reason}", reason_code=reason)
        kind = _CODES.get(code)
        if kind is not None:
            return kind(f"the SPIRE server says: {said}")
        if code not in _AWAY and details not in _LOST:
            return ServerFault(f"the SPIRE server at {self.address} fails: {said or code.name}", said=said)
        if self._bridge.failure:
            said = f"no TLS connection: {self._bridge.failure}"
            if self._bridge.unverified:
                said += f"; {_OTHER_AUTHORITY}"
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            said = "no answer in time"
        return UpstreamUnavailable(f"the SPIRE server at {self.address} does not answer: {said}")


class Duplex(Generic[Answer]):
    """A call with a stream each way. Use as an async context manager: it is given up at the end."""

    def __init__(self, connection: ServerConnection, call: Any) -> None:
        self._connection = connection
        self._call = call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def ask(self, request: Message) -> Answer:
        """Send a message and return the next one. Raise what `ServerConnection.unary` raises."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended: reading says why
            await self._call.write(request)
        return await self.next()

    async def next(self) -> Answer:
        """The next message. Raise what `ServerConnection.unary` raises, UpstreamUnavailable if there is no more."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and error.details() == _NOT_TOLD:
                await self._connection.check_node()
            raise self._connection.failure(error.code(), error.details(), error.trailing_metadata()) from error
        if message is grpc.aio.EOF:
            raise UpstreamUnavailable(f"the SPIRE server at {self._connection.address} ended the call too early")
        answer: Answer = message
        return answer

    async def done(self) -> None:
        """Say that nothing more is sent."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _reason(trailers: Any) -> str | None:
    """Why the server no longer takes this node for one, by REASONS; None: it says nothing of that."""
    for key, value in trailers or ():
        if key == _DETAILS and isinstance(value, bytes):
            with suppress(DecodeError):
                for packed in Status.FromString(value).details:
                    if packed.type_url.rpartition("/")[2] == _PERMISSION:
                        return REASONS.get(pb.PermissionDeniedDetails.FromString(packed.value).reason)
    return None
