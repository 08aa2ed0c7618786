"""The `embedded` authority: our own certificate authority, in two tiers, and our JWT keys.

On disk, in the folder `keys` (0700): `root.pem`, the root certificates and their keys, `jwt.pem`, the JWT keys, and
`jwt-rs256.pem`, those for RS256. In memory only: the intermediate, which signs the leaves and is made anew at each
start and at half of its life.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sojourn.authority import crl, key_files, svid_stamps
from sojourn.authority.bundle_sequence import BundleSequence
from sojourn.authority.crl import RevokedLeaf
from sojourn.authority.jwt_keys import JwtKeys, RsaKeys
from sojourn.authority.key_rotation import Slot, Slots
from sojourn.authority.roots import Roots
from sojourn.authority.x509_profile import Signer, signer_id
from sojourn.errors import Bug, CannotStart, InvalidSpiffeId, Unavailable, Unimplemented
from sojourn.jose.jws import PublicKey
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS, SPIFFE_IDS_SIGNED_KEPT
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe import jwtsvid, witsvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.spiffe.witsvid import WitSvid
from sojourn.spiffe.x509svid import X509Svid

REFRESH_HINT_SECONDS = 300
X509, JWT, RS256, WIT = "x509", "jwt", "jwt-rs256", "wit"
_SWITCHED_OFF = {
    RS256: "keys for RS256 are switched off: set authority.rs256 in the agent's configuration",
    WIT: "WIT-SVIDs are switched off: set identity.wit_svids in the agent's configuration",
}


class EmbeddedAuthority:
    """Signs X.509-SVIDs and JWT-SVIDs of one trust domain."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        folder: Path,
        clock: Clock,
        *,
        curve: ec.EllipticCurve,
        root_ttl: timedelta,
        issuer_ttl: timedelta,
        jwt_key_ttl: timedelta,
        jwt_key_overlap: timedelta | None = None,
        jwt_issuer: str | None = None,
        rs256: bool = False,
        wit: bool = False,
        pool: Executor | None = None,
    ) -> None:
        """Load the keys, or make them if there are none. Raise CannotStart if what lies there cannot be used.

        `curve` is that of new X.509 keys: a root that is there already keeps its own. JWT keys are P-256 (ES256).
        `jwt_key_overlap`: for how long those are published before they sign; by default an hour, or a third of
        `jwt_key_ttl`. `jwt_issuer`: the `iss` of JWT-SVIDs, if they are to have one. With `rs256` there are RSA keys
        (RS256) beside, which a thread of `pool` makes; with `wit` keys for WIT-SVIDs.
        """
        self.trust_domain = trust_domain
        self._clock = clock
        self._curve = curve
        self._issuer_ttl = issuer_ttl
        self.on_change: Hooks[[]] = Hooks()  # of the bundle
        self.order = 0  # what is signed now says it: see `stamps`
        key_files.make_folder(folder)
        if (folder / "jwt.pem").exists() and not (folder / "root.pem").exists():
            raise CannotStart(
                f"there are JWT keys in {str(folder)!r} and no root: restore root.pem, or remove jwt.pem to begin anew"
            )
        self._sequence = BundleSequence(folder / "sequence")
        self._roots = Roots(folder / "root.pem", clock, trust_domain, curve, root_ttl)
        self._jwt_issuer = jwt_issuer
        self._jwt = JwtKeys(folder / "jwt.pem", clock, jwt_key_ttl, jwt_key_overlap)
        self._tokens = {JWT: self._jwt}  # what signs tokens, by its kind
        if rs256:
            self._tokens[RS256] = RsaKeys(folder / "jwt-rs256.pem", clock, jwt_key_ttl, jwt_key_overlap, pool)
        if wit:
            self._tokens[WIT] = JwtKeys(folder / "wit.pem", clock, jwt_key_ttl, jwt_key_overlap)
        self._slots: dict[str, Slots[Any]] = {X509: self._roots, **self._tokens}
        self._issuers: dict[str, Signer] = {}
        self._issuer = self._new_issuer()
        self._bundle = self._make_bundle()

    # --- what it signs ----------------------------------------------------------------------------------------------

    def issue_x509(
        self, spiffe_id: SpiffeId, ttl: timedelta, dns_names: Sequence[str] = (), entry_id: str = ""
    ) -> X509Svid:
        """Make a key and sign an X.509-SVID for it. Its life is `ttl`, or what the issuer has left if that is less."""
        key = ec.generate_private_key(self._curve)
        return X509Svid(spiffe_id, self.sign_x509(spiffe_id, key.public_key(), ttl, dns_names, entry_id), key)

    def sign_x509(
        self,
        spiffe_id: SpiffeId,
        public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        ttl: timedelta,
        dns_names: Sequence[str] = (),
        entry_id: str = "",
    ) -> tuple[x509.Certificate, ...]:
        """Sign a leaf for somebody else's key and return the chain, leaf first."""
        now = self._ready_for(spiffe_id)
        leaf = self._issuer.sign_leaf(
            spiffe_id,
            public_key,
            not_before=now - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS),
            not_after=now + ttl,
            dns_names=dns_names,
            serial=svid_stamps.make_serial(self.order, entry_id),
        )
        return (leaf, self._issuer.certificate)

    def issue_jwt(
        self,
        spiffe_id: SpiffeId,
        audience: Sequence[str],
        ttl: timedelta,
        claims: Mapping[str, Any] | None = None,
        entry_id: str = "",
    ) -> VerifiedJwtSvid:
        """Sign a JWT-SVID. Its life is `ttl`, or what the key has left if that is less.

        `claims`: more, none of a JWT-SVID's own (InvalidInput).
        """
        return self._issue_jwt(self._jwt, spiffe_id, audience, ttl, self._jwt_issuer, claims, entry_id)

    def issue_assertion(
        self,
        spiffe_id: SpiffeId,
        audience: str,
        ttl: timedelta,
        *,
        issuer: str,
        algorithm: Literal["ES256", "RS256"] = "ES256",
        claims: Mapping[str, Any] | None = None,
    ) -> VerifiedJwtSvid:
        """Sign a JWT-SVID for an outside token endpoint: with `iss`, and with `aud` as a string, as those want it.

        `claims`: more, none of a JWT-SVID's own (InvalidInput). Raise Unavailable if there is no key for `algorithm`.
        """
        keys = self._tokens.get(RS256 if algorithm == "RS256" else JWT)
        if keys is None:
            raise Unavailable("there is no key that signs by RS256: set authority.rs256 in the agent's configuration")
        return self._issue_jwt(keys, spiffe_id, audience, ttl, issuer, claims)

    def _issue_jwt(
        self,
        keys: JwtKeys,
        spiffe_id: SpiffeId,
        audience: str | Sequence[str],
        ttl: timedelta,
        issuer: str | None,
        claims: Mapping[str, Any] | None,
        entry_id: str = "",
    ) -> VerifiedJwtSvid:
        now = self._ready_for(spiffe_id)
        ends = min(now + ttl, keys.active.not_after)
        jti = svid_stamps.make_jti(self.order, entry_id, str(spiffe_id))
        return jwtsvid.issue(
            keys.active.key, spiffe_id, audience, issued_at=now, expires_at=ends, issuer=issuer, more=claims, jti=jti
        )

    def issue_wit(self, spiffe_id: SpiffeId, ttl: timedelta, entry_id: str = "") -> WitSvid:
        """Make a key and sign a WIT-SVID for it. Raise Unimplemented if that is switched off."""
        now = self._ready_for(spiffe_id)
        active = self.slots(WIT).active
        jti = svid_stamps.make_jti(self.order, entry_id, str(spiffe_id))
        return witsvid.issue(active.key, spiffe_id, issued_at=now, expires_at=min(now + ttl, active.not_after), jti=jti)

    def sign_crls(self, revoked: Iterable[RevokedLeaf]) -> tuple[bytes, ...]:
        """Sign DER lists of revoked leaves; none if nothing is revoked."""
        roots = {slot.id: slot.key for slot in self._roots.all}
        return crl.sign(revoked, self.trust_domain, self._issuers, roots, self._clock.now())

    def root_of(self, svid: X509Svid) -> str:
        """The authority ID of the root that an X.509-SVID chains to."""
        return signer_id(svid.chain[-1])

    # --- what others check it with ----------------------------------------------------------------------------------

    @property
    def bundle(self) -> Bundle:
        return self._bundle

    @property
    def jwt_keys(self) -> Mapping[str, PublicKey]:
        return self._bundle.jwt_authorities

    @property
    def jwt_algorithms(self) -> tuple[str, ...]:
        """Those by which JWT-SVIDs are signed."""
        return ("ES256", "RS256") if RS256 in self._tokens else ("ES256",)

    @property
    def jwt_key_overlap(self) -> timedelta:
        """For how long a JWT key is published before it signs."""
        return self._jwt.overlap

    @property
    def root(self) -> x509.Certificate:
        """The root that signs intermediates now."""
        return self._roots.active.key.certificate

    @property
    def issuer(self) -> x509.Certificate:
        """The intermediate that signs leaves now."""
        return self._issuer.certificate

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """The intermediates that have signed leaves which may still be good."""
        return tuple(each.certificate for each in self._issuers.values())

    # --- local authorities, as SPIRE has them -----------------------------------------------------------------------

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of keys that there are."""
        return tuple(self._slots)

    def slots(self, kind: str) -> Slots[Any]:
        """The keys of one kind. Raise Unimplemented if this agent has none of it."""
        if kind not in self._slots:
            raise Unimplemented(_SWITCHED_OFF.get(kind, "there are no keys of this kind"))
        return self._slots[kind]

    def prepare(self, kind: str) -> Slot[Any]:
        """Make the next key of a kind and publish it in the bundle."""
        return self._changed(self.slots(kind).prepare())

    def activate(self, kind: str, authority_id: str) -> Slot[Any]:
        """Let the prepared key sign. What the one before has signed stays good, and is replaced in its time."""
        slot = self.slots(kind).activate(authority_id)
        if kind == X509:
            self._issuer = self._new_issuer()
        return self._changed(slot)

    def taint(self, kind: str, authority_id: str) -> Slot[Any]:
        """Mark an old key: what it signed must be replaced."""
        return self._changed(self.slots(kind).taint(authority_id))

    def replace(self, kind: str, authority_id: str) -> Slot[Any]:
        """Taint a key, also the one that signs: then the next one does at once. A root must be old by then."""
        slots = self.slots(kind)
        return self._changed(slots.taint(authority_id) if kind == X509 else slots.replace(authority_id))

    def revoke(self, kind: str, authority_id: str) -> Slot[Any]:
        """Take a tainted key out of the bundle: nothing that it signed verifies any more."""
        return self._changed(self.slots(kind).revoke(authority_id))

    # --- upkeep -----------------------------------------------------------------------------------------------------

    def maintain(self) -> timedelta:
        """Renew what is past half of its life and return how long until the next look is due."""
        now = self._clock.now()
        changed = [slots.maintain() for slots in self._slots.values()]
        certificate = self._issuer.certificate
        if (
            signer_id(certificate) != self._roots.active.id
            or now >= _half_life(certificate)
            or now < certificate.not_valid_before_utc
        ):
            self._issuer = self._new_issuer()
        if any(changed):
            self._publish()
        due = min(_half_life(self._issuer.certificate), *(slots.next_change for slots in self._slots.values()))
        return max(due - now, timedelta(seconds=1))

    def _ready_for(self, spiffe_id: SpiffeId) -> datetime:
        """The time to sign at: what a clock's step, or a long sleep, has left useless before its upkeep is renewed."""
        _check_signable(spiffe_id, self.trust_domain)
        now = self._clock.now()
        issuer = self._issuer.certificate
        ended = any(slots.active.not_after <= now for slots in self._slots.values())
        if ended or not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
            try:
                self.maintain()
            except CannotStart as error:  # the root has ended
                raise Unavailable(error.public) from error
        return now

    def _changed(self, slot: Slot[Any]) -> Slot[Any]:
        self._publish()
        return slot

    def _publish(self) -> None:
        self._bundle = self._make_bundle()
        self.on_change.tell()

    def _make_bundle(self) -> Bundle:
        jwt = {kid: key for kind, keys in self._tokens.items() if kind != WIT for kid, key in keys.public().items()}
        bundle = Bundle(
            self.trust_domain,
            tuple(slot.key.certificate for slot in self._roots.all),
            jwt,
            refresh_hint_seconds=REFRESH_HINT_SECONDS,
            tainted=frozenset().union(*(slots.tainted for slots in self._slots.values())),
            wit_authorities=self._tokens[WIT].public() if WIT in self._tokens else {},
        )
        parts = [bundle.x509_der, bundle.jwks, ",".join(sorted(bundle.tainted)).encode()]
        parts += [bundle.wit_jwks.encode()] if bundle.wit_authorities else []
        content = hashlib.sha256(b"".join(parts)).hexdigest()
        return replace(bundle, sequence=self._sequence.of(content, int(self._clock.now().timestamp())))

    def _new_issuer(self) -> Signer:
        now = self._clock.now()
        root = self._roots.active
        if root.not_after <= now:
            raise CannotStart("the root certificate has expired: is the clock right?")
        key = ec.generate_private_key(self._curve)
        certificate = root.key.sign_authority(
            self.trust_domain,
            key.public_key(),
            now - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS),
            now + self._issuer_ttl,
        )
        issuer = Signer(certificate, key)
        # Those before are kept while they live: they sign the lists of their own leaves that are revoked.
        alive = {name: each for name, each in self._issuers.items() if each.certificate.not_valid_after_utc > now}
        self._issuers = {**alive, issuer.id: issuer}
        return issuer


def _half_life(certificate: x509.Certificate) -> datetime:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life / 2


@lru_cache(SPIFFE_IDS_SIGNED_KEPT)
def _parsed(text: str) -> SpiffeId:
    return SpiffeId.parse(text)


def _check_signable(spiffe_id: SpiffeId, trust_domain: TrustDomain) -> None:
    """Raise Bug for what is no SPIFFE ID: a template that was not filled in, whatever its type says; and for one of
    another trust domain.
    """
    try:
        same = _parsed(str(spiffe_id)) == spiffe_id
    except InvalidSpiffeId as error:
        raise Bug("what is no SPIFFE ID would have been signed", detail=error.public) from error
    if not same:
        raise Bug("what is no SPIFFE ID would have been signed")
    if spiffe_id.trust_domain != trust_domain:
        raise Bug("an identity of another trust domain would have been signed", detail=str(spiffe_id))
