"""SPIRE's federation API on the admin socket: relationships are kept and shown; following them comes later."""

import re
from typing import Any, NoReturn
from urllib.parse import urlsplit

from google.protobuf.empty_pb2 import Empty

from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.doors import spire_types as convert
from sojourn.doors.calls import Call, Method
from sojourn.errors import (
    AlreadyExists,
    InvalidInput,
    InvalidSpiffeId,
    NotFound,
    SojournError,
    Unimplemented,
    quoted,
)
from sojourn.identity.foreign import ForeignBundles
from sojourn.oversight.audit import Audit
from sojourn.spiffe.ids import SpiffeId, TrustDomain

SERVICE = "spire.api.server.trustdomain.v1.TrustDomain"
_URL = re.compile(r"[!-~]{1,2048}")  # urlsplit drops newlines and tabs, and lets spaces through


class FederationApi:
    """Batch calls succeed as calls: each item has its own status."""

    def __init__(self, foreign: ForeignBundles, audit: Audit) -> None:
        self._foreign = foreign
        self._audit = audit

    def methods(self) -> dict[str, Method]:
        return {
            "ListFederationRelationships": Method("unary", pb.ListFederationRelationshipsRequest, self.list),
            "GetFederationRelationship": Method("unary", pb.GetFederationRelationshipRequest, self.get),
            "BatchCreateFederationRelationship": Method(
                "unary", pb.BatchCreateFederationRelationshipRequest, self.create
            ),
            "BatchUpdateFederationRelationship": Method(
                "unary", pb.BatchUpdateFederationRelationshipRequest, self.update
            ),
            "BatchDeleteFederationRelationship": Method(
                "unary", pb.BatchDeleteFederationRelationshipRequest, self.delete
            ),
            "RefreshBundle": Method("unary", pb.RefreshBundleRequest, self.refresh),
        }

    async def list(
        self, _call: Call, request: pb.ListFederationRelationshipsRequest
    ) -> pb.ListFederationRelationshipsResponse:
        found = [domain for domain in sorted(self._foreign.relationships) if domain.name > request.page_token]
        page, last = convert.page_of(found, request.page_size)
        return pb.ListFederationRelationshipsResponse(
            federation_relationships=[self._message(domain, convert.output_mask(request)) for domain in page],
            next_page_token=last.name if last else "",
        )

    async def get(self, _call: Call, request: pb.GetFederationRelationshipRequest) -> types.FederationRelationship:
        domain = _domain(request.trust_domain)
        if domain not in self._foreign.relationships:
            raise NotFound("federation relationship does not exist")
        return self._message(domain, convert.output_mask(request))

    async def create(
        self, call: Call, request: pb.BatchCreateFederationRelationshipRequest
    ) -> pb.BatchCreateFederationRelationshipResponse:
        answer = pb.BatchCreateFederationRelationshipResponse()
        for message in request.federation_relationships:
            await self._put(call, answer.results, message, convert.output_mask(request), new=True)
        return answer

    async def update(
        self, call: Call, request: pb.BatchUpdateFederationRelationshipRequest
    ) -> pb.BatchUpdateFederationRelationshipResponse:
        answer = pb.BatchUpdateFederationRelationshipResponse()
        for message in request.federation_relationships:
            await self._put(call, answer.results, message, convert.output_mask(request), new=False)
        return answer

    async def delete(
        self, call: Call, request: pb.BatchDeleteFederationRelationshipRequest
    ) -> pb.BatchDeleteFederationRelationshipResponse:
        answer = pb.BatchDeleteFederationRelationshipResponse()
        for text in request.trust_domains:
            failure: SojournError | None = None
            try:
                if not text:
                    raise InvalidInput("missing trust domain")
                domain = _domain(text)
                await self._foreign.unrelate(domain)
                self._audit.note("federation_deleted", trust_domain=domain.name, by_uid=call.peer.uid)
            except SojournError as error:
                failure = error
            answer.results.add(status=convert.status(failure), trust_domain=text)
        return answer

    async def refresh(self, _call: Call, request: pb.RefreshBundleRequest) -> Empty:
        domain = _domain(request.trust_domain)
        if domain not in self._foreign.relationships:
            raise NotFound(f"no relationship with trust domain {quoted(domain.name)}")
        _later()

    async def _put(
        self,
        call: Call,
        results: Any,
        message: types.FederationRelationship,
        mask: types.FederationRelationshipMask | None,
        *,
        new: bool,
    ) -> None:
        try:
            domain, document = _read(message)
            known = domain in self._foreign.relationships
            if new and known:
                raise AlreadyExists("federation relationship already exists")
            if not new and not known:
                raise NotFound("federation relationship not found")
            await self._foreign.relate(domain, document)
            if message.HasField("trust_domain_bundle"):
                bundle = convert.bundle(message.trust_domain_bundle)
                await self._foreign.put(bundle)
            self._audit.note("federation_set", trust_domain=domain.name, by_uid=call.peer.uid)
        except SojournError as error:
            results.add(status=convert.status(error))
            return
        results.add(status=convert.status(None), federation_relationship=self._message(domain, mask))

    def _message(
        self, domain: TrustDomain, mask: types.FederationRelationshipMask | None
    ) -> types.FederationRelationship:
        document = self._foreign.relationships[domain]
        message = types.FederationRelationship(
            trust_domain=domain.name, bundle_endpoint_url=document["bundle_endpoint_url"]
        )
        if document["profile"] == "https_spiffe":
            message.https_spiffe.endpoint_spiffe_id = document["endpoint_spiffe_id"]
        else:
            message.https_web.SetInParent()
        bundle = self._foreign.get(domain)
        if bundle is not None:
            message.trust_domain_bundle.CopyFrom(convert.bundle_message(bundle))
        if mask is not None:
            if not mask.bundle_endpoint_url:
                message.ClearField("bundle_endpoint_url")
            if not mask.bundle_endpoint_profile:
                message.ClearField("https_web")
                message.ClearField("https_spiffe")
            if not mask.trust_domain_bundle:
                message.ClearField("trust_domain_bundle")
        return message


