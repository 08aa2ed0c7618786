"""The SVIDs of entries, of every kind: issued, kept while they are in use, replaced, and recorded."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from sojourn.audit.journal import Audit
from sojourn.authority.x509_profile import known_key_id, known_signer_id
from sojourn.identity.entries import Entry, IdentityKey
from sojourn.identity.issued_svids import JWT, WIT, X509, IssuedSvid
from sojourn.identity.jwt_svid_cache import JwtSvids
from sojourn.identity.revocation_list import RevokedSvid
from sojourn.identity.svid_rotation import Svids
from sojourn.identity.svid_signers import (
    JwtIssuer,
    JwtSigner,
    JwtSignerAtOnce,
    Signer,
    WitIssuer,
    X509Issuer,
    wit_signer,
    x509_signer,
)
from sojourn.identity.trust import TrustSource
from sojourn.runtime.clock import Alarms, Clock
from sojourn.spiffe.witsvid import WitSvid
from sojourn.spiffe.x509svid import X509Svid


class IssuingAuthority(TrustSource, Protocol):
    """By which authority of the bundle an SVID is good."""

    def root_of(self, svid: X509Svid) -> str:
        """The authority ID of the root that an X.509-SVID chains to."""


class AuthorityAtOnce(X509Issuer, JwtIssuer, WitIssuer, Protocol):
    """One that signs SVIDs of every kind at once."""


@dataclass(frozen=True, slots=True)
class Signers:
    """What signs SVIDs of entries, by their kind."""

    x509: Signer[X509Svid]
    jwt: JwtSigner
    wit: Signer[WitSvid]

    @classmethod
    def at_once(cls, authority: AuthorityAtOnce, x509_ttl: timedelta, jwt_ttl: timedelta) -> "Signers":
        """An authority of our own. The TTLs (`jwt_ttl` of WIT-SVIDs too) are for entries that name none."""
        return cls(
            x509_signer(authority, x509_ttl), JwtSignerAtOnce(authority, jwt_ttl), wit_signer(authority, jwt_ttl)
        )


class SvidIssuer:
    """What is signed for entries."""

    def __init__(
        self,
        authority: IssuingAuthority,
        signers: Signers,
        clock: Clock,
        alarms: Alarms,
        audit: Audit,
        *,
        jwt_each_anew: Collection[str] = (),
        renew_at: float = 0.5,
    ) -> None:
        """`signers` sign by `authority`. `jwt_each_anew`: audiences that take a JWT-SVID once. `renew_at`: the share of
        its life after which an X.509-SVID is renewed.
        """
        self._authority = authority
        self._audit = audit
        self.signers = signers
        self.x509 = Svids(signers.x509, clock, alarms, self._x509_issued, renew_at=renew_at)
        self.wit = Svids(signers.wit, clock, alarms, self._wit_issued)
        self.jwt = JwtSvids(signers.jwt, clock, jwt_each_anew)
        self._vouching = self._unblemished()
        authority.on_change(self._keys_changed)

    def on_rotation(self, hook: Callable[[IdentityKey], None]) -> None:
        """Call `hook` with an identity when it has a new SVID. Hooks neither block nor raise."""
        self.x509.on_rotation(hook)
        self.wit.on_rotation(hook)

    def watch(self, key: IdentityKey) -> None:
        """Renew an identity's SVIDs in time, until `unwatch` was called as often."""
        self.x509.watch(key)
        self.wit.watch(key)

    def unwatch(self, key: IdentityKey) -> None:
        self.x509.unwatch(key)
        self.wit.unwatch(key)

    def check_clock(self) -> None:
        """The wall clock was set: what is not good by it is renewed."""
        self.jwt.forget()
        self.x509.check_clock()
        self.wit.check_clock()

    def forget(self, key: IdentityKey) -> None:
        """Drop the keys of an identity, so that it gets others."""
        self.x509.forget(key)
        self.wit.forget(key)

    def forget_entry(self, entry_id: str) -> None:
        """Drop the SVIDs of an entry that has changed or is gone."""
        self.jwt.forget_entry(entry_id)
        self.x509.forget_entry(entry_id)
        self.wit.forget_entry(entry_id)

    def _unblemished(self) -> frozenset[str]:
        """The JWT keys by whose signature a token is good, and stays so."""
        bundle = self._authority.bundle
        return frozenset(bundle.jwt_authorities.keys() - bundle.tainted)

    def _keys_changed(self) -> None:
        """Drop JWT-SVIDs if a key is tainted, revoked or has ended: what it signed is not served again."""
        before, self._vouching = self._vouching, self._unblemished()
        if not before <= self._vouching:
            self.jwt.forget()

    def forget_identity(self, which: Callable[[IdentityKey], bool]) -> tuple[list[IssuedSvid], list[IdentityKey]]:
        """Drop all that some identities have. Return their X.509-SVIDs that were in use, and which had any SVID."""
        self.jwt.forget_some(which)
        self.x509.give_up(which)
        self.wit.give_up(which)
        found = [kept for kept in self.x509.kept() if which(kept.entry.key)]
        keys = [each.entry.key for each in found]
        keys += [kept.entry.key for kept in self.wit.kept() if which(kept.entry.key)]
        keys = list(dict.fromkeys(keys))
        for key in keys:
            self.forget(key)
        return [self._issued_of(kept.entry, kept.svid) for kept in found], keys

    def forget_revoked(self, revoked: Sequence[RevokedSvid]) -> None:
        """Drop the JWT-SVIDs of those whose SVIDs are revoked, so that none of these is served again."""
        named = {(each.svid.entry_id, each.svid.spiffe_id) for each in revoked}
        self.jwt.forget_some(lambda key: (key.entry_id, str(key.spiffe_id)) in named)

    async def rotate(self, which: Callable[[IdentityKey], bool]) -> int:
        """Replace the SVIDs of these identities now. Return how many X.509-SVIDs were in use."""
        self.jwt.forget_some(which)
        await self.wit.reissue(lambda kept: which(kept.entry.key))
        return await self.x509.reissue(lambda kept: which(kept.entry.key))

    async def replace_signed_by(self, kind: str, authority_id: str) -> None:
        """Replace all that this authority signed: when this returns, nothing of it is served any more."""
        if kind == X509:
            await self.x509.reissue(lambda kept: self._authority.root_of(kept.svid) == authority_id)
        elif kind == WIT:
            await self.wit.reissue(lambda kept: kept.svid.kid == authority_id)
        elif kind == JWT:
            self.jwt.forget()

    def _issued_of(self, entry: Entry, svid: X509Svid) -> IssuedSvid:
        told = known_key_id(svid.chain[1]) if len(svid.chain) > 1 else ""
        return IssuedSvid(
            X509,
            svid.serial,
            str(svid.spiffe_id),
            entry.id,
            int(svid.not_after.timestamp()),
            told or known_signer_id(svid.leaf),
            self._authority.root_of(svid),
        )

    def _x509_issued(self, entry: Entry, svid: X509Svid) -> None:
        issued = self._issued_of(entry, svid)
        self._audit.note(
            "x509_svid_issued",
            entry_id=issued.entry_id,
            spiffe_id=issued.spiffe_id,
            serial=issued.id,
            expires_at=issued.expires_at,
            issuer_id=issued.issuer_id,
            root_id=issued.root_id,
        )

    def _wit_issued(self, entry: Entry, svid: WitSvid) -> None:
        self._audit.note(
            "wit_svid_issued",
            entry_id=entry.id,
            spiffe_id=str(svid.spiffe_id),
            jti=svid.serial,
            expires_at=int(svid.not_after.timestamp()),
        )
