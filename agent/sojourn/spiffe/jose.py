"""Compact JWS, strictly: the only place where joserfc is called.

Parsing is ours, because the library lets foreign exceptions out and takes duplicate members, any header and
non-canonical base64. Signing and checking a signature is the library's.
"""

import base64
import binascii
import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NewType

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from sojourn.errors import InvalidToken
from sojourn.limits import TOKEN_MAX_BYTES

VerifiedClaims = NewType("VerifiedClaims", dict[str, Any])
"""Claims whose signature, type, audience and times were checked. Made by jwtsvid.verify, tasks.tokens and
oversight.secevent only."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_ACCEPTED: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HEADERS: Final = frozenset({"alg", "kid", "typ"})
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_RSA_MIN_BITS: Final = 2048
_NUMERIC_DATE_MAX: Final = 2**53
LAST_SECOND: Final = 253_402_300_799  # of year 9999, the last that a datetime can hold
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class _Registry(jws.JWSRegistry):
    """The library's, but that a header may show an RSA key; `parse_unverified` has a limit for the whole."""

    max_header_length = 2048


_registry = _Registry(algorithms=list(ALGORITHMS))


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with. `jwk` is its JWK, public members and `kid` only."""

    kid: str
    jwk: Mapping[str, Any]
    _key: ECKey | RSAKey = field(repr=False)
    algorithm: str | None = None  # the only one that the key's owner allows, if the owner said so

    @classmethod
    def from_key(cls, kid: str, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> "PublicKey":
        """Raise InvalidToken for a curve that no allowed algorithm has."""
        if isinstance(key, ec.EllipticCurvePublicKey):
            if not isinstance(key.curve, _ACCEPTED):
                raise InvalidToken("key is of a curve that is not accepted", reason_code="invalid_key")
            return cls._of(kid, ECKey.import_key(key))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a short key is told by `fits`, not by a warning
            return cls._of(kid, RSAKey.import_key(key))

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> "PublicKey":
        """Parse a JWK (RFC 7517) that has a `kid`; private members are refused. Raise InvalidToken."""
        kid = jwk.get("kid")
        if not isinstance(kid, str) or not kid:
            raise InvalidToken("key has no key id", reason_code="invalid_key")
        kind, algorithm = jwk.get("kty"), jwk.get("alg")
        if not _PRIVATE.isdisjoint(jwk) or not isinstance(kind, str) or kind not in {"EC", "RSA"}:
            raise InvalidToken("key is not a public EC or RSA key", reason_code="invalid_key")
        if not isinstance(algorithm, str | None):
            raise InvalidToken("key's alg is not a string", reason_code="invalid_key")
        public = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
        if kind == "EC" and jwk.get("crv") not in _CURVES.values():
            raise InvalidToken("key is of a curve that is not accepted", reason_code="invalid_key")
        try:
            made = ECKey.import_key(public) if kind == "EC" else _import_rsa(public)
            return cls._of(kid, made, algorithm)
        except Exception as error:
            raise InvalidToken("key cannot be parsed", reason_code="invalid_key", detail=str(error)) from error

    @classmethod
    def _of(cls, kid: str, key: ECKey | RSAKey, algorithm: str | None = None) -> "PublicKey":
        jwk = {name: value for name, value in key.as_dict(private=False).items() if name != "kid"}
        return cls(kid, {**jwk, "kid": kid}, key, algorithm)

    @property
    def thumbprint(self) -> str:
        """The JWK SHA-256 Thumbprint (RFC 7638), base64url."""
        return str(self._key.thumbprint())

    @property
    def pkix_der(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return self._key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def fits(self, algorithm: str) -> bool:
        """Whether a signature by `algorithm` can be this key's at all."""
        if self.algorithm is not None and self.algorithm != algorithm:
            return False
        if algorithm in _CURVES:
            return isinstance(self._key, ECKey) and self.jwk.get("crv") == _CURVES[algorithm]
        if not isinstance(self._key, RSAKey):
            return False
        return self._key.public_key.key_size >= _RSA_MIN_BITS


@dataclass(frozen=True)
class SigningKey:
    """A key that signs. Its repr hides it."""

    kid: str
    algorithm: str
    public: PublicKey
    _key: ECKey = field(repr=False)

    @classmethod
    def from_private(cls, kid: str, key: ec.EllipticCurvePrivateKey) -> "SigningKey":
        """Make an ES256 signing key of a P-256 key."""
        return cls(kid, "ES256", PublicKey.from_key(kid, key.public_key()), ECKey.import_key(key))

    @classmethod
    def generate(cls, kid: str) -> "SigningKey":
        """A new ES256 signing key."""
        return cls.from_private(kid, ec.generate_private_key(ec.SECP256R1()))

    def sign(self, claims: Mapping[str, Any], *, typ: str, shows_key: bool = False) -> str:
        """Return `claims` as a compact JWS with the headers `alg`, `typ` and `kid`: or `jwk`, if it shows its key."""
        jwk = {name: value for name, value in self.public.jwk.items() if name != "kid"}
        header = {"alg": self.algorithm, "typ": typ, **({"jwk": jwk} if shows_key else {"kid": self.kid})}
        payload = json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()
        return jws.serialize_compact(header, payload, self._key, registry=_registry)


