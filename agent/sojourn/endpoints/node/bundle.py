"""SPIRE's bundle API for nodes: the trust domain's own bundle, for anybody, and those of others for nodes."""

from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.node.callers import NodeMethod, NodeMethods
from sojourn.endpoints.spire.bundle import SERVICE, BundleApi
from sojourn.server.node_records import Node

__all__ = ("SERVICE", "NodeBundleApi")


class NodeBundleApi:
    """What operators see, too: all of it is public, but who follows whom is the nodes' to know."""

    def __init__(self, api: BundleApi) -> None:
        self._api = api

    def methods(self) -> NodeMethods:
        return {
            "GetBundle": Method("unary", pb.GetBundleRequest, self._api.get),
            "GetFederatedBundle": NodeMethod("unary", pb.GetFederatedBundleRequest, self.get_federated),
        }

    async def get_federated(self, _node: Node, call: Call, request: pb.GetFederatedBundleRequest) -> types.Bundle:
        return await self._api.get_federated(call, request)