def _read(message: types.FederationRelationship) -> tuple[TrustDomain, dict[str, str]]:
    """Check a relationship; what it is kept as. Raise InvalidInput with SPIRE's texts."""
    failed = "failed to convert federation relationship: "
    domain = _domain(message.trust_domain)
    try:
        parts = urlsplit(message.bundle_endpoint_url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(failed + "bundle endpoint URL cannot be parsed", detail=str(error)) from error
    if port == 0 or not _URL.fullmatch(message.bundle_endpoint_url):
        raise InvalidInput(failed + "bundle endpoint URL cannot be parsed")
    if parts.scheme != "https":
        raise InvalidInput(failed + "bundle endpoint URL must use the https scheme")
    if not parts.hostname:
        raise InvalidInput(failed + "bundle endpoint URL must specify the host")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(failed + "bundle endpoint URL must not contain user info")
    document = {"bundle_endpoint_url": message.bundle_endpoint_url, "profile": "https_web"}
    profile = message.WhichOneof("bundle_endpoint_profile")
    if profile is None:
        raise InvalidInput(failed + "unsupported bundle endpoint profile type: none")
    if profile == "https_spiffe":
        try:
            endpoint = SpiffeId.parse(message.https_spiffe.endpoint_spiffe_id)
        except InvalidSpiffeId as error:
            raise InvalidInput(f"{failed}failed to parse endpoint SPIFFE ID: {error.public}") from error
        document.update(profile="https_spiffe", endpoint_spiffe_id=str(endpoint))
    if message.HasField("trust_domain_bundle"):
        inner = message.trust_domain_bundle.trust_domain
        if _domain(inner) != domain:
            raise InvalidInput(
                f"{failed}trust domain bundle ({quoted(inner)}) must match the trust domain of the federation"
                f" relationship ({quoted(domain.name)})"
            )
    return domain, document


def _domain(text: str) -> TrustDomain:
    try:
        return TrustDomain.parse(text)
    except InvalidSpiffeId as error:
        raise InvalidInput(f"failed to parse trust domain: {error.public}") from error


def _later() -> NoReturn:
    raise Unimplemented("bundles are not fetched yet: set one with `spire-server bundle set` or its API")
