"""An issuer's keys, from a file with a JWK Set (RFC 7517) that is read anew when it has changed.

A file that cannot be used gives no keys, not the ones it had before: it may have been changed to take one away.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from sojourn.errors import InvalidInput, InvalidToken, SojournError, Unavailable, quoted
from sojourn.files import trusted
from sojourn.jose.jws import PublicKey
from sojourn.limits import CONFIG_MAX_BYTES, FOLLOWED_SETTLED_SECONDS, SIGNAL_KEYS
from sojourn.ssf.security_events import ALGORITHMS

log = structlog.get_logger()
_CURVES = frozenset({"P-256", "P-384"})


class SignalKeys:
    """The keys of one issuer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fault = ""
        self._keys: Mapping[str, PublicKey] = {}
        self._seen: tuple[int, ...] | None = None
        self._turn = asyncio.Lock()

    async def current(self) -> Mapping[str, PublicKey]:
        """The keys by `kid`, as the file has them now. Raise Unavailable if it cannot be used."""
        if fault := await self.look():
            raise Unavailable("the issuer's keys cannot be read; the agent's log has why", detail=fault)
        return self._keys

    async def look(self) -> str:
        """Read the file if it has changed, and return why it cannot be used; empty if it can."""
        async with self._turn:
            await asyncio.to_thread(self._look)
            return self._fault

    def _look(self) -> None:
        seen = self._sight()
        if seen and seen == self._seen:
            return
        # A file that has just changed may change again within the same tick of the file system's clock.
        settled = bool(seen) and time.time_ns() - seen[-1] > FOLLOWED_SETTLED_SECONDS * 1e9
        self._seen, before = seen if settled else None, self._fault
        try:
            self._keys, self._fault = read_keys(trusted.read(self.path, CONFIG_MAX_BYTES)), ""
        except SojournError as error:
            self._keys, self._fault = {}, error.public
        if self._fault and self._fault != before:
            log.warning("signal_keys_unusable", path=str(self.path), reason=self._fault)

    def _sight(self) -> tuple[int, ...]:
        try:
            status = os.stat(self.path)
        except OSError:
            return ()
        whose = (status.st_dev, status.st_ino, status.st_uid, status.st_gid, status.st_mode)
        return (*whose, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_keys(text: str) -> dict[str, PublicKey]:
    """The keys of a JWK Set that may have signed an event, by `kid`; the others are passed over. Raise InvalidInput."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("not JSON") from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise InvalidInput("not a JWK Set: there is no list of keys")
    if len(listed) > SIGNAL_KEYS:
        raise InvalidInput(f"more than {SIGNAL_KEYS} keys")
    keys: dict[str, PublicKey] = {}
    for jwk in filter(_may_sign, listed):
        try:
            key = PublicKey.from_jwk(jwk)
        except InvalidToken as error:
            raise InvalidInput(f"a key is not good: {error.public}", detail=error.detail) from error
        if key.kid in keys:
            raise InvalidInput(f"two keys have the key id {quoted(key.kid)}")
        keys[key.kid] = key
    if not keys:
        raise InvalidInput(f"there is no key with a kid for {', '.join(sorted(ALGORITHMS))}")
    return keys


def _may_sign(jwk: Mapping[str, object]) -> bool:
    kind = jwk.get("kty")
    if kind not in ("EC", "RSA") or not jwk.get("kid") or (kind == "EC" and jwk.get("crv") not in tuple(_CURVES)):
        return False
    return jwk.get("use", "sig") == "sig" and jwk.get("alg", "ES256") in tuple(ALGORITHMS)
