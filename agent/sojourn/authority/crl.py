"""Lists of revoked X.509-SVIDs (RFC 5280, 5), for those whose verifiers read them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
    roots: Collection[str],
    now: datetime,
    by_root: Callable[[str, Sequence[int], x509.CertificateRevocationListBuilder], bytes | None],
) -> tuple[bytes, ...]:
    """Sign DER CRLs, one for each signer. `roots`: the authority IDs of those that are trusted.

    `by_root` gives the list of a root: of these serial numbers, or an earlier one while that is not signed.

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
    lists = [
        issuers[signer]
        .sign_crl(_builder([(leaf.serial, leaf.revoked_at, None) for leaf in leaves], now))
        .public_bytes(Encoding.DER)
        for signer, leaves in direct.items()
    ]
    for signer, leaves in indirect.items():
        names = {leaf.issuer_id: issuer_name(trust_domain, bytes.fromhex(leaf.issuer_id)) for leaf in leaves}
        builder = indirect_list([(leaf.serial, leaf.revoked_at, names[leaf.issuer_id]) for leaf in leaves], now)
        signed = by_root(signer, [leaf.serial for leaf in leaves], builder)
        lists += [signed] if signed is not None else []
    return tuple(lists)


_INDIRECT = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=True,
    only_contains_attribute_certs=False,
)


def indirect_list(
    leaves: Iterable[tuple[int, datetime, x509.Name]], now: datetime
) -> x509.CertificateRevocationListBuilder:
    """A list in a root's name: of serial numbers, when each was revoked, and the name of the intermediate it is by."""
    return _builder(leaves, now).add_extension(_INDIRECT, critical=True)


def _builder(
    leaves: Iterable[tuple[int, datetime, x509.Name | None]], now: datetime
) -> x509.CertificateRevocationListBuilder:
    number = int(now.timestamp() * 1000)  # grows with time, as CRL numbers must
    builder = (
        x509.CertificateRevocationListBuilder()
        .last_update(now)
        .next_update(now + CRL_LIFE)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, revoked_at, issuer in leaves:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(revoked_at)
        if issuer is not None:
            entry = entry.add_extension(x509.CertificateIssuer([x509.DirectoryName(issuer)]), critical=True)
        builder = builder.add_revoked_certificate(entry.build())
    return builder
