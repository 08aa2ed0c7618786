"""The root certificates and their keys. The authority ID of a root is its subject key identifier, lower-case hex.

A key is a file's, beside the certificate; or it is in a PKCS#11 token, and where stands beside the certificate, by its
URI (RFC 7512), or a URI of the same form if a service holds it.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority.key_rotation import Slot, Slots
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.x509_profile import Signer, key_id, self_sign
from sojourn.errors import CannotStart, InvalidInput, KeysUnavailable
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import check_authority

_CONFIGURED: Final = {"process": "keys.socket"}
_WANTED_AGAIN: Final = timedelta(minutes=1)
_URI: Final = re.compile(
    rb"^(pkcs11|openbao|aws-kms|process):token=([^;\s]+);object=([^;\s]+);type=private$", re.MULTILINE
)


@dataclass(frozen=True)
class TokenRoot:
    """A root whose key is in a token, or held by a service: the labels of the key and of the token, and what kind of
    manager that is.
    """

    certificate: x509.Certificate
    object: str
    token: str
    kind: str = "pkcs11"

    @property
    def id(self) -> str:
        """The subject key identifier, lower-case hex."""
        return key_id(self.certificate)

    @property
    def uri(self) -> str:
        """Where the key is."""
        scheme = self.kind.replace("_", "-")
        return f"{scheme}:token={quote(self.token, safe='')};object={quote(self.object, safe='')};type=private"


class Roots(Slots[Signer | TokenRoot]):
    """Each root signs intermediates while it is active."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        trust_domain: TrustDomain,
        curve: ec.EllipticCurve,
        ttl: timedelta,
        *,
        seal: KeySeal | None = None,
        made_elsewhere: bool = False,
    ) -> None:
        """`curve` is that of new keys; `ttl` the life of new roots. `seal`: what keys are sealed with.

        `made_elsewhere`: new roots are made in a token, and `offer`ed here; until the first one is there are none.
        """
        self._made_elsewhere = made_elsewhere
        self._offered: TokenRoot | None = None
        self._trust_domain = trust_domain
        self._curve = curve
        self._ttl = ttl
        super().__init__(path, clock, seal=seal)
        if not made_elsewhere and isinstance(self.active.key, TokenRoot):
            raise CannotStart(
                f"the root's key is not a file of the agent's, {self.active.key.uri}: the configuration has to have"
                f" {_CONFIGURED.get(self.active.key.kind) or f'keys.manager = {self.active.key.kind!r}'}"
            )

    @property
    def is_wanted(self) -> bool:
        """Whether the next root is due, and has to be made elsewhere first."""
        if not self._made_elsewhere or self._offered is not None:
            return False
        return not self.are_there or (self.prepared is None and self._preparation() <= self._clock.now())

    @property
    def next_change(self) -> datetime:
        due = super().next_change if self.are_there else self._clock.now()
        return max(due, self._clock.now() + _WANTED_AGAIN) if self.is_wanted else due

    @property
    def objects(self) -> frozenset[str]:
        """The labels of those keys that are in a token."""
        return frozenset(slot.key.object for slot in self.all if isinstance(slot.key, TokenRoot))

    def offer(self, made: TokenRoot) -> None:
        """Have a root that was made elsewhere as the next one that is prepared."""
        self._offered = made

    def take(self, made: TokenRoot) -> None:
        """Have one that was made elsewhere sign if it is the first, and otherwise prepared."""
        self.offer(made)
        if self.are_there:
            self.prepare()
        else:
            self.maintain()

    def _may_make(self) -> bool:
        return not self._made_elsewhere or self._offered is not None

    def _make(self, now: datetime) -> Slot[Signer | TokenRoot]:
        if self._made_elsewhere:
            return self._take_offered()
        key = ec.generate_private_key(self._curve)
        slack = timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
        certificate = self_sign(self._trust_domain, key, now - slack, now + self._ttl)
        pem = certificate.public_bytes(Encoding.PEM) + key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        signer = Signer(certificate, key)
        return Slot(signer.id, signer, pem, certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def _take_offered(self) -> Slot[Signer | TokenRoot]:
        made, self._offered = self._offered, None
        if made is None:
            raise KeysUnavailable("the token has not made the next root yet")
        certificate = made.certificate
        pem = certificate.public_bytes(Encoding.PEM) + made.uri.encode() + b"\n"
        return Slot(made.id, made, pem, certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def _blocks(self, content: bytes) -> list[bytes]:
        if content.startswith(b"-----BEGIN"):  # the first files were one root and no more
            certificate = x509.load_pem_x509_certificate(content)
            return [f"{key_id(certificate)} 0 0\n".encode() + content]
        return super()._blocks(content)

    def _read(self, slot: Slot[None]) -> Slot[Signer | TokenRoot]:
        certificate = x509.load_pem_x509_certificate(slot.pem)
        try:
            check_authority(certificate, self._trust_domain)
        except InvalidInput as error:
            raise CannotStart(
                f"{str(self._path)!r} is not a root of trust domain {self._trust_domain.name!r}: {error.public};"
                " put trust_domain back, or begin anew with another root: stop the agent and move its data folder away"
            ) from error
        signer = self._token_root(certificate, slot.pem) or self._signer(certificate, slot.pem)
        if signer.id != slot.id:
            raise ValueError("the authority ID is not the certificate's")
        return replace(  # type: ignore[return-value]
            slot,
            key=signer,  # type: ignore[arg-type]
            created=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    def _token_root(self, certificate: x509.Certificate, pem: bytes) -> TokenRoot | None:
        found = _URI.findall(pem)
        if b"PRIVATE KEY" in pem or not found:
            return None
        [(kind, token, name)] = found
        return TokenRoot(certificate, unquote(name.decode()), unquote(token.decode()), kind.decode().replace("-", "_"))

    def _signer(self, certificate: x509.Certificate, pem: bytes) -> Signer:
        key = load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CannotStart(
                f"{str(self._path)!r}: key and certificate do not belong together: restore it from a backup"
            )
        return Signer(certificate, key)

    def _is_ahead(self, slot: Slot[Signer | TokenRoot]) -> bool:
        del slot  # as below: the clock may be behind now, and not have been ahead then
        return False

    def _ended(self) -> Slot[Signer | TokenRoot]:
        # A clock that is wrong must not cost a trust domain its root.
        raise CannotStart(
            "the root certificate has expired: is the clock right? If so, move the folder `keys` away to start with a"
            " new one"
        )
