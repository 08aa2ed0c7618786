"""SPIRE's federation API on the admin socket, and what it lacks: how each relationship fares."""

import re
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.empty_pb2 import Empty

from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.audit.journal import Audit
from sojourn.endpoints.api.workload import seconds
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import (
    AlreadyExists,
    BundleNotFetched,
    InvalidInput,
    NotFound,
    SojournError,
    quoted,
    told_as,
)
from sojourn.federation.bundle_refresh import Federating, Followed
from sojourn.identity.federation_relationship import Relationship
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.limits import AUDITED_TEXT
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.trustdomain.v1.TrustDomain"
_URL = re.compile(r"[!-~]{1,2048}")  # urlsplit drops newlines and tabs, and lets spaces through


class FederationApi:
    """Batch calls succeed as calls: each item has its own status."""

    def __init__(self, foreign: ForeignBundles, federating: Federating, audit: Audit) -> None:
        self._foreign = foreign
        self._federating = federating
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

    def admin_methods(self) -> dict[str, Method]:
        """Of sojourn.v1.Admin."""
        return {"ListFederation": Method("unary", admin_pb2.ListFederationRequest, self.list_followed)}

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
        given = request.input_mask if request.HasField("input_mask") else None
        for message in request.federation_relationships:
            await self._put(call, answer.results, message, convert.output_mask(request), given, new=False)
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
                event = self._audit.event("federation_deleted", {"trust_domain": domain.name, **call.by})
                await self._foreign.unrelate(domain, [event])
            except SojournError as error:
                failure = error
            answer.results.add(status=convert.status(failure), trust_domain=text)
        return answer

    async def refresh(self, call: Call, request: pb.RefreshBundleRequest) -> Empty:
        domain = _domain(request.trust_domain)
        try:
            await self._federating.refresh(domain)
        except BundleNotFetched as error:
            raise BundleNotFetched(
                f"failed to refresh bundle: {error.public}", reason_code=error.reason_code, detail=error.detail
            ) from error
        await self._audit.commit("federation_refreshed", trust_domain=domain.name, **call.by)
        return Empty()

    async def list_followed(
        self, _call: Call, request: admin_pb2.ListFederationRequest
    ) -> admin_pb2.ListFederationResponse:
        if not request.trust_domain:
            return admin_pb2.ListFederationResponse(relationships=followed(self._federating, self._foreign))
        domain = _domain(request.trust_domain)
        found = self._federating.of(domain)
        if found is None:
            raise NotFound("federation relationship does not exist")
        return admin_pb2.ListFederationResponse(relationships=[_followed(found, self._federating, self._foreign)])

    async def _put(
        self,
        call: Call,
        results: Any,
        message: types.FederationRelationship,
        mask: types.FederationRelationshipMask | None,
        given: types.FederationRelationshipMask | None = None,
        *,
        new: bool,
    ) -> None:
        """`given`: which of the message's fields an update changes; None: all. A bundle that is left out stays."""
        try:
            relationship = _read(message)
            known = self._foreign.relationships.get(relationship.trust_domain)
            if new and known is not None:
                raise AlreadyExists("federation relationship already exists")
            if not new and known is None:
                raise NotFound("federation relationship not found")
            if known is not None and given is not None:
                relationship = Relationship(
                    known.trust_domain,
                    relationship.url if given.bundle_endpoint_url else known.url,
                    relationship.endpoint_id if given.bundle_endpoint_profile else known.endpoint_id,
                )
            bundle = None
            if message.HasField("trust_domain_bundle") and (given is None or given.trust_domain_bundle):
                bundle = convert.bundle(message.trust_domain_bundle)
            said = {
                "trust_domain": relationship.trust_domain.name,
                "url": relationship.url[:AUDITED_TEXT],
                "endpoint_id": None if relationship.endpoint_id is None else str(relationship.endpoint_id),
                "with_bundle": bundle is not None,
                **call.by,
            }
            await self._foreign.relate(relationship, bundle, [self._audit.event("federation_set", said)])
        except SojournError as error:
            results.add(status=convert.status(error))
            return
        results.add(status=convert.status(None), federation_relationship=self._message(relationship.trust_domain, mask))

    def _message(
        self, domain: TrustDomain, mask: types.FederationRelationshipMask | None
    ) -> types.FederationRelationship:
        relationship = self._foreign.relationships[domain]
        message = types.FederationRelationship(trust_domain=domain.name, bundle_endpoint_url=relationship.url)
        if relationship.endpoint_id is not None:
            message.https_spiffe.endpoint_spiffe_id = str(relationship.endpoint_id)
        else:
            message.https_web.SetInParent()
        bundle = self._foreign.get(domain)
        if bundle is not None:
            message.trust_domain_bundle.CopyFrom(convert.bundle_message(bundle))
        if mask is not None and not mask.bundle_endpoint_profile:
            message.ClearField("https_web")
            message.ClearField("https_spiffe")
        return convert.masked(message, mask, ("bundle_endpoint_url", "trust_domain_bundle"))


def followed(federating: Federating, foreign: ForeignBundles) -> list[admin_pb2.Federation]:
    """All relationships, and how each fares."""
    return [_followed(each, federating, foreign) for each in federating.all()]


def _followed(one: Followed, federating: Federating, foreign: ForeignBundles) -> admin_pb2.Federation:
    relationship = one.relationship
    domain = relationship.trust_domain
    bundle = foreign.get(domain)
    message = admin_pb2.Federation(
        trust_domain=domain.name,
        bundle_endpoint_url=relationship.url,
        bundle_endpoint_profile=relationship.profile,
        endpoint_spiffe_id="" if relationship.endpoint_id is None else str(relationship.endpoint_id),
        fetched_at=seconds(foreign.fetched_at.get(domain)),
        next_at=seconds(federating.next_at(one)),
        refresh_seconds=int(federating.interval(domain)),
        failures=one.failures,
    )
    if one.fault is not None:
        message.fault, message.fault_code = one.fault.public, one.fault.reason_code
    if bundle is not None:
        message.bundle.CopyFrom(
            admin_pb2.FederatedBundle(
                sequence=bundle.sequence,
                x509_authorities=len(bundle.x509_authorities),
                jwt_authorities=len(bundle.jwt_authorities),
            )
        )
    return message


def _read(message: types.FederationRelationship) -> Relationship:
    """Check a relationship. Raise InvalidInput with SPIRE's texts."""
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
    profile = message.WhichOneof("bundle_endpoint_profile")
    if profile is None:
        raise InvalidInput(failed + "unsupported bundle endpoint profile type: none")
    endpoint = None
    if profile == "https_spiffe":
        with told_as(InvalidInput, f"{failed}failed to parse endpoint SPIFFE ID"):
            endpoint = SpiffeId.parse(message.https_spiffe.endpoint_spiffe_id)
    if message.HasField("trust_domain_bundle"):
        inner = message.trust_domain_bundle.trust_domain
        if _domain(inner) != domain:
            raise InvalidInput(
                f"{failed}trust domain bundle ({quoted(inner)}) must match the trust domain of the federation"
                f" relationship ({quoted(domain.name)})"
            )
    return Relationship(domain, message.bundle_endpoint_url, endpoint)


def _domain(text: str) -> TrustDomain:
    with told_as(InvalidInput, "failed to parse trust domain"):
        return TrustDomain.parse(text)
