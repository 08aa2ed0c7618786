"""The keys that sign task tokens: each for a while, published before it signs and until its last token has ended.

They live in memory, and are this run's alone: a token of an earlier run is dead by its version anyway.
"""

import json
import secrets
from collections.abc import Mapping
from types import MappingProxyType

import structlog

from sojourn.jose.jws import PublicKey, SigningKey
from sojourn.limits import TOKEN_KEY_AHEAD_SECONDS, TOKEN_KEY_SECONDS, TOKEN_SKEW_SECONDS, TOKEN_TTL_MAX_SECONDS
from sojourn.runtime.clock import Alarms
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
_OLD_SECONDS = TOKEN_TTL_MAX_SECONDS + TOKEN_SKEW_SECONDS  # after it has signed its last token


class TokenKeys:
    """`active` signs; `published` are all that a token may be signed by, by `kid`."""

    def __init__(
        self, alarms: Alarms, life_seconds: float = TOKEN_KEY_SECONDS, first: SigningKey | None = None
    ) -> None:
        self._alarms = alarms
        self._life_seconds = life_seconds
        # Whoever caches the keys has the next one when it begins to sign.
        self._ahead_seconds = min(TOKEN_KEY_AHEAD_SECONDS, life_seconds / 2)
        self.on_change: Hooks[[]] = Hooks()  # of the published keys
        self.active = first or _new()
        self.published: Mapping[str, PublicKey] = MappingProxyType({self.active.kid: self.active.public})
        self._look_ahead()

    @property
    def jwks(self) -> bytes:
        """The published keys as a JWK Set (RFC 7517), UTF-8."""
        return json.dumps({"keys": [dict(key.jwk) for key in self.published.values()]}).encode()

    def _look_ahead(self) -> None:
        self._alarms.after(self._life_seconds - self._ahead_seconds, self._prepare)

    def _prepare(self) -> None:
        following = _new()
        self._publish({**self.published, following.kid: following.public})
        self._alarms.after(self._ahead_seconds, self._activate, following)

    def _activate(self, following: SigningKey) -> None:
        old, self.active = self.active.kid, following
        log.info("token_key_rotated", kid=following.kid)
        self._alarms.after(_OLD_SECONDS, self._drop, old)
        self._look_ahead()

    def _drop(self, kid: str) -> None:
        self._publish({name: key for name, key in self.published.items() if name != kid})

    def _publish(self, keys: Mapping[str, PublicKey]) -> None:
        self.published = MappingProxyType(dict(keys))
        self.on_change.tell()


def _new() -> SigningKey:
    return SigningKey.generate(secrets.token_urlsafe(16))
