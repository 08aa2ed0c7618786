"""What signs JWT- and WIT-SVIDs of one trust domain: by keys that are files, at once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sojourn.authority import svid_stamps
from sojourn.authority.jwt_keys import JwtKeys, RsaKeys
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import Unavailable, Unimplemented
from sojourn.runtime.clock import Clock
from sojourn.spiffe import jwtsvid, witsvid
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.spiffe.witsvid import WitSvid

JWT, RS256, WIT = "jwt", "jwt-rs256", "wit"
SWITCHED_OFF = {
    RS256: "keys for RS256 are switched off: set authority.rs256 in the agent's configuration",
    WIT: "WIT-SVIDs are switched off: set identity.wit_svids in the agent's configuration",
}


class TokenAuthority(ABC):
    """The keys of tokens by their kind, and what is signed by them."""

    order = 0  # what is signed now says it: see `svid_stamps`

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        jwt_key_ttl: timedelta,
        jwt_key_overlap: timedelta | None,
        jwt_issuer: str | None,
        rs256: bool,
        wit: bool,
        pool: Executor | None,
        seal: KeySeal | None,
    ) -> None:
        """`seal`: what keys are sealed with on disk, if they are."""
        self._jwt_issuer = jwt_issuer
        self._jwt = JwtKeys(folder / "jwt.pem", clock, jwt_key_ttl, jwt_key_overlap, seal=seal)
        self._tokens = {JWT: self._jwt}
        if rs256:
            self._tokens[RS256] = RsaKeys(
                folder / "jwt-rs256.pem", clock, jwt_key_ttl, jwt_key_overlap, pool, seal=seal
            )
        if wit:
            self._tokens[WIT] = JwtKeys(folder / "wit.pem", clock, jwt_key_ttl, jwt_key_overlap, seal=seal)

    @abstractmethod
    def _ready_for(self, spiffe_id: SpiffeId) -> datetime:
        """The time to sign at, with keys that are good by it. Raise Bug for what is not to be signed, Unavailable."""

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
        if WIT not in self._tokens:
            raise Unimplemented(SWITCHED_OFF[WIT])
        active = self._tokens[WIT].active
        jti = svid_stamps.make_jti(self.order, entry_id, str(spiffe_id))
        return witsvid.issue(active.key, spiffe_id, issued_at=now, expires_at=min(now + ttl, active.not_after), jti=jti)

    @property
    def jwt_algorithms(self) -> tuple[str, ...]:
        """Those by which JWT-SVIDs are signed."""
        return ("ES256", "RS256") if RS256 in self._tokens else ("ES256",)

    @property
    def jwt_key_overlap(self) -> timedelta:
        """For how long a JWT key is published before it signs."""
        return self._jwt.overlap
