"""SPIRE's SVID API for nodes: what is signed for their entries."""

import asyncio

from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.endpoints.api.workload import audience_of
from sojourn.endpoints.grpc.calls import Call
from sojourn.endpoints.node.callers import NodeMethod, NodeMethods
from sojourn.errors import InvalidInput, LimitExceeded, SojournError
from sojourn.limits import NODE_BATCH, NODE_SIGNED_IN_A_STEP
from sojourn.server.node_records import Node
from sojourn.server.node_svids import NodeSvids
from sojourn.server.signing_rate import SigningRate
from sojourn.spiffe.x509svid import DER
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.svid.v1.SVID"


class NodeSvidApi:
    """A batch succeeds as a call: each item has its own status."""

    def __init__(self, svids: NodeSvids, rate: SigningRate) -> None:
        self._svids = svids
        self._rate = rate

    def methods(self) -> NodeMethods:
        return {
            "BatchNewX509SVID": NodeMethod("unary", pb.BatchNewX509SvidRequest, self.x509),
            "NewJWTSVID": NodeMethod("unary", pb.NewJwtSvidRequest, self.jwt),
        }

    async def x509(self, node: Node, _call: Call, request: pb.BatchNewX509SvidRequest) -> pb.BatchNewX509SvidResponse:
        if not request.params:
            raise InvalidInput("missing parameters")
        if len(request.params) > NODE_BATCH:
            raise LimitExceeded(f"more than {NODE_BATCH} X.509-SVIDs in one call")
        await asyncio.sleep(self._rate.wait_for(node.spiffe_id, len(request.params)))
        answer = pb.BatchNewX509SvidResponse()
        for number, asked in enumerate(request.params, 1):
            if not number % NODE_SIGNED_IN_A_STEP:
                await asyncio.sleep(0)
            try:
                svid = self._signed(node, asked)
            except SojournError as error:
                answer.results.add(status=convert.status(error))
            else:
                answer.results.add(status=convert.status(None), svid=svid)
        return answer

    def _signed(self, node: Node, asked: pb.NewX509SvidParams) -> types.X509SVID:
        entry, chain = self._svids.sign_x509(node, asked.entry_id, asked.csr)
        return types.X509SVID(
            cert_chain=[each.public_bytes(DER) for each in chain],
            id=convert.spiffe_id_message(entry.spiffe_id),
            expires_at=int(chain[0].not_valid_after_utc.timestamp()),
        )

    async def jwt(self, node: Node, _call: Call, request: pb.NewJwtSvidRequest) -> pb.NewJwtSvidResponse:
        audience = audience_of(request.audience, "at least one audience is required")
        await asyncio.sleep(self._rate.wait_for(node.spiffe_id, 1))
        svid = self._svids.sign_jwt(node, request.entry_id, audience)
        return pb.NewJwtSvidResponse(
            svid=types.JWTSVID(
                token=svid.token,
                id=convert.spiffe_id_message(svid.spiffe_id),
                expires_at=svid.claims["exp"],
                issued_at=svid.claims["iat"],
            )
        )
