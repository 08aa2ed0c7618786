"""The root certificates and their keys. The authority ID of a root is its subject key identifier, lower-case hex."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority.key_rotation import Slot, Slots
from sojourn.authority.x509_profile import Signer, key_id, self_sign
from sojourn.errors import CannotStart, InvalidInput
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import check_authority


class Roots(Slots[Signer]):
    """Each root signs intermediates while it is active."""

    def __init__(
        self, path: Path, clock: Clock, trust_domain: TrustDomain, curve: ec.EllipticCurve, ttl: timedelta
    ) -> None:
        """`curve` is that of new keys; `ttl` the life of new roots."""
        self._trust_domain = trust_domain
        self._curve = curve
        self._ttl = ttl
        super().__init__(path, clock)

    def _make(self, now: datetime) -> Slot[Signer]:
        key = ec.generate_private_key(self._curve)
        slack = timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)
        certificate = self_sign(self._trust_domain, key, now - slack, now + self._ttl)
        pem = certificate.public_bytes(Encoding.PEM) + key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        signer = Signer(certificate, key)
        return Slot(signer.id, signer, pem, certificate.not_valid_before_utc, certificate.not_valid_after_utc)

    def _blocks(self, content: bytes) -> list[bytes]:
        if content.startswith(b"-----BEGIN"):  # the first files were one root and no more
            certificate = x509.load_pem_x509_certificate(content)
            return [f"{key_id(certificate)} 0 0\n".encode() + content]
        return super()._blocks(content)

    def _read(self, slot: Slot[None]) -> Slot[Signer]:
        certificate = x509.load_pem_x509_certificate(slot.pem)
        key = load_pem_private_key(slot.pem, None)
        try:
            check_authority(certificate, self._trust_domain)
        except InvalidInput as error:
            raise CannotStart(
                f"{str(self._path)!r} is not a root of trust domain {self._trust_domain.name!r}: {error.public};"
                " use another --data-dir for another trust domain"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CannotStart(
                f"{str(self._path)!r}: key and certificate do not belong together: restore it from a backup"
            )
        signer = Signer(certificate, key)
        if signer.id != slot.id:
            raise ValueError("the authority ID is not the certificate's")
        return replace(  # type: ignore[return-value]
            slot,
            key=signer,  # type: ignore[arg-type]
            created=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    def _is_ahead(self, slot: Slot[Signer]) -> bool:
        del slot  # as below: the clock may be behind now, and not have been ahead then
        return False

    def _ended(self) -> Slot[Signer]:
        # A clock that is wrong must not cost a trust domain its root.
        raise CannotStart(
            "the root certificate has expired: is the clock right? If so, move the folder `keys` away to start with a"
            " new one"
        )
