"""The keys that sign JWT-SVIDs, kept over restarts so that what was signed stays good."""

import secrets
from collections.abc import Mapping
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority.key_rotation import Slot, Slots
from sojourn.authority.key_seal import KeySeal
from sojourn.jose.jws import PublicKey, SigningKey
from sojourn.limits import JWT_KEY_KEPT_ENDED_SECONDS, JWT_KEY_OVERLAP_SECONDS, OVERLAP_SHARE, RSA_KEY_BITS
from sojourn.runtime.clock import Clock

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def overlap_of(ttl: timedelta, wanted: timedelta | None = None) -> timedelta:
    """For how long keys of this life are published before they sign."""
    return wanted or min(timedelta(seconds=JWT_KEY_OVERLAP_SECONDS), ttl * OVERLAP_SHARE)


def _new_id() -> str:
    """Not with a dash at its beginning: commands, which take it as an argument, would take it for an option."""
    while (made := secrets.token_urlsafe(16)).startswith("-"):
        continue
    return made


class JwtKeys(Slots[SigningKey]):
    """P-256 keys (ES256), each with a random `kid`."""

    _kind: type[PrivateKey] = ec.EllipticCurvePrivateKey
    kept_ended = timedelta(seconds=JWT_KEY_KEPT_ENDED_SECONDS)

    def __init__(
        self,
        path: Path,
        clock: Clock,
        ttl: timedelta,
        overlap: timedelta | None = None,
        *,
        seal: KeySeal | None = None,
    ) -> None:
        """`overlap`: for how long a key is published before it signs; by default `overlap_of` its life. `seal`: what
        keys are sealed with.
        """
        self._ttl = ttl
        super().__init__(path, clock, overlap_of(ttl, overlap), seal=seal)

    @property
    def overlap(self) -> timedelta:
        return self._overlap

    def public(self) -> Mapping[str, PublicKey]:
        """All keys by `kid`: also the next one, before it signs."""
        return {slot.id: slot.key.public for slot in self.all}

    def _generate(self) -> PrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    def _make(self, now: datetime) -> Slot[SigningKey]:
        key = self._generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        now = now.replace(microsecond=0)
        signing = SigningKey.from_private(_new_id(), key)
        return Slot(signing.kid, signing, pem, now, now + self._ttl)

    def _read(self, slot: Slot[None]) -> Slot[SigningKey]:
        key = load_pem_private_key(slot.pem, None)
        if not isinstance(key, self._kind):
            raise TypeError("a key of another kind")
        return replace(slot, key=SigningKey.from_private(slot.id, key))  # type: ignore[arg-type, return-value]

    def _ended(self) -> Slot[SigningKey]:
        return self._make(self._clock.now())


class RsaKeys(JwtKeys):
    """RSA keys (RS256), for those outside who take nothing else.

    To make one takes a tenth of a second, now and then a whole one: so the next is made ahead, in another thread.
    """

    _kind = rsa.RSAPrivateKey

    def __init__(
        self,
        path: Path,
        clock: Clock,
        ttl: timedelta,
        overlap: timedelta | None = None,
        pool: Executor | None = None,
        *,
        seal: KeySeal | None = None,
    ) -> None:
        """`pool`: its threads make keys ahead; without it each is made when it is needed."""
        self._pool = pool
        self._ahead: Future[rsa.RSAPrivateKey] | None = None
        super().__init__(path, clock, ttl, overlap, seal=seal)
        self._make_ahead()

    def _make_ahead(self) -> None:
        if self._pool is not None and self._ahead is None:
            with suppress(RuntimeError):  # the agent ends, and its threads have
                self._ahead = self._pool.submit(_rsa_key)

    def _generate(self) -> PrivateKey:
        ahead, self._ahead = self._ahead, None
        self._make_ahead()
        if ahead is not None:
            with suppress(CancelledError):  # as above
                return ahead.result()
        return _rsa_key()


def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, RSA_KEY_BITS)
