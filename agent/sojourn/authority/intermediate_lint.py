"""What an upstream authority gives is looked at before it counts: whatever is wrong with it, it signs nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.authority.root_signer import IntermediateRequest, SignedIntermediate
from sojourn.authority.x509_profile import Signer, key_id
from sojourn.errors import InvalidSvid, SojournError, UpstreamNotGood
from sojourn.limits import UPSTREAM_CHAIN, UPSTREAM_ROOTS
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import CHAIN_MAX_CERTIFICATES, check_authority, verify_chain

Extension = TypeVar("Extension", bound=x509.ExtensionType)
LIVES: Final = 2  # so many of the longest SVID's an intermediate has to have before it


def check_signed(
    asked: IntermediateRequest, signed: SignedIntermediate, now: datetime, longest: timedelta
) -> SignedIntermediate:
    """Return what was signed: each certificate of the chain once, without the root. Raise UpstreamNotGood.

    `longest`: the longest life of SVIDs that are to be signed by it.
    """
    trust_domain = asked.trust_domain
    _check_count(signed.chain, UPSTREAM_CHAIN, "the chain")
    check_roots(signed.roots, trust_domain, now)
    chain = tuple(dict.fromkeys(each for each in signed.chain if each not in signed.roots))  # some tell one twice
    if not chain:
        raise UpstreamNotGood("there is no intermediate in what came back")
    if len(chain) > CHAIN_MAX_CERTIFICATES - 1:
        raise UpstreamNotGood(f"the chain is longer than {CHAIN_MAX_CERTIFICATES - 1} certificates")
    if chain[0].public_key() != asked.key.public_key():
        raise UpstreamNotGood("the intermediate is for another key than was asked for")
    _check_intermediate(chain[0], trust_domain, unlimited=signed.unlimited)
    for each in chain:
        _check_identifiers(each)
        _check_name_constraints(each, trust_domain)
        _check_life(each, now, longest)
    _check_verifies(chain, signed.roots, asked, now)
    top = chain[-1].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    for root in signed.roots:
        if bytes.fromhex(key_id(root)) == top:
            _check_name_constraints(root, trust_domain)
            _check_life(root, now, longest)
            return replace(signed, chain=chain, roots=tuple(signed.roots))
    raise UpstreamNotGood(
        "the chain does not name its root: the last certificate's authority key identifier is no root's"
    )


def check_roots(roots: Sequence[x509.Certificate], trust_domain: TrustDomain, now: datetime) -> None:
    """Raise UpstreamNotGood unless these can be roots of the bundle."""
    if not roots:
        raise UpstreamNotGood("there is no root certificate in what came back")
    _check_count(roots, UPSTREAM_ROOTS, "the roots")
    for each in roots:
        name = each.subject.rfc4514_string() or "without a name"
        if each.issuer != each.subject:
            raise UpstreamNotGood(f"the root {name!r} is not self-signed: its issuer is another")
        _checked_authority(each, trust_domain, f"the root {name!r}")
        if _extension(each, x509.SubjectKeyIdentifier) is None:
            raise UpstreamNotGood(f"the root {name!r} has no subject key identifier (RFC 5280, 4.2.1.2)")
        if not each.not_valid_before_utc <= now < each.not_valid_after_utc:
            raise UpstreamNotGood(f"the root {name!r} is not valid now: {_span(each)}")


def _check_count(certificates: Sequence[x509.Certificate], most: int, what: str) -> None:
    if len(certificates) > most:
        raise UpstreamNotGood(f"{what} in what came back are {len(certificates)} certificates: the most is {most}")


def _check_intermediate(certificate: x509.Certificate, trust_domain: TrustDomain, *, unlimited: bool) -> None:
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        raise UpstreamNotGood("the intermediate is no CA: its basic constraints lack cA")
    if constraints.value.path_length != 0 and not (unlimited and constraints.value.path_length is None):
        raise UpstreamNotGood("the intermediate's path length is not 0: others could stand below it")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None or not usage.value.key_cert_sign:
        raise UpstreamNotGood("the intermediate's key usage lacks keyCertSign")
    if not usage.critical:
        raise UpstreamNotGood("the intermediate's key usage is not critical (X509-SVID.md, 4.3)")
    _checked_authority(certificate, trust_domain, "the intermediate")


def _checked_authority(certificate: x509.Certificate, trust_domain: TrustDomain, what: str) -> None:
    try:
        check_authority(certificate, trust_domain)
    except SojournError as error:
        raise UpstreamNotGood(f"{what} is not good: {error.public}", detail=error.detail) from error


def _check_identifiers(certificate: x509.Certificate) -> None:
    """Leaves and lists name what signed them by its key (RFC 5280, 4.2.1.1 and 4.2.1.2)."""
    named = _extension(certificate, x509.AuthorityKeyIdentifier)
    if _extension(certificate, x509.SubjectKeyIdentifier) is None or named is None or not named.value.key_identifier:
        raise UpstreamNotGood("a certificate of the chain lacks the key identifier of its own key, or of its issuer's")


def _check_life(certificate: x509.Certificate, now: datetime, longest: timedelta) -> None:
    if certificate.not_valid_before_utc > now:
        raise UpstreamNotGood(
            f"a certificate of the chain is not valid yet ({_span(certificate)}): are the clocks right?"
        )
    if certificate.not_valid_after_utc < now + LIVES * longest:
        raise UpstreamNotGood(
            f"a certificate of the chain ends too early ({_span(certificate)}): it has to live for another"
            f" {LIVES * longest.total_seconds():g} s, twice the life of an X.509-SVID"
        )


def _check_name_constraints(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """Of URIs, those that a SPIFFE ID of the trust domain has to stand within (RFC 5280, 4.2.1.10)."""
    found = _extension(certificate, x509.NameConstraints)
    if found is None:
        return
    permitted, excluded = _hosts(found.value.permitted_subtrees), _hosts(found.value.excluded_subtrees)
    if permitted and not any(_within(trust_domain.name, each) for each in permitted):
        raise UpstreamNotGood(
            f"name constraints of the chain permit URIs of {', '.join(permitted)} alone, and not ours"
        )
    if any(_within(trust_domain.name, each) for each in excluded):
        raise UpstreamNotGood("name constraints of the chain exclude URIs of the trust domain")
    if permitted or excluded:
        raise UpstreamNotGood(
            "the chain has name constraints for URIs: some verifiers, the agent's own among them, take no such chain"
        )


def _hosts(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [each.value for each in subtrees or () if isinstance(each, x509.UniformResourceIdentifier)]


def _within(host: str, constraint: str) -> bool:
    return host.endswith(constraint) if constraint.startswith(".") else host == constraint


def _check_verifies(
    chain: tuple[x509.Certificate, ...],
    roots: Sequence[x509.Certificate],
    asked: IntermediateRequest,
    now: datetime,
) -> None:
    """Have a leaf that nobody gets verified as any verifier would: by that whatever else is wrong is found."""
    leaf = Signer(chain[0], asked.key).sign_leaf(
        SpiffeId.from_parts(asked.trust_domain.name, "/a-test"),
        ec.generate_private_key(asked.key.curve).public_key(),
        not_before=now,
        not_after=chain[0].not_valid_after_utc,
    )
    try:
        verify_chain((leaf, *chain), roots, asked.trust_domain, now)
    except InvalidSvid as error:
        raise UpstreamNotGood(f"what it signs would not verify: {error.public}", detail=error.detail) from error


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> x509.Extension[Extension] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
    except ValueError as error:
        raise UpstreamNotGood("a certificate has unreadable extensions", detail=str(error)) from error


def _span(certificate: x509.Certificate) -> str:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return f"{begins:%Y-%m-%dT%H:%M:%SZ} to {ends:%Y-%m-%dT%H:%M:%SZ}"
