"""What the status tells of the authority: what signs, up to the root, where its keys are, and what is upstream."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from cryptography import x509

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.authority.key_steps import X509
from sojourn.authority.x509_profile import key_id
from sojourn.endpoints.api.workload import seconds
from sojourn.endpoints.metrics.authority import SigningKeys
from sojourn.endpoints.spire.localauthority import key_message
from sojourn.jose.jws import PublicKey

UNUSED = "unused"


class SigningAuthority(SigningKeys, Protocol):
    """What is told of whatever signs."""

    @property
    def kind(self) -> str: ...

    @property
    def jwt_keys(self) -> Mapping[str, PublicKey]: ...


def authority_message(authority: SigningAuthority) -> pb.Authority:
    issuer, root = authority.issuer, authority.root
    message = pb.Authority(
        kind=authority.kind,
        root_serial="" if root is None else f"{root.serial_number:x}",
        root_not_after=0 if root is None else seconds(root.not_valid_after_utc),
        issuer_serial="" if issuer is None else f"{issuer.serial_number:x}",
        issuer_not_after=0 if issuer is None else seconds(issuer.not_valid_after_utc),
        jwt_key_ids=list(authority.jwt_keys),
    )
    if isinstance(authority, EmbeddedAuthority):  # of any other the server tells
        message.keys.extend(_keys(authority))
        message.chain.extend(_chain(authority))
        message.roots.extend(_roots(authority))
        message.fault = authority.fault
        if (upstream := _upstream(authority)) is not None:
            message.upstream.CopyFrom(upstream)
    return message


def _keys(authority: EmbeddedAuthority) -> Iterator[pb.AuthorityKey]:
    for kind in authority.kinds:
        for slot in authority.slots(kind).all:
            message = key_message(kind, slot)
            if kind == X509 and authority.upstream is not None:
                message.status = UNUSED
            yield message


def _chain(authority: EmbeddedAuthority) -> Iterator[pb.ChainCertificate]:
    chain, root = authority.whole_chain, authority.root
    for place, each in enumerate(chain):
        role = "root" if each is root else "upstream" if place else "intermediate"
        yield pb.ChainCertificate(
            role=role,
            authority_id=key_id(each),
            serial=f"{each.serial_number:x}",
            subject=each.subject.rfc4514_string(),
            not_after=seconds(each.not_valid_after_utc),
            key=authority.key_place(each) if role != "upstream" else _above(authority),
        )


def _above(authority: EmbeddedAuthority) -> str:
    upstream = authority.upstream_root
    return "" if upstream is None else f"upstream authority ({upstream.upstream.kind})"


def _roots(authority: EmbeddedAuthority) -> Iterator[pb.BundleRoot]:
    own = {slot.key.certificate for slot in authority.slots(X509).all}
    below, signs = authority.below, authority.root
    needed = {} if below is None else {each.certificate: each for each in below.trust.all}
    for each in authority.bundle.x509_authorities:
        known = needed.get(each)
        until = 0 if known is None or known.given or each == signs else seconds(known.until)
        tainted = known is not None and known.tainted
        yield _root(each, own=each in own, signs=each == signs, until=until, tainted=tainted)


def _root(certificate: x509.Certificate, *, own: bool, signs: bool, until: int, tainted: bool) -> pb.BundleRoot:
    return pb.BundleRoot(
        authority_id=key_id(certificate),
        subject=certificate.subject.rfc4514_string(),
        not_after=seconds(certificate.not_valid_after_utc),
        own=own,
        signs=signs,
        needed_until=until,
        tainted=tainted,
    )


def _upstream(authority: EmbeddedAuthority) -> pb.UpstreamAuthority | None:
    root = authority.upstream_root
    if root is None:
        return None
    health, due, follows = root.health, authority.issuers.next_change, authority.issuers.following is not None
    return pb.UpstreamAuthority(
        kind=root.upstream.kind,
        place=dict(root.upstream.describe()),
        answered_at=0 if health.last_success is None else seconds(health.last_success),
        since=0 if health.failing_since is None else seconds(health.failing_since),
        fault=health.fault,
        code=health.code,
        renewal_at=0 if due is None or follows else seconds(due),
        follows_at=0 if due is None or not follows else seconds(due),
    )
