"""The keys that sign JWT-SVIDs, kept over restarts so that what was signed stays good."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority.slots import Slot, Slots
from sojourn.clock import Clock
from sojourn.spiffe.jose import PublicKey, SigningKey


class JwtKeys(Slots[SigningKey]):
    """P-256 keys (ES256), each with a random `kid`."""

    def __init__(self, path: Path, clock: Clock, ttl: timedelta) -> None:
        self._ttl = ttl
        super().__init__(path, clock)

    def public(self) -> Mapping[str, PublicKey]:
        """All keys by `kid`: also the next one, before it signs."""
        return {slot.id: slot.key.public for slot in self.all}

    def _make(self, now: datetime) -> Slot[SigningKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        now = now.replace(microsecond=0)
        signing = SigningKey.from_private(secrets.token_urlsafe(16), key)
        return Slot(signing.kid, signing, pem, now, now + self._ttl)

    def _read(self, slot: Slot[None]) -> Slot[SigningKey]:
        key = load_pem_private_key(slot.pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("not an EC key")
        return replace(slot, key=SigningKey.from_private(slot.id, key))  # type: ignore[arg-type, return-value]

    def _ended(self) -> Slot[SigningKey]:
        return self._make(self._clock.now())
