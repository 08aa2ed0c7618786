"""SPIRE's agent API on the admin socket: there is exactly one node here, this one."""

from typing import Protocol

from cryptography import x509
from google.protobuf.empty_pb2 import Empty

from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput, NotFound, Unimplemented, told_as
from sojourn.spiffe.ids import SpiffeId
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.agent.v1.Agent"
MASKED = (
    "attestation_type",
    "x509svid_serial_number",
    "x509svid_expires_at",
    "selectors",
    "banned",
    "can_reattest",
    "agent_version",
)


class ThisNode(Protocol):
    """The one node that there is here."""

    @property
    def node_id(self) -> SpiffeId: ...

    @property
    def attestation_type(self) -> str:
        """How it was attested, as SPIRE names it; `sojourn`: by nobody, as it signs for itself."""

    @property
    def reattestable(self) -> bool: ...

    @property
    def certificate(self) -> x509.Certificate | None:
        """By which the node is known: its own SVID, or the intermediate that signs SVIDs here; None: there is none."""


class AgentApi:
    """Lists this node, and says what to do instead where a call has no meaning on one node."""

    def __init__(self, node: ThisNode, version: str) -> None:
        self._node = node
        self._version = version

    def methods(self) -> dict[str, Method]:
        return {
            "CountAgents": Method("unary", pb.CountAgentsRequest, self.count),
            "ListAgents": Method("unary", pb.ListAgentsRequest, self.list),
            "GetAgent": Method("unary", pb.GetAgentRequest, self.get),
            "DeleteAgent": Method("unary", pb.DeleteAgentRequest, self.delete),
            "BanAgent": Method("unary", pb.BanAgentRequest, self.ban),
            "CreateJoinToken": Method("unary", pb.CreateJoinTokenRequest, self.create_join_token),
        }

    async def count(self, _call: Call, request: pb.CountAgentsRequest) -> pb.CountAgentsResponse:
        return pb.CountAgentsResponse(count=int(self._passes(request.filter)))

    async def list(self, _call: Call, request: pb.ListAgentsRequest) -> pb.ListAgentsResponse:
        if request.page_token or not self._passes(request.filter):
            return pb.ListAgentsResponse()
        return pb.ListAgentsResponse(agents=[self._message(convert.output_mask(request))])

    async def get(self, _call: Call, request: pb.GetAgentRequest) -> types.Agent:
        with told_as(InvalidInput, "invalid agent ID"):
            asked = convert.spiffe_id(request.id)
        if asked != self._node.node_id:
            raise NotFound("agent not found")
        return self._message(convert.output_mask(request))

    async def delete(self, _call: Call, _request: pb.DeleteAgentRequest) -> Empty:
        raise Unimplemented("this node cannot be evicted from itself: stop the agent, and remove its data folder")

    async def ban(self, _call: Call, _request: pb.BanAgentRequest) -> Empty:
        raise Unimplemented("this node cannot be banned from itself: delete entries, or stop the agent")

    async def create_join_token(self, _call: Call, _request: pb.CreateJoinTokenRequest) -> types.JoinToken:
        raise Unimplemented("no node joins this agent: run `sojourn agent run` on each machine")

    def _passes(self, wanted: pb.ListAgentsRequest.Filter | pb.CountAgentsRequest.Filter) -> bool:
        if wanted.by_attestation_type and wanted.by_attestation_type != self._node.attestation_type:
            return False
        if wanted.HasField("by_banned") and wanted.by_banned.value:
            return False
        if wanted.HasField("by_can_reattest") and wanted.by_can_reattest.value != self._node.reattestable:
            return False
        return not wanted.HasField("by_selector_match")  # this node has no selectors

    def _message(self, mask: types.AgentMask | None) -> types.Agent:
        shown = self._node.certificate
        message = types.Agent(
            id=convert.spiffe_id_message(self._node.node_id),
            attestation_type=self._node.attestation_type,
            x509svid_serial_number="" if shown is None else str(shown.serial_number),
            x509svid_expires_at=0 if shown is None else int(shown.not_valid_after_utc.timestamp()),
            can_reattest=self._node.reattestable,
            agent_version=self._version,
        )
        return convert.masked(message, mask, MASKED)
