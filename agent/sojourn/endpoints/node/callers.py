"""Who may call what on the port for nodes: one table, and what keeps it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from sojourn.endpoints.grpc.calls import Call, Method, Streaming, Unary
from sojourn.endpoints.listener.tls import TlsPeer
from sojourn.errors import AgentDenied, Bug, Refused
from sojourn.server.node_records import Node
from sojourn.server.nodes import Nodes

ANYBODY, NODE = "anybody", "node"
_AGENT, _BUNDLE = "spire.api.server.agent.v1.Agent", "spire.api.server.bundle.v1.Bundle"
_ENTRY, _SVID = "spire.api.server.entry.v1.Entry", "spire.api.server.svid.v1.SVID"
WHO: Final = {
    f"{_AGENT}/AttestAgent": ANYBODY,
    f"{_AGENT}/PostStatus": NODE,
    f"{_AGENT}/RenewAgent": NODE,
    f"{_BUNDLE}/GetBundle": ANYBODY,
    f"{_BUNDLE}/GetFederatedBundle": NODE,
    f"{_ENTRY}/GetAuthorizedEntries": NODE,
    f"{_ENTRY}/SyncAuthorizedEntries": NODE,
    f"{_SVID}/BatchNewX509SVID": NODE,
    f"{_SVID}/NewJWTSVID": NODE,
}


@dataclass(frozen=True, slots=True)
class NodeMethod:
    """A method for nodes: as `Method`, but its handler is given the node that calls before all else."""

    kind: str  # unary | bidi
    request: type[Message]
    handler: Callable[[Node, Call, Any], Any]


NodeMethods = Mapping[str, Method | NodeMethod]


class NodeCallers:
    """Lets nodes call what is for nodes. Whether somebody is one is asked for each call anew."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def guarded(self, service: str, methods: NodeMethods) -> dict[str, Method]:
        """The methods of a service, each for those whom the table names."""
        return {name: self._guarded(f"{service}/{name}", method) for name, method in methods.items()}

    def _guarded(self, path: str, method: Method | NodeMethod) -> Method:
        if isinstance(method, NodeMethod) is not (WHO.get(path) == NODE):
            raise Bug(f"the table and the handler of {path} say that it is for others")
        if isinstance(method, Method):
            return method
        handler = self._streamed(path, method) if method.kind == "bidi" else self._answered(path, method)
        return Method(method.kind, method.request, handler)

    def _answered(self, path: str, method: NodeMethod) -> Unary:
        async def call(made: Call, request: Any) -> Any:
            return await method.handler(await self._node(path, made), made, request)

        return call

    def _streamed(self, path: str, method: NodeMethod) -> Streaming:
        async def call(made: Call, request: Any) -> AsyncIterator[Any]:
            async with aclosing(method.handler(await self._node(path, made), made, request)) as answers:
                async for answer in answers:
                    yield answer

        return call

    async def _node(self, path: str, call: Call) -> Node:
        """The node that calls. Raise Refused, AgentDenied.

        Callers are told what SPIRE's server tells them, with the reason as a detail; why in words is for the log.
        """
        peer, said = call.visitor, f"authorization denied for method /{path}"
        if not isinstance(peer, TlsPeer) or peer.spiffe_id is None:
            raise Refused(said)
        try:
            return await self._nodes.admit(peer.spiffe_id, peer.chain[0])
        except AgentDenied as error:
            raise AgentDenied(said, reason_code=error.reason_code, detail=error.public) from error
