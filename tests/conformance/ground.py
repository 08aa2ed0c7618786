"""What the tests of the rows have in common."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from conformance.rows import ROWS
from cryptography import x509
from fakes.ca import FakeCa
from grpc_reflection.v1alpha import reflection_pb2
from harness.agent import AgentProcess
from harness.nodeagent import NodeAgent
from harness.raw import BUNDLE_API, WORKLOAD_API, Admin, Wire
from harness.reading import certificates, listening
from sojourn._pb import workload_pb2 as pb
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as bundle_api
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.jose.jws import PublicKey

REQUESTS = {
    "FetchX509SVID": pb.X509SVIDRequest(),
    "FetchX509Bundles": pb.X509BundlesRequest(),
    "FetchJWTSVID": pb.JWTSVIDRequest(audience=["a"]),
    "FetchJWTBundles": pb.JWTBundlesRequest(),
    "ValidateJWTSVID": pb.ValidateJWTSVIDRequest(audience="a", svid="x"),
}
STREAMS = {"FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"}
Registered = Callable[..., AbstractContextManager[types.Entry]]


class WorkloadWire(Wire):
    """The Workload API as its own five calls."""

    def x509_bundles(self) -> pb.X509BundlesResponse:
        return self.first(WORKLOAD_API + "FetchX509Bundles", pb.X509BundlesRequest(), pb.X509BundlesResponse)

    def jwt_bundles(self) -> pb.JWTBundlesResponse:
        return self.first(WORKLOAD_API + "FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse)

    def jwt(self, *audience: str, spiffe_id: str = "") -> pb.JWTSVIDResponse:
        request = pb.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id)
        return self.unary(WORKLOAD_API + "FetchJWTSVID", request, pb.JWTSVIDResponse)

    def validate(self, audience: str, svid: str) -> pb.ValidateJWTSVIDResponse:
        request = pb.ValidateJWTSVIDRequest(audience=audience, svid=svid)
        return self.unary(WORKLOAD_API + "ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse)


@dataclass(frozen=True)
class Issued:
    """One X.509-SVID as the agent sent it, and its certificates."""

    svid: pb.X509SVID
    leaf: x509.Certificate
    issuer: x509.Certificate
    root: x509.Certificate

    @property
    def authorities(self) -> list[x509.Certificate]:
        return [self.issuer, self.root]

    @property
    def chain(self) -> list[x509.Certificate]:
        return [self.leaf, self.issuer, self.root]


def issued_in(svid: pb.X509SVID) -> Issued:
    leaf, issuer = certificates(svid.x509_svid)
    [root] = certificates(svid.bundle)
    return Issued(svid, leaf, issuer, root)


def sockets_of(agent: AgentProcess) -> tuple[list[str], list[str]]:
    """The paths of the Unix sockets that it listens on, and its internet sockets but those to its own server."""
    return listening(agent.pid, agent.server.node_port if isinstance(agent, NodeAgent) else None)


def reflected(wire: Wire, **asked: str) -> Any:
    """What server reflection answers to one question."""
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    request = reflection_pb2.ServerReflectionRequest(**asked)
    return wire.first(method, request, reflection_pb2.ServerReflectionResponse, metadata=())


def services(wire: Wire) -> set[str]:
    """The full names of the services that reflection lists."""
    return {each.name for each in reflected(wire, list_services="").list_services_response.service}


@contextmanager
def known(admin: Admin, ca: FakeCa, key: PublicKey) -> Iterator[str]:
    """While it lasts the agent knows a foreign trust domain, by its root and one JWT key. Gives the domain's ID."""
    name = ca.trust_domain.name
    bundle = types.Bundle(
        trust_domain=name,
        x509_authorities=[types.X509Certificate(asn1=ca.root_der)],
        jwt_authorities=[types.JWTKey(public_key=key.pkix_der, key_id=key.kid)],
    )
    gone = bundle_api.BatchDeleteFederatedBundleRequest(trust_domains=[name])
    admin.know(bundle)
    try:
        yield str(ca.trust_domain.id)
    finally:
        admin.unary(BUNDLE_API + "BatchDeleteFederatedBundle", gone, bundle_api.BatchDeleteFederatedBundleResponse)


def deviates(row: str) -> pytest.MarkDecorator:
    """Marks a test that shows where a row is not kept; the row says in what way. Once it is kept, both must go."""
    [reason] = [each.deviates for each in ROWS if each.id == row and each.deviates]
    return pytest.mark.xfail(strict=True, reason=reason)
