"""What the authority asks of a root: to sign the intermediates that sign leaves, and lists in the root's own name.

A root may be a file, which answers at once, or something that is slow, fails or is away: hardware, another process, a
certificate authority elsewhere. Nothing that a caller waits for may wait for it.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.authority.x509_profile import authority_request
from sojourn.spiffe.ids import TrustDomain


@dataclass(frozen=True)
class IntermediateRequest:
    """An intermediate that is wanted. `ttl`: the life that it is to have, or less.

    `root_id`: the authority ID of the root that is to sign it; empty: of the one that signs now.
    """

    trust_domain: TrustDomain
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    ttl: timedelta
    root_id: str = ""

    @cached_property
    def csr(self) -> x509.CertificateSigningRequest:
        """The request as PKCS#10, with all extensions that the certificate is to have."""
        return authority_request(self.trust_domain, self.key)


@dataclass(frozen=True)
class SignedIntermediate:
    """What a root gave. `chain`: the intermediate, then what stands between it and the root, without the root.

    `roots`: the certificates of the roots that it may chain to; none: those of the authority itself. `unlimited`:
    whether the intermediate may lack a path length, as whoever signed it sets none. `revokes`: see `Standing`.
    """

    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...] = ()
    unlimited: bool = False
    revokes: bool = False


class RootSigner(Protocol):
    """Signs in a root's name. What it signed at one time it need not be able to sign at another."""

    def at_once(self, asked: IntermediateRequest) -> SignedIntermediate | None:
        """The answer of a root that keeps nobody waiting; None: it has to be waited for."""

    async def sign(self, asked: IntermediateRequest) -> SignedIntermediate:
        """The same by waiting for it. It is given up after ROOT_SECONDS, and asked again with the same request.

        Raise what operators are to be told.
        """

    def stands(self, chain: tuple[x509.Certificate, ...]) -> bool:
        """Whether an intermediate is of what signs now: if not, another is asked for, though it may live on."""

    def list_at_once(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes | None:
        """A DER CRL in the name of a root that is trusted; None: it has to be waited for."""

    async def sign_list(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes:
        """The same by waiting for it."""

    async def sign_test(self, root_id: str, nonce: bytes) -> bytes:
        """What `Signer.sign_test` does, by the key of a root that is trusted. Raise what operators are to be told."""
