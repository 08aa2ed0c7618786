"""The `embedded` authority: our own certificate authority, in two tiers, and our JWT keys.

On disk, in the folder `keys` (0700): `root.pem`, the root certificate and its key, and `jwt.pem`, the JWT keys. In
memory only: the intermediate, which signs the leaves and is made anew at each start and at half of its life.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority import keyfile
from sojourn.authority.jwtkeys import JwtKeys
from sojourn.authority.profile import Signer, self_sign
from sojourn.clock import Clock
from sojourn.errors import CannotStart, SojournError, Unavailable
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jose import PublicKey
from sojourn.spiffe.jwtsvid import JwtSvid
from sojourn.spiffe.x509svid import X509Svid, check_authority

REFRESH_HINT_SECONDS = 300


class EmbeddedAuthority:
    """Signs X.509-SVIDs and JWT-SVIDs of one trust domain. `on_change` hooks run when the bundle has changed."""

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
    ) -> None:
        """Load the keys, or make them if there are none. Raise CannotStart if what lies there cannot be used.

        `curve` is that of new X.509 keys: a root that is there already keeps its own. JWT keys are P-256 (ES256).
        """
        self.trust_domain = trust_domain
        self._clock = clock
        self._curve = curve
        self._issuer_ttl = issuer_ttl
        self._hooks: list[Callable[[], None]] = []
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if (folder / "jwt.pem").exists() and not (folder / "root.pem").exists():
            raise CannotStart(
                f"there are JWT keys in {str(folder)!r} and no root: restore root.pem, or remove jwt.pem to begin anew"
            )
        self._sequence = BundleSequence(folder / "sequence")
        self._root = self._load_root(folder / "root.pem", root_ttl)
        self._jwt = JwtKeys(folder / "jwt.pem", clock, jwt_key_ttl)
        self._issuer = self._new_issuer()
        self._bundle = self._make_bundle()

    # --- what it signs ----------------------------------------------------------------------------------------------

    def issue_x509(self, spiffe_id: SpiffeId, ttl: timedelta, dns_names: Sequence[str] = ()) -> X509Svid:
        """Make a key and sign an X.509-SVID for it. Its life is `ttl`, or what the issuer has left if that is less."""
        key = ec.generate_private_key(self._curve)
        return X509Svid(spiffe_id, self.sign_x509(spiffe_id, key.public_key(), ttl, dns_names), key)

    def sign_x509(
        self,
        spiffe_id: SpiffeId,
        public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        ttl: timedelta,
        dns_names: Sequence[str] = (),
    ) -> tuple[x509.Certificate, ...]:
        """Sign a leaf for somebody else's key and return the chain, leaf first."""
        now = self._clock.now()
        self._ready(now)
        leaf = self._issuer.sign_leaf(
            spiffe_id,
            public_key,
            not_before=now - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS),
            not_after=now + ttl,
            dns_names=dns_names,
        )
        return (leaf, self._issuer.certificate)

    def issue_jwt(self, spiffe_id: SpiffeId, audience: Sequence[str], ttl: timedelta) -> JwtSvid:
        """Sign a JWT-SVID. Its life is `ttl`, or what the key has left if that is less."""
        now = self._clock.now()
        self._ready(now)
        key, key_ends = self._jwt.active()
        return jwtsvid.issue(key, spiffe_id, audience, issued_at=now, expires_at=min(now + ttl, key_ends))

    # --- what others check it with ----------------------------------------------------------------------------------

    @property
    def bundle(self) -> Bundle:
        return self._bundle

    @property
    def jwt_keys(self) -> Mapping[str, PublicKey]:
        return self._bundle.jwt_authorities

    @property
    def root(self) -> x509.Certificate:
        return self._root.certificate

    @property
    def issuer(self) -> x509.Certificate:
        """The intermediate that signs leaves now."""
        return self._issuer.certificate

    def on_change(self, hook: Callable[[], None]) -> None:
        self._hooks.append(hook)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    def maintain(self) -> timedelta:
        """Renew what is past half of its life and return how long until the next look is due."""
        now = self._clock.now()
        if now >= _half_life(self._issuer.certificate) or now < self._issuer.certificate.not_valid_before_utc:
            self._issuer = self._new_issuer()
        if self._jwt.maintain():
            self._bundle = self._make_bundle()
            for hook in self._hooks:
                hook()
        due = min(_half_life(self._issuer.certificate), self._jwt.next_change)
        return max(due - now, timedelta(seconds=1))

    def _ready(self, now: datetime) -> None:
        """Renew what a step of the clock, or a long sleep, has left useless before its upkeep came to it."""
        issuer = self._issuer.certificate
        if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc or self._jwt.active()[1] <= now:
            try:
                self.maintain()
            except CannotStart as error:  # the root has ended
                raise Unavailable(error.public) from error

    def _make_bundle(self) -> Bundle:
        bundle = Bundle(
            self.trust_domain,
            (self._root.certificate,),
            self._jwt.public(),
            refresh_hint_seconds=REFRESH_HINT_SECONDS,
        )
        content = hashlib.sha256(bundle.x509_der + bundle.jwks).hexdigest()
        return replace(bundle, sequence=self._sequence.of(content, int(self._clock.now().timestamp())))

    def _new_issuer(self) -> Signer:
        now = self._clock.now()
        if now >= self._root.certificate.not_valid_after_utc:
            raise CannotStart("the root certificate has expired: move the folder `keys` away to start with a new one")
        key = ec.generate_private_key(self._curve)
        certificate = self._root.sign_authority(
            self.trust_domain,
            key.public_key(),
            now - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS),
            now + self._issuer_ttl,
        )
        return Signer(certificate, key)

    def _load_root(self, path: Path, ttl: timedelta) -> Signer:
        content = keyfile.read(path)
        if content is None:
            now = self._clock.now()
            key = ec.generate_private_key(self._curve)
            slack = timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
            certificate = self_sign(self.trust_domain, key, now - slack, now + ttl)
            keyfile.write_new(
                path,
                certificate.public_bytes(Encoding.PEM)
                + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            )
            return Signer(certificate, key)
        try:
            certificate = x509.load_pem_x509_certificate(content)
            loaded = load_pem_private_key(content, None)
            check_authority(certificate, self.trust_domain)
        except SojournError as error:
            raise CannotStart(
                f"{str(path)!r} is not a root of trust domain {self.trust_domain.name!r}: {error.public};"
                " use another --data-dir for another trust domain"
            ) from error
        except Exception as error:
            raise CannotStart(f"{str(path)!r} cannot be parsed: restore it from a backup", detail=str(error)) from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != certificate.public_key():
            raise CannotStart(f"{str(path)!r}: key and certificate do not belong together: restore it from a backup")
        return Signer(certificate, loaded)


class BundleSequence:
    """The bundle's sequence number: it only grows, whatever the clock does, and with every change of the contents."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, content: str, at_least: int) -> int:
        """The number for `content` (a digest): the one that it had, or a new one that is larger than any before."""
        kept = keyfile.read(self._path)
        number, digest = 0, ""
        if kept is not None:
            try:
                text, digest = kept.decode("ascii").split()
                number = int(text)
            except ValueError as error:
                raise CannotStart(f"{str(self._path)!r} cannot be parsed: remove it") from error
        if digest != content:
            number = max(number + 1, at_least)
            keyfile.write_new(self._path, f"{number} {content}\n".encode())
        return number


def _half_life(certificate: x509.Certificate) -> datetime:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life / 2
