"""SPIRE's minting API on the admin socket: SVIDs that an operator asks for by name."""

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sojourn._pb.spire.api.server.svid.v1 import svid_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.audit.journal import Audit
from sojourn.authority.x509_profile import signer_id
from sojourn.endpoints.api.workload import audience_of
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput, told_as
from sojourn.identity.entries import check_dns_names
from sojourn.identity.signatures import in_time
from sojourn.identity.svid_signers import MintedLeaf, MintingSigner
from sojourn.limits import (
    SVID_TTL_MAX_SECONDS,
    SVID_TTL_MIN_SECONDS,
)
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import DER, check_key
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.svid.v1.SVID"


class MintingApi:
    """Take of a certificate request the public key, the one SPIFFE ID and DNS names, and nothing else."""

    def __init__(
        self, trust_domain: TrustDomain, signer: MintingSigner, audit: Audit, x509_ttl: timedelta, jwt_ttl: timedelta
    ) -> None:
        self._trust_domain = trust_domain
        self._signer = signer
        self._audit = audit
        self._x509_ttl = x509_ttl
        self._jwt_ttl = jwt_ttl

    def methods(self) -> dict[str, Method]:
        return {
            "MintX509SVID": Method("unary", pb.MintX509SVIDRequest, self.mint_x509),
            "MintJWTSVID": Method("unary", pb.MintJWTSVIDRequest, self.mint_jwt),
        }

    async def mint_x509(self, call: Call, request: pb.MintX509SVIDRequest) -> pb.MintX509SVIDResponse:
        if not request.csr:
            raise InvalidInput("missing CSR")
        spiffe_id, key, dns_names = self._read_csr(request.csr)
        asked = MintedLeaf(spiffe_id, key, _ttl(request.ttl, self._x509_ttl), dns_names)
        chain = await in_time(self._signer.sign_x509(asked))
        leaf = chain[0]
        expires = int(leaf.not_valid_after_utc.timestamp())
        await self._audit.commit(
            "x509_svid_minted",
            spiffe_id=str(spiffe_id),
            serial=f"{leaf.serial_number:x}",
            expires_at=expires,
            issuer_id=signer_id(leaf),
            root_id=signer_id(chain[-1]),
            **call.by,
        )
        svid = types.X509SVID(
            cert_chain=[each.public_bytes(DER) for each in chain],
            id=convert.spiffe_id_message(spiffe_id),
            expires_at=expires,
        )
        return pb.MintX509SVIDResponse(svid=svid)

    async def mint_jwt(self, call: Call, request: pb.MintJWTSVIDRequest) -> pb.MintJWTSVIDResponse:
        with told_as(InvalidInput, "invalid SPIFFE ID"):
            spiffe_id = convert.spiffe_id(request.id)
            spiffe_id.check_workload_of(self._trust_domain)
        audience = audience_of(request.audience, "at least one audience is required")
        svid = await in_time(self._signer.sign_jwt(spiffe_id, audience, _ttl(request.ttl, self._jwt_ttl)))
        await self._audit.commit(
            "jwt_svid_minted",
            spiffe_id=str(spiffe_id),
            audience=list(audience),
            jti=svid.claims["jti"],
            expires_at=svid.claims["exp"],
            **call.by,
        )
        message = types.JWTSVID(
            token=svid.token,
            id=convert.spiffe_id_message(spiffe_id),
            expires_at=svid.claims["exp"],
            issued_at=svid.claims["iat"],
        )
        return pb.MintJWTSVIDResponse(svid=message)

    def _read_csr(self, der: bytes) -> tuple[SpiffeId, ec.EllipticCurvePublicKey | rsa.RSAPublicKey, tuple[str, ...]]:
        try:
            csr = x509.load_der_x509_csr(der)
            key = csr.public_key()
            names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            raise InvalidInput("CSR URI SAN is required") from None
        except Exception as error:
            raise InvalidInput("malformed CSR", detail=str(error)) from error
        with told_as(InvalidInput, "CSR's key is not accepted"):
            accepted = check_key(key)  # before anything is computed with it
        if not csr.is_signature_valid:
            raise InvalidInput("failed to verify CSR signature")
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1:
            raise InvalidInput("only one URI SAN is expected" if uris else "CSR URI SAN is required")
        with told_as(InvalidInput, "CSR URI SAN is invalid"):
            spiffe_id = SpiffeId.parse(uris[0])
            spiffe_id.check_workload_of(self._trust_domain)
        dns_names = tuple(names.get_values_for_type(x509.DNSName))
        with told_as(InvalidInput, "CSR DNS name is not valid"):
            check_dns_names(dns_names)
        return spiffe_id, accepted, dns_names


def _ttl(seconds: int, default: timedelta) -> timedelta:
    if not seconds:
        return default
    if not SVID_TTL_MIN_SECONDS <= seconds <= SVID_TTL_MAX_SECONDS:
        raise InvalidInput(f"ttl is {seconds} s: it must be from {SVID_TTL_MIN_SECONDS} s to {SVID_TTL_MAX_SECONDS} s")
    return timedelta(seconds=seconds)
