"""The door for the nodes of a server: TLS on TCP, at which the server shows its own SPIFFE ID.

Whoever joins shows no certificate yet; a node shows its SVID, which is checked by our own rules inside the handshake.
"""

import socket
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack

from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import Calls, Method
from sojourn.endpoints.grpc.servers import serve
from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.endpoints.listener.tls import Listener, TlsDoor, TlsPeer, address_of, bind_tcp
from sojourn.errors import AgentDenied, Refused, SojournError, SvidExpired, SvidRefused, Unavailable
from sojourn.http2.host import Visitor
from sojourn.limits import (
    NODE_CONNECTIONS,
    NODE_CONNECTIONS_PER_ID,
    NODE_DESCRIPTORS_SHARE,
    NODE_REQUEST_MAX_BYTES,
    NODE_STREAMS_PER_ID,
)
from sojourn.runtime.readiness import Readiness
from sojourn.spiffetls.authorize import authorize_member_of
from sojourn.spiffetls.context import InnerContext, SpiffeContext, load_svid
from sojourn.spiffetls.peer import PeerCheck
from sojourn.workloadapi.messages import X509Context


class NodesContext(SpiffeContext):
    """A server's context whose clients may show an X.509-SVID of the trust domain, or nothing."""

    def complete(self, inner: InnerContext, context: X509Context) -> None:
        load_svid(inner, context.default)
        inner.verify_mode = ssl.CERT_OPTIONAL
        check = PeerCheck(context, self._authorize)
        inner.check_peer = lambda chain: check(chain) if chain else None


class NodesDoor(TlsDoor):
    """The listener and its connections."""

    name = "nodes"

    def listen(self, listener: socket.socket, own: AgentSvid, *, connections: int) -> None:
        """Begin to accept on a listening socket that does not block. `connections`: so many at most."""
        own.watch()
        context = NodesContext(own, authorize_member_of(own.spiffe_id.trust_domain), server_side=True)
        context.set_alpn_protocols(["h2"])
        self.open(listener, context, connections=connections)

    def places(self, peer: TlsPeer, connections: int) -> int:
        """Those who show nothing come from one address, behind which a whole fleet may be joining."""
        return max(1, connections // 2) if peer.spiffe_id is None else NODE_CONNECTIONS_PER_ID

    def objection(self, peer: TlsPeer) -> SojournError | None:
        del peer  # who may call what is looked at for each call
        return None

    def check(self, visitor: Visitor) -> None:
        """Raise what a caller's calls are refused with, if they are."""
        if not isinstance(visitor, TlsPeer):
            raise Refused("not a caller of this listener")
        if visitor.chain and (isinstance(visitor.over, SvidExpired) or self._clock.now() >= visitor.not_after):
            raise AgentDenied(f'agent "{visitor.spiffe_id}" SVID is expired', reason_code="expired")
        if isinstance(visitor.over, SvidRefused):  # so that a node which can attest anew does
            raise AgentDenied(visitor.over.public, reason_code="not_active")
        if visitor.over is not None:
            raise visitor.over


def open_nodes(
    address: str,
    door: NodesDoor,
    own: AgentSvid,
    services: Mapping[str, dict[str, Method]],
    audit: Audit,
    readiness: Readiness,
    descriptors: int,
    stack: AsyncExitStack,
) -> Listener:
    """Open the listener for these services. Raise CannotStart. Of `descriptors` it takes NODE_DESCRIPTORS_SHARE."""
    calls = Calls(audit, header=False, door=door.name, streams=NODE_STREAMS_PER_ID, check=door.check)
    listener = bind_tcp(address, "listen.nodes")
    stack.callback(listener.close)
    handlers = {name: calls.service(name, methods) for name, methods in services.items()}
    door.server = serve(
        handlers, calls, readiness, message_max_bytes=NODE_REQUEST_MAX_BYTES, reflects=False, health=False
    )
    stack.push_async_callback(door.drain)
    share = int(descriptors * NODE_DESCRIPTORS_SHARE)
    door.listen(listener, own, connections=min(NODE_CONNECTIONS, max(1, share)))
    stack.callback(door.end_all, Unavailable("the server is shutting down"))
    stack.callback(door.stop_accepting)
    return Listener("nodes", address_of(listener), door)
