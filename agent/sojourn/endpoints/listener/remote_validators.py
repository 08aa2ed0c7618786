"""The door for validators on other machines: mutual TLS on TCP, with SPIFFE IDs at both ends.

TLS ends here. Who is at the other end is known, and checked by our own rules, before a byte is read as HTTP/2.
"""

import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager

from sojourn.audit.journal import Audit
from sojourn.endpoints.api.validation import SERVICE, Callers, Standing, ValidationApi
from sojourn.endpoints.grpc.calls import Call, Calls
from sojourn.endpoints.grpc.servers import serve
from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.endpoints.listener.tls import Listener, TlsDoor, TlsPeer, address_of, bind_tcp, expired
from sojourn.errors import Refused, SojournError, Unavailable
from sojourn.http2.host import Visitor
from sojourn.limits import (
    PUBLIC_REQUEST_MAX_BYTES,
    REMOTE_CONNECTIONS,
    REMOTE_CONNECTIONS_PER_ID,
    REMOTE_DESCRIPTORS_SHARE,
    REMOTE_STREAMS_PER_ID,
)
from sojourn.runtime.readiness import Readiness
from sojourn.settings.tables import ListenConfig
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffetls.authorize import authorize_member_of
from sojourn.spiffetls.context import SpiffeContext


class RemoteDoor(TlsDoor):
    """The listener and its connections."""

    name = "tcp"

    _allowed: frozenset[SpiffeId] | None = None

    def listen(
        self, listener: socket.socket, own: AgentSvid, *, allowed: Collection[SpiffeId] | None, connections: int
    ) -> None:
        """Begin to accept on a listening socket that does not block, and show the agent's SVID from now on.

        `allowed`: the SPIFFE IDs that may come in; None: all of our trust domain. `connections`: so many at most.
        """
        self._allowed = None if allowed is None else frozenset(allowed)
        own.watch()
        context = SpiffeContext(own, authorize_member_of(own.spiffe_id.trust_domain), server_side=True)
        context.set_alpn_protocols(["h2"])
        self.open(listener, context, connections=connections)

    def places(self, peer: TlsPeer, connections: int) -> int:
        del peer
        return min(REMOTE_CONNECTIONS_PER_ID, max(1, connections // 2))

    def objection(self, peer: TlsPeer) -> SojournError | None:
        if self._allowed is not None and peer.spiffe_id not in self._allowed:
            return Refused(f"{peer.who!r} is not allowed here: listen.allowed does not name it")
        return None

    def check(self, visitor: Visitor) -> None:
        """Raise what a caller's calls are refused with, if they are."""
        if not isinstance(visitor, TlsPeer):
            raise Refused("not a caller of this listener")
        if visitor.over is None and self._clock.now() >= visitor.not_after:
            visitor.over = expired()
        if visitor.over is not None:
            raise visitor.over

    async def identities(self, call: Call) -> frozenset[SpiffeId]:
        """Whose X.509-SVID the caller's connection was made with."""
        self.check(call.visitor)
        return _identities(call.visitor)

    @asynccontextmanager
    async def standing(self, call: Call) -> AsyncIterator[Standing]:
        """Within what a caller may watch tasks: as long as its X.509-SVID is good."""
        yield _Standing(self, call.visitor)


class _Standing:
    def __init__(self, door: RemoteDoor, visitor: Visitor) -> None:
        self._door = door
        self._visitor = visitor

    @property
    def identities(self) -> frozenset[SpiffeId]:
        return _identities(self._visitor)

    async def check(self, *, anew: bool) -> None:
        del anew  # it costs nothing
        self._door.check(self._visitor)

    def pushed(self) -> None:
        """There is no list of remote streams."""


def _identities(visitor: Visitor) -> frozenset[SpiffeId]:
    known = visitor.spiffe_id if isinstance(visitor, TlsPeer) else None
    return frozenset() if known is None else frozenset({known})


async def open_listener(
    listen: ListenConfig,
    door: RemoteDoor,
    own: AgentSvid,
    api: Callable[[Callers], ValidationApi],
    audit: Audit,
    readiness: Readiness,
    descriptors: int,
    stack: AsyncExitStack,
) -> list[Listener]:
    """Open the listener, if there is to be one. Raise CannotStart.

    `api` makes the service for the door's callers. Of `descriptors` it takes REMOTE_DESCRIPTORS_SHARE.
    """
    if listen.tcp is None:
        return []
    calls = Calls(audit, header=False, door=door.name, streams=REMOTE_STREAMS_PER_ID, check=door.check)
    listener = bind_tcp(listen.tcp)
    stack.callback(listener.close)
    services = {SERVICE: calls.service(SERVICE, api(door).methods())}
    door.server = serve(services, calls, readiness, message_max_bytes=PUBLIC_REQUEST_MAX_BYTES, reflects=False)
    stack.push_async_callback(door.drain)
    share = int(descriptors * REMOTE_DESCRIPTORS_SHARE)
    allowed = None if listen.allowed is None else [SpiffeId.parse(each) for each in listen.allowed]
    door.listen(listener, own, allowed=allowed, connections=min(REMOTE_CONNECTIONS, max(1, share)))
    stack.callback(door.end_all, Unavailable("the agent is shutting down"))
    stack.callback(door.stop_accepting)
    return [Listener("tcp", address_of(listener), door)]