def private_jwk(key: ec.EllipticCurvePrivateKey) -> str:
    """A P-256 private key as a JWK for ES256 (RFC 7517), JSON."""
    members = ECKey.import_key(key).as_dict(private=True)
    return json.dumps({**{name: members[name] for name in ("kty", "crv", "x", "y", "d")}, "alg": "ES256"})


@dataclass(frozen=True)
class UnverifiedJws:
    """A compact JWS that was parsed and not yet believed. The repr hides the token."""

    text: str = field(repr=False)
    algorithm: str
    kid: str | None
    typ: str | None
    unverified_claims: dict[str, Any]
    unverified_jwk: dict[str, Any] | None = None  # of a token that shows its key

    def check_signature(self, key: PublicKey) -> None:
        """Raise InvalidToken unless `key` made the signature by the algorithm that the header names."""
        if not key.fits(self.algorithm):
            raise InvalidToken("token's algorithm does not fit its key", reason_code="bad_algorithm")
        try:
            jws.deserialize_compact(self.text, key._key, registry=_only(self.algorithm))
        except Exception as error:
            raise InvalidToken(
                "token's signature is not good", reason_code="bad_signature", detail=str(error)
            ) from error


@cache
def _only(algorithm: str) -> _Registry:
    return _Registry(algorithms=[algorithm])


def _import_rsa(jwk: Mapping[str, Any]) -> RSAKey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short key is told by `fits`, not by a warning
        return RSAKey.import_key(dict(jwk))


def parse_unverified(token: str, *, shows_key: bool = False) -> UnverifiedJws:
    """Parse a compact JWS whose payload is a JSON object. Raise InvalidToken with a stable reason code.

    Refused before anything else is looked at: an algorithm out of the closed list, headers beyond `alg`, `kid` and
    `typ`, duplicate members, non-canonical base64, and anything over TOKEN_MAX_BYTES. A token that `shows_key` must
    have the header `jwk`, an object.
    """
    if len(token) > TOKEN_MAX_BYTES:
        raise InvalidToken(f"token is longer than {TOKEN_MAX_BYTES} bytes", reason_code="malformed")
    parts = token.split(".")
    if len(parts) != 3 or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise InvalidToken("unable to parse JWT token: not a compact JWS", reason_code="malformed")
    header = _object(parts[0], "header")
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise InvalidToken("unable to parse JWT token: algorithm is not allowed", reason_code="bad_algorithm")
    jwk = header.pop("jwk", None) if shows_key else None
    if shows_key and not isinstance(jwk, dict):
        raise InvalidToken("unable to parse JWT token: its header shows no key", reason_code="malformed")
    if not _HEADERS.issuperset(header):
        raise InvalidToken("unable to parse JWT token: unexpected header", reason_code="malformed")
    kid, typ = header.get("kid"), header.get("typ")
    if not isinstance(kid, str | None) or not isinstance(typ, str | None):
        raise InvalidToken("unable to parse JWT token: header has a wrong type", reason_code="malformed")
    _decode(parts[2], "signature")
    return UnverifiedJws(token, algorithm, kid, typ, _object(parts[1], "payload"), jwk)


def numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate claim (RFC 7519, 2) or None if absent. Raise InvalidToken for any other type or range."""
    value = claims.get(name)
    if value is None:
        if name in claims:
            raise InvalidToken(f"token's {name} is not a number", reason_code="malformed")
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _NUMERIC_DATE_MAX:
        raise InvalidToken(f"token's {name} is not a number", reason_code="malformed")
    return float(value)


def audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the `aud` claim as a tuple; empty if absent. Raise InvalidToken for any other type."""
    value = claims.get("aud", [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) and each for each in values):
        raise InvalidToken("token's aud is neither a string nor a list of strings", reason_code="malformed")
    return tuple(values)


def _decode(segment: str, what: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError) as error:
        raise InvalidToken(f"unable to parse JWT token: {what} is not base64url", reason_code="malformed") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise InvalidToken(f"unable to parse JWT token: {what} is not canonical base64url", reason_code="malformed")
    return data


def _object(segment: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(
            _decode(segment, what).decode("utf-8"), object_pairs_hook=_members, parse_constant=_no, parse_float=_finite
        )
    except InvalidToken:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidToken(f"unable to parse JWT token: {what} is not JSON", reason_code="malformed") from error
    if not isinstance(value, dict):
        raise InvalidToken(f"unable to parse JWT token: {what} is not a JSON object", reason_code="malformed")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value
