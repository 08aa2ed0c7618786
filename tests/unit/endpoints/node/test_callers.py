"""callers.py: one table says who may call what on the port for nodes, and every call is walked by it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from fakes.registrations import FakeForeignStore, entry
from fakes.server_room import BY, ServerRoom, agent_id, certificate_request
from sojourn._pb.pool import POOL
from sojourn._pb.spire.api.server.agent.v1 import agent_pb2
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.status_codes import GrpcStatus
from sojourn.endpoints.listener.tls import TlsPeer
from sojourn.endpoints.node import agent, bundle, svid
from sojourn.endpoints.node import entry as entries
from sojourn.endpoints.node.callers import ANYBODY, NODE, WHO, NodeCallers, NodeMethod
from sojourn.endpoints.spire.bundle import BundleApi
from sojourn.errors import AgentDenied, Bug, LimitExceeded, Refused, SojournError
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.limits import NODE_CHANGES_BURST, NODE_CHANGES_PER_SECOND
from sojourn.server.signing_rate import SigningRate
from sojourn.spiffe.ids import SpiffeId

A = agent_id("a")
# What SPIRE's own table of authorization says of these calls of its agents.
AT_SPIRE = {
    "spire.api.server.agent.v1.Agent/AttestAgent": ANYBODY,
    "spire.api.server.agent.v1.Agent/PostStatus": NODE,
    "spire.api.server.agent.v1.Agent/RenewAgent": NODE,
    "spire.api.server.bundle.v1.Bundle/GetBundle": ANYBODY,
    "spire.api.server.bundle.v1.Bundle/GetFederatedBundle": NODE,
    "spire.api.server.entry.v1.Entry/GetAuthorizedEntries": NODE,
    "spire.api.server.entry.v1.Entry/SyncAuthorizedEntries": NODE,
    "spire.api.server.svid.v1.SVID/BatchNewX509SVID": NODE,
    "spire.api.server.svid.v1.SVID/NewJWTSVID": NODE,
}


@pytest.fixture
def room(tmp_path: Path) -> ServerRoom:
    return ServerRoom(tmp_path, [entry("/web", parent_id=A)])


@pytest.fixture
def methods(room: ServerRoom) -> dict[str, Method]:
    """All that stands behind the port, by path."""
    callers = NodeCallers(room.nodes)
    foreign = ForeignBundles(FakeForeignStore(), A.trust_domain, room.registry)
    services: dict[str, Any] = {
        agent.SERVICE: agent.NodeAgentApi(room.nodes, {}, room.audit, room.clock.boot),
        entries.SERVICE: entries.NodeEntryApi(room.nodes, room.authorized),
        svid.SERVICE: svid.NodeSvidApi(room.svids, SigningRate(room.clock.boot)),
        bundle.SERVICE: bundle.NodeBundleApi(BundleApi(room.authority, foreign, room.audit)),
    }
    return {
        f"{service}/{name}": method
        for service, api in services.items()
        for name, method in callers.guarded(service, api.methods()).items()
    }


class NoRequests:
    """A caller that says nothing further."""

    waiting = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self  # type: ignore[return-value]  # it is one

    async def __anext__(self) -> Any:
        raise StopAsyncIteration


def call_of(peer: Any) -> Call:
    return Call(peer, "", NoRequests(), lambda _: False)  # type: ignore[arg-type]  # what says nothing


async def answered(method: Method, peer: Any) -> SojournError | None:
    """What a caller is told who asks for nothing in particular; None: an answer."""
    try:
        found = method.handler(call_of(peer), method.request())
        if method.kind == "unary":
            await found  # type: ignore[misc]  # it is answered once
        else:
            async for _ in found:  # type: ignore[union-attr]  # and this is not
                pass
    except SojournError as error:
        return error
    return None


def nobody() -> TlsPeer:
    return TlsPeer(None, (), "192.0.2.7")


def workload(room: ServerRoom) -> TlsPeer:
    """A workload of the trust domain, with an SVID of its own."""
    web = SpiffeId.parse("spiffe://example.org/web")
    return TlsPeer(web, room.authority.issue_x509(web, room.nodes._ttl).chain, "192.0.2.7")


def test_the_table_is_as_spire_has_it() -> None:
    """Who may call what here is who may at SPIRE."""
    assert AT_SPIRE == WHO


def test_all_is_in_the_table(methods: dict[str, Method]) -> None:
    """There is no call on the port that the table does not have, and none in it that is not there."""
    assert WHO.keys() == methods.keys()


def test_none_is_for_operators(methods: dict[str, Method]) -> None:
    """What operators call is not there: neither bans nor tokens nor entries nor minting."""
    operators = {f"{agent_pb2.DESCRIPTOR.services_by_name['Agent'].full_name}/{name}" for name in
                 ("BanAgent", "DeleteAgent", "ListAgents", "CreateJoinToken")}  # fmt: skip
    assert not operators & methods.keys()
    assert POOL is not None
    assert not any("Mint" in path or "BatchCreate" in path or "sojourn" in path for path in methods)


@pytest.mark.parametrize("path", sorted(WHO))
class TestEachCall:
    async def test_by_nobody(self, methods: dict[str, Method], path: str) -> None:
        """Who shows no SVID may call what is for anybody, and is told of anything else that it is not for them."""
        error = await answered(methods[path], nobody())
        if WHO[path] == ANYBODY:
            assert not isinstance(error, Refused)
        else:
            assert isinstance(error, Refused)
            assert f"authorization denied for method /{path}" == error.public

    async def test_by_a_workload(self, room: ServerRoom, methods: dict[str, Method], path: str) -> None:
        """A workload's SVID makes nobody a node."""
        error = await answered(methods[path], workload(room))
        assert isinstance(error, AgentDenied) is (WHO[path] == NODE)

    async def test_by_a_node(self, room: ServerRoom, methods: dict[str, Method], path: str) -> None:
        """A node may call all of it."""
        leaf = await room.joined()
        assert not isinstance(await answered(methods[path], TlsPeer(A, (leaf,), "192.0.2.7")), Refused)

    async def test_by_a_banned_node(self, room: ServerRoom, methods: dict[str, Method], path: str) -> None:
        """A banned node is told so by each call that is for nodes, in the form that agents read."""
        leaf = await room.joined()
        await room.nodes.ban(A, BY)
        error = await answered(methods[path], TlsPeer(A, (leaf,), "192.0.2.7"))
        if WHO[path] == NODE:
            assert isinstance(error, AgentDenied)
            assert ("banned", "PERMISSION_DENIED") == (error.reason_code, GrpcStatus.of(error).name)
            assert "grpc-status-details-bin" in dict(GrpcStatus.of(error).metadata())

    async def test_by_an_older_svid(self, room: ServerRoom, methods: dict[str, Method], path: str) -> None:
        """An SVID that a node had before it joined again opens nothing."""
        old = await room.joined()
        await room.joined()
        error = await answered(methods[path], TlsPeer(A, (old,), "192.0.2.7"))
        assert isinstance(error, AgentDenied) is (WHO[path] == NODE)


