"""What signs SVIDs of entries: an authority of our own at once; whoever else is asked answers later, or not at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.identity.entries import Entry
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.spiffe.witsvid import WitSvid
from sojourn.spiffe.x509svid import X509Svid


class Svid(Protocol):
    """What is the same in X.509- and WIT-SVIDs."""

    @property
    def serial(self) -> str: ...
    @property
    def not_before(self) -> datetime: ...
    @property
    def not_after(self) -> datetime: ...


Kind = TypeVar("Kind", bound=Svid)


class Signer(Protocol[Kind]):
    """Signs SVIDs with keys of one kind."""

    def at_once(self, entry: Entry) -> Kind | None:
        """An SVID of an entry, signed in a moment in which nothing else is done; None: it has to be waited for."""

    async def sign(self, entry: Entry) -> Kind:
        """The same by waiting for it. It is given up after SIGNATURE_SECONDS, or when nobody may have it any more.

        Raise what callers are to be told, best of all Unavailable.
        """

    def vouches(self, svid: Kind) -> bool:
        """Whether what was waited for may be given out still: its authority may have been tainted, or gone, since."""


class JwtSigner(Protocol):
    """Signs JWT-SVIDs, as a `Signer` does its own."""

    def at_once(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid | None: ...
    async def sign(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid: ...
    def vouches(self, svid: VerifiedJwtSvid) -> bool: ...


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a JWT-SVID for an outside token endpoint is to say. `claims`: more, none of a JWT-SVID's own."""

    spiffe_id: SpiffeId
    audience: str
    ttl: timedelta
    issuer: str
    algorithm: Literal["ES256", "RS256"] = "ES256"
    claims: Mapping[str, Any] | None = None


class AssertionSigner(Protocol):
    """Signs JWT-SVIDs for outside token endpoints: each is new, and none is kept."""

    def at_once(self, asked: Assertion) -> VerifiedJwtSvid | None:
        """None: it has to be waited for. Raise Unavailable if there is no key for it."""

    async def sign(self, asked: Assertion) -> VerifiedJwtSvid:
        """The same by waiting for it."""


@dataclass(frozen=True, slots=True)
class MintedLeaf:
    """An X.509-SVID that an operator asks for by name, for a key of the operator's own."""

    spiffe_id: SpiffeId
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    ttl: timedelta
    dns_names: Sequence[str]


class MintingSigner(Protocol):
    """Signs what operators ask for by name."""

    async def sign_x509(self, asked: MintedLeaf) -> tuple[x509.Certificate, ...]:
        """The chain, leaf first."""

    async def sign_jwt(self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: timedelta) -> VerifiedJwtSvid: ...


class X509Issuer(Protocol):
    """An authority that signs X.509-SVIDs at once."""

    def issue_x509(
        self, spiffe_id: SpiffeId, ttl: timedelta, dns_names: Sequence[str] = (), entry_id: str = ""
    ) -> X509Svid: ...


class WitIssuer(Protocol):
    """An authority that signs WIT-SVIDs at once."""

    def issue_wit(self, spiffe_id: SpiffeId, ttl: timedelta, entry_id: str = "") -> WitSvid: ...


class JwtIssuer(Protocol):
    """An authority that signs JWT-SVIDs at once."""

    def issue_jwt(
        self,
        spiffe_id: SpiffeId,
        audience: Sequence[str],
        ttl: timedelta,
        claims: Mapping[str, Any] | None = None,
        entry_id: str = "",
    ) -> VerifiedJwtSvid: ...


class SignerAtOnce(Generic[Kind]):
    """Signs by an authority that keeps nobody waiting."""

    def __init__(self, issue: Callable[[Entry], Kind]) -> None:
        self.at_once = issue

    async def sign(self, entry: Entry) -> Kind:
        return self.at_once(entry)

    def vouches(self, _svid: Kind) -> bool:
        return True


class JwtSignerAtOnce:
    """The same for JWT-SVIDs, for so long if an entry names no TTL."""

    def __init__(self, issuer: JwtIssuer, default_ttl: timedelta) -> None:
        self._issuer = issuer
        self._default_ttl = default_ttl

    def at_once(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        ttl = timedelta(seconds=entry.jwt_svid_ttl) or self._default_ttl
        return self._issuer.issue_jwt(entry.spiffe_id, audience, ttl, entry.jwt_claims.signable, entry.id)

    async def sign(self, entry: Entry, audience: Sequence[str]) -> VerifiedJwtSvid:
        return self.at_once(entry, audience)

    def vouches(self, _svid: VerifiedJwtSvid) -> bool:
        return True


class AssertionSignerAtOnce:
    """Signs them by the embedded authority."""

    def __init__(self, authority: EmbeddedAuthority) -> None:
        self._authority = authority

    def at_once(self, asked: Assertion) -> VerifiedJwtSvid:
        return self._authority.issue_assertion(
            asked.spiffe_id,
            asked.audience,
            asked.ttl,
            issuer=asked.issuer,
            algorithm=asked.algorithm,
            claims=asked.claims,
        )

    async def sign(self, asked: Assertion) -> VerifiedJwtSvid:
        return self.at_once(asked)


class MintingSignerAtOnce:
    """Signs by the embedded authority what operators ask for."""

    def __init__(self, authority: EmbeddedAuthority) -> None:
        self._authority = authority

    async def sign_x509(self, asked: MintedLeaf) -> tuple[x509.Certificate, ...]:
        return self._authority.sign_x509(asked.spiffe_id, asked.public_key, asked.ttl, asked.dns_names)

    async def sign_jwt(self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: timedelta) -> VerifiedJwtSvid:
        return self._authority.issue_jwt(spiffe_id, audience, ttl)


def x509_signer(issuer: X509Issuer, default_ttl: timedelta) -> Signer[X509Svid]:
    """Makes X.509-SVIDs of entries, for so long if they name no TTL."""
    return SignerAtOnce(
        lambda entry: issuer.issue_x509(
            entry.spiffe_id, timedelta(seconds=entry.x509_svid_ttl) or default_ttl, entry.dns_names, entry.id
        )
    )


def wit_signer(issuer: WitIssuer, default_ttl: timedelta) -> Signer[WitSvid]:
    """Makes WIT-SVIDs of entries, which live as long as JWT-SVIDs do."""
    return SignerAtOnce(
        lambda entry: issuer.issue_wit(entry.spiffe_id, timedelta(seconds=entry.jwt_svid_ttl) or default_ttl, entry.id)
    )
