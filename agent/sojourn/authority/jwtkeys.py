"""The keys that sign JWT-SVIDs, kept over restarts so that what was signed stays good.

The file holds PEM keys, each after a line `# KID CREATED NOT_AFTER` (times in seconds since the epoch).
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority import keyfile
from sojourn.clock import Clock
from sojourn.errors import CannotStart
from sojourn.spiffe.jose import PublicKey, SigningKey


@dataclass(frozen=True)
class _Kept:
    key: SigningKey
    pem: bytes
    created: datetime
    not_after: datetime

    @property
    def half_life(self) -> datetime:
        return self.created + (self.not_after - self.created) / 2


class JwtKeys:
    """A few keys: the newest signs until half of its life, the others only verify until theirs ends."""

    def __init__(self, path: Path, clock: Clock, ttl: timedelta) -> None:
        self._path = path
        self._clock = clock
        self._ttl = ttl
        self._keys = self._load()
        self.maintain()

    def active(self) -> tuple[SigningKey, datetime]:
        """The key that signs now, and when it ends."""
        newest = self._keys[-1]
        return newest.key, newest.not_after

    def public(self) -> Mapping[str, PublicKey]:
        return {kept.key.kid: kept.key.public for kept in self._keys}

    @property
    def next_change(self) -> datetime:
        return min([self._keys[-1].half_life, *(kept.not_after for kept in self._keys)])

    def maintain(self) -> bool:
        """Add a key if the newest is past half of its life, drop those that have ended; say whether any changed."""
        now = self._clock.now()
        keys = [kept for kept in self._keys if kept.not_after > now]
        if not keys or keys[-1].half_life <= now:
            keys.append(self._new(now))
        if keys == self._keys:
            return False
        lines = (
            f"# {kept.key.kid} {int(kept.created.timestamp())} {int(kept.not_after.timestamp())}\n".encode() + kept.pem
            for kept in keys
        )
        keyfile.write_new(self._path, b"".join(lines))
        self._keys = keys
        return True

    def _new(self, now: datetime) -> _Kept:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        now = now.replace(microsecond=0)
        return _Kept(SigningKey.from_private(secrets.token_urlsafe(16), key), pem, now, now + self._ttl)

    def _load(self) -> list[_Kept]:
        content = keyfile.read(self._path)
        if content is None:
            return []
        try:
            keys = [_parse(block) for block in content.split(b"# ") if block]
            if not keys:
                raise ValueError("no key in it")
            return keys
        except Exception as error:
            raise CannotStart(
                f"{str(self._path)!r} cannot be parsed: restore it from a backup, or remove it to start with new keys"
                " (JWT-SVIDs that are out then fail)",
                detail=str(error),
            ) from error


def _parse(block: bytes) -> _Kept:
    head, _, pem = block.partition(b"\n")
    kid, created, not_after = head.decode().split(" ")
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an EC key")
    return _Kept(
        SigningKey.from_private(kid, key),
        pem,
        datetime.fromtimestamp(int(created), UTC),
        datetime.fromtimestamp(int(not_after), UTC),
    )
