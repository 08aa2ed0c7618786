"""SPIRE's bundle API on the admin socket: our own bundle, and those of foreign trust domains."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.audit.journal import Audit
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.spire.entry import recorder
from sojourn.errors import InvalidBundle, InvalidInput, NotFound, SojournError, Unimplemented
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.trust import TrustSource
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.bundle.v1.Bundle"
_MODES = {
    pb.BatchDeleteFederatedBundleRequest.RESTRICT: "restrict",
    pb.BatchDeleteFederatedBundleRequest.DELETE: "delete",
    pb.BatchDeleteFederatedBundleRequest.DISSOCIATE: "dissociate",
}


class BundleApi:
    """Batch calls succeed as calls: each item has its own status."""

    def __init__(self, authority: TrustSource, foreign: ForeignBundles, audit: Audit) -> None:
        self._authority = authority
        self._foreign = foreign
        self._audit = audit

    def methods(self) -> dict[str, Method]:
        return {
            "CountBundles": Method("unary", pb.CountBundlesRequest, self.count),
            "GetBundle": Method("unary", pb.GetBundleRequest, self.get),
            "AppendBundle": Method("unary", pb.AppendBundleRequest, self.append),
            "ListFederatedBundles": Method("unary", pb.ListFederatedBundlesRequest, self.list),
            "GetFederatedBundle": Method("unary", pb.GetFederatedBundleRequest, self.get_federated),
            "BatchCreateFederatedBundle": Method("unary", pb.BatchCreateFederatedBundleRequest, self.create),
            "BatchUpdateFederatedBundle": Method("unary", pb.BatchUpdateFederatedBundleRequest, self.update),
            "BatchSetFederatedBundle": Method("unary", pb.BatchSetFederatedBundleRequest, self.set),
            "BatchDeleteFederatedBundle": Method("unary", pb.BatchDeleteFederatedBundleRequest, self.delete),
        }

    async def count(self, _call: Call, _request: pb.CountBundlesRequest) -> pb.CountBundlesResponse:
        return pb.CountBundlesResponse(count=1 + len(self._foreign))

    async def get(self, _call: Call, request: pb.GetBundleRequest) -> types.Bundle:
        return convert.bundle_message(self._authority.bundle, convert.output_mask(request))

    async def append(self, _call: Call, _request: pb.AppendBundleRequest) -> types.Bundle:
        raise Unimplemented("this agent's bundle has its own authorities only; foreign ones are set with `bundle set`")

    async def list(self, _call: Call, request: pb.ListFederatedBundlesRequest) -> pb.ListFederatedBundlesResponse:
        found = [bundle for bundle in self._foreign.all() if bundle.trust_domain.name > request.page_token]
        page, last = convert.page_of(found, request.page_size)
        token = last.trust_domain.name if last else ""
        mask = convert.output_mask(request)
        return pb.ListFederatedBundlesResponse(
            bundles=[convert.bundle_message(bundle, mask) for bundle in page], next_page_token=token
        )

    async def get_federated(self, _call: Call, request: pb.GetFederatedBundleRequest) -> types.Bundle:
        bundle = self._foreign.get(self._domain(request.trust_domain, "getting"))
        if bundle is None:
            raise NotFound("bundle not found")
        return convert.bundle_message(bundle, convert.output_mask(request))

    async def create(
        self, call: Call, request: pb.BatchCreateFederatedBundleRequest
    ) -> pb.BatchCreateFederatedBundleResponse:
        answer = pb.BatchCreateFederatedBundleResponse()
        for message in request.bundle:
            put = partial(self._put, message, "creating", call, must_exist=False)
            await self._item(answer.results, request, put)
        return answer

    async def update(
        self, call: Call, request: pb.BatchUpdateFederatedBundleRequest
    ) -> pb.BatchUpdateFederatedBundleResponse:
        answer = pb.BatchUpdateFederatedBundleResponse()
        mask = request.input_mask if request.HasField("input_mask") else None
        for message in request.bundle:
            put = partial(self._put, message, "updating", call, must_exist=True, mask=mask)
            await self._item(answer.results, request, put)
        return answer

    async def set(self, call: Call, request: pb.BatchSetFederatedBundleRequest) -> pb.BatchSetFederatedBundleResponse:
        answer = pb.BatchSetFederatedBundleResponse()
        for message in request.bundle:
            await self._item(answer.results, request, partial(self._put, message, "setting", call))
        return answer

    async def delete(
        self, call: Call, request: pb.BatchDeleteFederatedBundleRequest
    ) -> pb.BatchDeleteFederatedBundleResponse:
        mode = _MODES.get(request.mode)
        if mode is None:
            raise InvalidInput("unhandled delete mode")
        answer = pb.BatchDeleteFederatedBundleResponse()
        for text in request.trust_domains:
            failure: SojournError | None = None
            try:
                domain = convert.trust_domain(text)
                if domain == self._authority.trust_domain:
                    raise InvalidInput("removing the bundle for the server trust domain is not allowed")
                said = {"trust_domain": domain.name, "mode": mode, **call.by}
                event = self._audit.event("bundle_deleted", said)
                await self._foreign.remove(domain, mode, [event], recorder(self._audit, call))
            except SojournError as error:
                failure = error
            answer.results.add(status=convert.status(failure), trust_domain=text)
        return answer

    async def _put(
        self,
        message: types.Bundle,
        doing: str,
        call: Call,
        *,
        must_exist: bool | None = None,
        mask: types.BundleMask | None = None,
    ) -> Bundle:
        domain = self._domain(message.trust_domain, doing)
        bundle = convert.bundle(message, self._foreign.get(domain), mask)
        event = self._audit.event("bundle_set", {"trust_domain": domain.name, **call.by})
        return await self._foreign.put(bundle, [event], must_exist=must_exist)

    async def _item(self, results: Any, request: Any, put: Callable[[], Awaitable[Bundle]]) -> None:
        """One item of a batch: a failed one never fails the others."""
        try:
            bundle = await put()
        except SojournError as error:
            status = convert.status(error)
            if isinstance(error, InvalidBundle):
                status.message = f"failed to convert bundle: {status.message}"
            results.add(status=status)
            return
        results.add(status=convert.status(None), bundle=convert.bundle_message(bundle, convert.output_mask(request)))

    def _domain(self, text: str, doing: str) -> TrustDomain:
        domain = convert.trust_domain(text)
        if domain == self._authority.trust_domain:
            raise InvalidInput(f"{doing} a federated bundle for the server's own trust domain is not allowed")
        return domain