class TestHowOften:
    async def test_a_node_that_renews_all_the_time(self, room: ServerRoom) -> None:
        """A node has the disk written so often, and no more until a while has passed; others are not held up by it."""
        api = agent.NodeAgentApi(room.nodes, {}, room.audit, room.clock.boot)
        mine, theirs = [await room.joined(each) and room.node(each) for each in ("a", "b")]
        asked = pb.RenewAgentRequest(params=pb.X509SvidParams(csr=certificate_request()))
        call = call_of(nobody())
        for _ in range(NODE_CHANGES_BURST):
            await api.renew(mine, call, asked)
        with pytest.raises(LimitExceeded):
            await api.renew(mine, call, asked)
        with pytest.raises(LimitExceeded):
            await api.post_status(mine, call, pb.PostStatusRequest(agent_version="1"))
        await api.post_status(mine, call, pb.PostStatusRequest(agent_version=mine.version))
        await api.renew(theirs, call, asked)
        room.clock.advance(1.0 / NODE_CHANGES_PER_SECOND)
        await api.post_status(mine, call, pb.PostStatusRequest(agent_version="1"))
        assert "1" == room.node().version


class TestThatNoneIsForgotten:
    async def _handler(self, *_: Any) -> None:
        """A handler."""

    def test_a_call_that_the_table_does_not_have(self, room: ServerRoom) -> None:
        """A handler that nobody has put into the table is not served."""
        with pytest.raises(Bug):
            NodeCallers(room.nodes).guarded("a.Service", {"New": NodeMethod("unary", x509.Name, self._handler)})  # type: ignore[arg-type]

    def test_one_that_says_another_thing(self, room: ServerRoom) -> None:
        """A handler for anybody is not served where the table says that it is for nodes."""
        method = Method("unary", agent_pb2.GetAgentRequest, self._handler)
        with pytest.raises(Bug):
            NodeCallers(room.nodes).guarded(agent.SERVICE, {"RenewAgent": replace(method)})
