"""Lists of revoked X.509-SVIDs (RFC 5280, 5), for those whose verifiers read them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.authority.x509_profile import Signer, issuer_name
from sojourn.spiffe.ids import TrustDomain

CRL_LIFE = timedelta(days=7)  # no SVID lives longer, and a new one is made with every change


@dataclass(frozen=True, slots=True)
class RevokedLeaf:
    """A leaf that is revoked. `issuer_id` and `root_id`: hex subject key identifiers of what signed it, and of that."""

    serial: int
    issuer_id: str
    root_id: str
    revoked_at: datetime


def sign(
    revoked: Iterable[RevokedLeaf],
    trust_domain: TrustDomain,
    issuers: Mapping[str, Signer],
    roots: Mapping[str, Signer],
    now: datetime,
) -> tuple[bytes, ...]:
    """Sign DER CRLs, one for each signer.

    A leaf stands in a list of its own intermediate. Intermediates live in memory only: of one that was lost by a
    restart, the leaf stands in an indirect list of its root (RFC 5280, 5.2.5), which not every verifier reads; without
    that root nothing verifies it.
    """
    direct: dict[str, list[RevokedLeaf]] = {}
    indirect: dict[str, list[RevokedLeaf]] = {}
    for leaf in sorted(revoked, key=lambda leaf: leaf.serial):
        if leaf.issuer_id in issuers:
            direct.setdefault(leaf.issuer_id, []).append(leaf)
        elif leaf.root_id in roots:
            indirect.setdefault(leaf.root_id, []).append(leaf)
    lists = [issuers[signer].sign_crl(_builder(leaves, now)) for signer, leaves in direct.items()]
    for signer, leaves in indirect.items():
        builder = _builder(leaves, now, trust_domain).add_extension(_INDIRECT, critical=True)
        lists.append(roots[signer].sign_crl(builder))
    return tuple(each.public_bytes(Encoding.DER) for each in lists)


_INDIRECT = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=True,
    only_contains_attribute_certs=False,
)


def _builder(
    leaves: Iterable[RevokedLeaf], now: datetime, named_in: TrustDomain | None = None
) -> x509.CertificateRevocationListBuilder:
    number = int(now.timestamp() * 1000)  # grows with time, as CRL numbers must
    builder = (
        x509.CertificateRevocationListBuilder()
        .last_update(now)
        .next_update(now + CRL_LIFE)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for leaf in leaves:
        entry = x509.RevokedCertificateBuilder().serial_number(leaf.serial).revocation_date(leaf.revoked_at)
        if named_in is not None:
            name = issuer_name(named_in, bytes.fromhex(leaf.issuer_id))
            entry = entry.add_extension(x509.CertificateIssuer([x509.DirectoryName(name)]), critical=True)
        builder = builder.add_revoked_certificate(entry.build())
    return builder
