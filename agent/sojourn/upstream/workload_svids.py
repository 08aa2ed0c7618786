"""SVIDs of workloads that a SPIRE server signs for this node, by the entries that it has given it.

The keys are made here and never leave: the server gets certificate requests, and of each the public key counts alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn.errors import InvalidInput, InvalidSvid, NotFound, SojournError, Unavailable, UpstreamUnavailable
from sojourn.identity.entries import Entry
from sojourn.jose.jws import PublicKey
from sojourn.limits import UPSTREAM_BATCH, UPSTREAM_SIGN_SECONDS
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid, verify
from sojourn.spiffe.x509svid import X509Svid
from sojourn.upstream.connection import ServerConnection
from sojourn.upstream.node_attestation import read_svid

X509: Final = "/spire.api.server.svid.v1.SVID/BatchNewX509SVID"
JWT: Final = "/spire.api.server.svid.v1.SVID/NewJWTSVID"
_OK, _NOT_FOUND, _INVALID = 0, 5, 3  # gRPC's statuses
Signed = X509Svid | SojournError


async def sign_x509(
    server: ServerConnection, entries: Sequence[Entry], bundle: Bundle, now: datetime, curve: ec.EllipticCurve
) -> list[Signed]:
    """An X.509-SVID of each entry, each with a new key, in their order; or why there is none.

    At most UPSTREAM_BATCH entries (InvalidInput). Raise what a call raises: then there is none of any.
    """
    if not 0 < len(entries) <= UPSTREAM_BATCH:
        raise InvalidInput(f"{len(entries)} entries: at most {UPSTREAM_BATCH} are signed for at once, and one at least")
    keys, request = await asyncio.to_thread(_requests, entries, curve)
    answer = await server.unary(X509, request, pb.BatchNewX509SvidResponse, UPSTREAM_SIGN_SECONDS)
    if len(answer.results) != len(entries):
        raise UpstreamUnavailable(f"the SPIRE server answers {len(answer.results)} of {len(entries)} requests")
    parts = list(zip(answer.results, entries, keys, strict=True))
    return await asyncio.to_thread(lambda: [_signed(*each, bundle, now) for each in parts])


def _requests(
    entries: Sequence[Entry], curve: ec.EllipticCurve
) -> tuple[list[ec.EllipticCurvePrivateKey], pb.BatchNewX509SvidRequest]:
    """A new key for each entry, and what the server is asked to sign."""
    keys = [ec.generate_private_key(curve) for _ in entries]
    params = [
        pb.NewX509SvidParams(entry_id=entry.id, csr=_csr(entry.spiffe_id, key))
        for entry, key in zip(entries, keys, strict=True)
    ]
    return keys, pb.BatchNewX509SvidRequest(params=params)


async def sign_jwt(
    server: ServerConnection, entry: Entry, audience: Sequence[str], keys: Mapping[str, PublicKey], now: datetime
) -> VerifiedJwtSvid:
    """A JWT-SVID of an entry, verified by the keys of its trust domain. Raise what a call raises, and InvalidToken."""
    request = pb.NewJwtSvidRequest(entry_id=entry.id, audience=audience)
    answer = await server.unary(JWT, request, pb.NewJwtSvidResponse, UPSTREAM_SIGN_SECONDS)
    svid = verify(answer.svid.token, audience, {entry.spiffe_id.trust_domain: keys}, now)
    if svid.spiffe_id != entry.spiffe_id or set(svid.audience) != set(audience):
        raise InvalidSvid(
            f"the SPIRE server gives the JWT-SVID of {str(svid.spiffe_id)!r} for {str(entry.spiffe_id)!r}"
        )
    return svid


def _csr(spiffe_id: SpiffeId, key: ec.EllipticCurvePrivateKey) -> bytes:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    digest = hashes.SHA384() if isinstance(key.curve, ec.SECP384R1) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.DER)


def _signed(
    result: pb.BatchNewX509SvidResponse.Result,
    entry: Entry,
    key: ec.EllipticCurvePrivateKey,
    bundle: Bundle,
    now: datetime,
) -> Signed:
    said = f"the SPIRE server signs nothing for entry {entry.id!r}: {result.status.message[:500]}"
    if result.status.code != _OK:
        kinds = {_NOT_FOUND: NotFound, _INVALID: InvalidInput}
        return kinds.get(result.status.code, Unavailable)(said)
    try:
        svid = read_svid(result.svid, key, bundle, now)
    except InvalidSvid as error:
        return InvalidSvid(f"what the SPIRE server has signed for entry {entry.id!r} is no SVID: {error.public}")
    if svid.spiffe_id != entry.spiffe_id:
        return InvalidSvid(f"the SPIRE server gives {str(svid.spiffe_id)!r} for entry {entry.id!r}")
    return svid
