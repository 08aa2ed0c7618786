"""SPIRE's agent API for nodes: joining, renewing, and what a node says of itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import Call, Method, first_of
from sojourn.endpoints.listener.tls import TlsPeer
from sojourn.endpoints.node.callers import NodeMethod, NodeMethods
from sojourn.errors import Bug, FailedPrecondition, InvalidInput, LimitExceeded, SojournError, quoted
from sojourn.limits import (
    AUDITED_TEXT,
    NODE_CHALLENGE_SECONDS,
    NODE_CHANGES_BURST,
    NODE_CHANGES_PER_SECOND,
    NODES_ATTESTED_BURST,
    NODES_ATTESTED_PER_SECOND,
    NODES_ATTESTING,
    REQUEST_SECONDS,
)
from sojourn.net.networks import network_of
from sojourn.quota.concurrency import Concurrency
from sojourn.quota.rate import BurstRate
from sojourn.server.certificate_requests import key_of
from sojourn.server.node_attestor import Challenge, NodeAttestor
from sojourn.server.node_records import Node
from sojourn.server.nodes import Chain, Nodes, check_renews
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import DER
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.agent.v1.Agent"


class NodeAgentApi:
    """Anybody may try to join; a node renews."""

    def __init__(
        self, nodes: Nodes, attestors: Mapping[str, NodeAttestor], audit: Audit, now: Callable[[], float]
    ) -> None:
        """`attestors` by their names. `now`: seconds of a clock that nobody sets."""
        self._nodes = nodes
        self._attestors = attestors
        self._audit = audit
        self._often = BurstRate(NODES_ATTESTED_PER_SECOND, NODES_ATTESTED_BURST, now)
        self._changes = BurstRate(NODE_CHANGES_PER_SECOND, NODE_CHANGES_BURST, now)
        self._at_once = Concurrency(NODES_ATTESTING, "attestations under way")

    def methods(self) -> NodeMethods:
        return {
            "AttestAgent": Method("bidi", pb.AttestAgentRequest, self.attest),
            "RenewAgent": NodeMethod("unary", pb.RenewAgentRequest, self.renew),
            "PostStatus": NodeMethod("unary", pb.PostStatusRequest, self.post_status),
        }

    async def attest(self, call: Call, _request: None) -> AsyncIterator[pb.AttestAgentResponse]:
        address = _address(call)
        place = network_of(address)
        if not self._often.allow(place):
            raise LimitExceeded("too many nodes of this network are attested: try again in a second")
        with self._at_once.one(place):
            request = await first_of(call, REQUEST_SECONDS)
            params = request.params
            _check_params(params if request.HasField("params") else None)
            # The steps of an attestor are a conversation, which is had here.
            asked: asyncio.Queue[bytes] = asyncio.Queue(1)
            answered: asyncio.Queue[bytes] = asyncio.Queue(1)

            async def challenge(content: bytes) -> bytes:
                await asked.put(content)
                return await answered.get()

            working = asyncio.ensure_future(self._attested(params, challenge, address))
            waiting = asyncio.ensure_future(asked.get())
            try:
                while True:
                    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
                    if not waiting.done():
                        break
                    content = waiting.result()
                    waiting = asyncio.ensure_future(asked.get())
                    yield pb.AttestAgentResponse(challenge=content)
                    answer = await first_of(call, NODE_CHALLENGE_SECONDS)
                    await answered.put(answer.challenge_response)
                spiffe_id, chain, reattestable = await working
            finally:
                working.cancel()
                waiting.cancel()
            result = pb.AttestAgentResponse.Result(svid=_svid(spiffe_id, chain), reattestable=reattestable)
            yield pb.AttestAgentResponse(result=result)

    async def _attested(
        self, params: pb.AttestAgentRequest.Params, challenge: Challenge, address: str
    ) -> tuple[SpiffeId, Chain, bool]:
        kind = params.data.type
        try:
            attestor = self._attestors.get(kind)
            if attestor is None:
                raise FailedPrecondition(
                    f"error getting node attestor: could not find node attestor type {quoted(kind)}"
                )
            key = key_of(params.params.csr, "failed to parse CSR")  # before a token is used up for it
            attested = await attestor.attest(params.data.payload, challenge)
            chain = await self._nodes.join(kind, attested, key, address)
        except SojournError as error:
            said = {"attestor": kind[:AUDITED_TEXT], "code": error.code, "reason": error.public[:AUDITED_TEXT]}
            self._audit.denied("node_not_joined", network_of(address), **said)
            raise
        return attested.spiffe_id, chain, attested.reattestable

    async def renew(self, node: Node, _call: Call, request: pb.RenewAgentRequest) -> pb.RenewAgentResponse:
        check_renews(node)
        if not request.HasField("params"):
            raise InvalidInput("params cannot be nil")
        if not request.params.csr:
            raise InvalidInput("missing CSR")
        key = key_of(request.params.csr, "failed to parse CSR")
        self._check_changes(node)
        return pb.RenewAgentResponse(svid=_svid(node.spiffe_id, await self._nodes.renew(node.spiffe_id, key)))

    async def post_status(self, node: Node, _call: Call, request: pb.PostStatusRequest) -> pb.PostStatusResponse:
        if request.agent_version != node.version:
            self._check_changes(node)
        await self._nodes.note_version(node.spiffe_id, request.agent_version)
        return pb.PostStatusResponse()

    def _check_changes(self, node: Node) -> None:
        """Raise LimitExceeded for a node that has the disk written all the time."""
        if not self._changes.allow(node.spiffe_id):
            raise LimitExceeded("this node renews, or says what it is, too often: try again in some seconds")


def _address(call: Call) -> str:
    if not isinstance(call.visitor, TlsPeer):
        raise Bug("a call that is for nodes came from this machine's socket")
    return call.visitor.address


def _check_params(params: pb.AttestAgentRequest.Params | None) -> None:
    faults = {
        "missing params": params is None,
        "missing attestation data": params is not None and not params.HasField("data"),
        "missing X509-SVID parameters": params is not None and not params.HasField("params"),
        "missing CSR": params is not None and not params.params.csr,
        "missing attestation data type": params is not None and not params.data.type,
        "missing attestation data payload": params is not None and not params.data.payload,
    }
    fault = next((said for said, wrong in faults.items() if wrong), None)
    if fault is not None:
        raise InvalidInput(f"malformed param: {fault}")


def _svid(spiffe_id: SpiffeId, chain: Chain) -> types.X509SVID:
    return types.X509SVID(
        cert_chain=[each.public_bytes(DER) for each in chain],
        id=convert.spiffe_id_message(spiffe_id),
        expires_at=int(chain[0].not_valid_after_utc.timestamp()),
    )
