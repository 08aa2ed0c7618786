"""Compact JWS, strictly: the only place where joserfc is called.

Parsing is ours, because the library lets foreign exceptions out and takes duplicate members, any header and
non-canonical base64. Keys are the library's, and what a header may have beside a signature by an RSA key; signatures go
straight to `cryptography`, which is twice as fast.
"""

import binascii
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final, NewType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from sojourn.errors import InvalidToken
from sojourn.jose import strict_json
from sojourn.limits import HEADERS_KEPT, TOKEN_MAX_BYTES

VerifiedClaims = NewType("VerifiedClaims", dict[str, Any])
"""Claims whose signature, type, audience and times were checked. Made by spiffe.jwtsvid, tasktoken.tokens,
ssf.security_events, and of people in people.verification, id_jag, logout and opaque only."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_ACCEPTED: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HEADERS: Final = frozenset({"alg", "kid", "typ"})
# That name a key or where to find one, or change how the rest is read: refused where others are passed over.
_NEVER: Final = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "cty"})
ASKS: Final = "urn:sojourn:jose:asks"  # of an access token whose uses are counted: the issuer must be asked about each
_CRITICAL: Final = {"at+jwt": {"crit": [ASKS], ASKS: True}}  # what is understood of each type (RFC 7515, 4.1.11)
# base64url as base64; what is of the other alphabet becomes what is of none
_TO_BASE64: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_BASE64URL: Final = bytes.maketrans(b"+/", b"-_")
_PADDING: Final = (b"", b"", b"==", b"=")
_LAST: Final = ("", "", "AQgw", "AEIMQUYcgkosw048")
_SHA: Final = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
_HALVES: Final = {256: 32, 384: 48, 512: 66}  # bytes of r, and of s
_ECDSA: Final = {f"ES{bits}": (ec.ECDSA(sha), _HALVES[bits]) for bits, sha in _SHA.items()}
_RSA: Final[Mapping[str, tuple[padding.AsymmetricPadding, hashes.HashAlgorithm]]] = {
    **{f"RS{bits}": (padding.PKCS1v15(), sha) for bits, sha in _SHA.items()},
    **{f"PS{bits}": (padding.PSS(padding.MGF1(sha), sha.digest_size), sha) for bits, sha in _SHA.items()},
}
_RSA_MIN_BITS: Final = 2048
RSA_EXPONENT_MAX: Final = 2**31 - 1  # a larger one makes a signature up to thirty times as dear to check
_NUMERIC_DATE_MAX: Final = 2**53
LAST_SECOND: Final = 253_402_300_799  # of year 9999, the last that a datetime can hold
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class _Registry(jws.JWSRegistry):
    """The library's, but that a header may show an RSA key; `parse_unverified` has a limit for the whole."""

    max_header_length = 2048


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with. `jwk` is its JWK, public members and `kid` only."""

    kid: str
    jwk: Mapping[str, Any]
    _key: ECKey | RSAKey = field(repr=False)
    algorithm: str | None = None  # the only one that the key's owner allows, if the owner said so

    @classmethod
    def from_key(
        cls, kid: str, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, algorithm: str | None = None
    ) -> "PublicKey":
        """`algorithm`: the only one that it is for. Raise InvalidToken for a curve that no allowed algorithm has."""
        if isinstance(key, ec.EllipticCurvePublicKey):
            if not isinstance(key.curve, _ACCEPTED):
                raise InvalidToken("key is of a curve that is not accepted", reason_code="invalid_key")
            return cls._of(kid, ECKey.import_key(key), algorithm)
        return cls._of(kid, _import_rsa(key), algorithm)

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
        if kind == "EC" and jwk.get("crv") not in CURVES.values():
            raise InvalidToken("key is of a curve that is not accepted", reason_code="invalid_key")
        try:
            made = ECKey.import_key(public) if kind == "EC" else _import_rsa(public)
            return cls.from_key(kid, made.public_key, algorithm)  # not of the texts: zeros in front make others of them
        except InvalidToken:
            raise
        except Exception as error:
            raise InvalidToken("key cannot be parsed", reason_code="invalid_key", detail=str(error)) from error

    @classmethod
    def _of(cls, kid: str, key: ECKey | RSAKey, algorithm: str | None = None) -> "PublicKey":
        return cls(kid, {**key.as_dict(private=False), "kid": kid}, key, algorithm)

    @property
    def thumbprint(self) -> str:
        """The JWK SHA-256 Thumbprint (RFC 7638), base64url."""
        return str(self._key.thumbprint())

    @property
    def pkix_der(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return self._key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def signs_by(self) -> str:
        """The algorithm that its owner said, or else the one that SPIFFE's signers use such a key for."""
        if self.algorithm is not None:
            return self.algorithm
        return next((name for name, curve in CURVES.items() if curve == self.jwk.get("crv")), "RS256")

    def fits(self, algorithm: str) -> bool:
        """Whether a signature by `algorithm` can be this key's at all."""
        if self.algorithm is not None and self.algorithm != algorithm:
            return False
        if algorithm in CURVES:
            return isinstance(self._key, ECKey) and self.jwk.get("crv") == CURVES[algorithm]
        return self._is_good_rsa

    @cached_property
    def _is_good_rsa(self) -> bool:
        if not isinstance(self._key, RSAKey):
            return False
        public = self._key.public_key
        return public.key_size >= _RSA_MIN_BITS and public.public_numbers().e <= RSA_EXPONENT_MAX


@dataclass(frozen=True)
class SigningKey:
    """A key that signs. Its repr hides it."""

    kid: str
    algorithm: str
    public: PublicKey
    _key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)
    _headers: dict[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_private(cls, kid: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> "SigningKey":
        """Make a signing key, for ES256 of a P-256 key and for RS256 of an RSA key, and for nothing else."""
        algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        return cls(kid, algorithm, PublicKey.from_key(kid, key.public_key(), algorithm), key)

    @classmethod
    def generate(cls, kid: str) -> "SigningKey":
        """A new ES256 signing key."""
        return cls.from_private(kid, ec.generate_private_key(ec.SECP256R1()))

    def sign(self, claims: Mapping[str, Any], *, typ: str, shows_key: bool = False, critical: str = "") -> str:
        """Return `claims` as a compact JWS with the headers `alg`, `typ` and `kid`: or `jwk`, if it shows its key.

        `critical`: the name of a header for which whoever does not know it must refuse the token (RFC 7515, 4.1.11).
        """
        header = self._header_of(typ, critical) if not shows_key else self._showing(typ)
        signed = f"{header}.{_encode(_dump(claims))}"
        if isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(self._key.sign(signed.encode(), _ECDSA[self.algorithm][0]))
            size = _ECDSA[self.algorithm][1]
            signature = r.to_bytes(size) + s.to_bytes(size)
        return f"{signed}.{_encode(signature)}"

    def _header_of(self, typ: str, critical: str) -> str:
        made = self._headers.get((typ, critical))  # there are as many as kinds of tokens
        if made is None:
            header: dict[str, Any] = {"alg": self.algorithm, "typ": typ, "kid": self.kid}
            header |= {"crit": [critical], critical: True} if critical else {}
            made = self._headers[typ, critical] = _encode(_dump(header))
        return made

    def _showing(self, typ: str) -> str:
        jwk = {name: value for name, value in self.public.jwk.items() if name != "kid"}
        return _encode(_dump({"alg": self.algorithm, "typ": typ, "jwk": jwk}))


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
    # What was read of the claims, by who reads them and for what: they say the same as long as this is kept.
    read: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def check_signature(self, key: PublicKey) -> None:
        """Raise InvalidToken unless `key` made the signature by the algorithm that the header names."""
        if not key.fits(self.algorithm):
            raise InvalidToken("token's algorithm does not fit its key", reason_code="bad_algorithm")
        try:
            if isinstance(key._key, ECKey):
                _check_ecdsa(self.text, key._key.public_key, self.algorithm)
            else:
                _check_rsa(self.text, key._key.public_key, self.algorithm)
        except Exception as error:
            raise InvalidToken(
                "token's signature is not good", reason_code="bad_signature", detail=str(error)
            ) from error


def _check_ecdsa(text: str, key: ec.EllipticCurvePublicKey, algorithm: str) -> None:
    """Raise whatever the library raises unless the signature is good (RFC 7518, 3.4)."""
    signed, _, segment = text.rpartition(".")
    hashing, size = _ECDSA[algorithm]
    raw = _decode(segment, "signature")
    if len(raw) != 2 * size:
        raise ValueError("signature has a wrong length")
    signature = encode_dss_signature(int.from_bytes(raw[:size]), int.from_bytes(raw[size:]))
    key.verify(signature, signed.encode(), hashing)


def _check_rsa(text: str, key: rsa.RSAPublicKey, algorithm: str) -> None:
    """Raise whatever the libraries raise unless header and signature are good (RFC 7518, 3.3 and 3.5)."""
    signed, _, segment = text.rpartition(".")
    _header_with_rsa(signed.partition(".")[0], algorithm).validate_signature_size(segment.encode())
    key.verify(_decode(segment, "signature"), signed.encode(), *_RSA[algorithm])


@lru_cache(HEADERS_KEPT)  # all tokens that a key has signed have the same
def _header_with_rsa(segment: str, algorithm: str) -> _Registry:
    """By which rules of the library a header is short, has nothing unknown, and names this algorithm."""
    registry = _Registry(algorithms=[algorithm])
    registry.validate_header_size(segment.encode())
    registry.check_header(header := _object(segment, "header"))
    registry.get_alg(header["alg"])
    return registry


def _import_rsa(key: rsa.RSAPublicKey | dict[str, Any]) -> RSAKey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short key is told by `fits`, not by a warning
        return RSAKey.import_key(key)


def parse_unverified(token: str, *, shows_key: bool = False, more_headers: bool = False) -> UnverifiedJws:
    """Parse a compact JWS whose payload is a JSON object. Raise InvalidToken with a stable reason code.

    Refused before anything else is looked at: an algorithm out of the closed list, headers beyond `alg`, `kid`, `typ`
    and what is critical and understood, duplicate members, non-canonical base64, and anything over TOKEN_MAX_BYTES. A
    token that `shows_key` must have the header `jwk`, an object. `more_headers`: headers that are not known are passed
    over (RFC 7515, 4), as foreign issuers write them, but for critical ones and those that would be followed.
    """
    if len(token) > TOKEN_MAX_BYTES:
        raise InvalidToken(f"token is longer than {TOKEN_MAX_BYTES} bytes", reason_code="malformed")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise InvalidToken("unable to parse JWT token: not a compact JWS", reason_code="malformed")
    read = _header_with_key if shows_key else _foreign_header if more_headers else _header
    algorithm, kid, typ, jwk = read(parts[0])
    _decode(parts[2], "signature")
    return UnverifiedJws(token, algorithm, kid, typ, _object(parts[1], "payload"), jwk)


_Header = tuple[str, str | None, str | None, dict[str, Any] | None]


@lru_cache(HEADERS_KEPT)  # all tokens that a key has signed have the same
def _header(segment: str) -> _Header:
    return _checked(_object(segment, "header"), None)


@lru_cache(HEADERS_KEPT)
def _foreign_header(segment: str) -> _Header:
    header = _object(segment, "header")
    known = {name: value for name, value in header.items() if name in _HEADERS or name in _NEVER}
    return _checked(known, None, understood=False)


def _header_with_key(segment: str) -> _Header:
    header = _object(segment, "header")
    jwk = header.pop("jwk", None)
    if not isinstance(jwk, dict) and header.get("alg") in ALGORITHMS:
        raise InvalidToken("unable to parse JWT token: its header shows no key", reason_code="malformed")
    return _checked(header, jwk)


def _checked(header: dict[str, Any], jwk: dict[str, Any] | None, *, understood: bool = True) -> _Header:
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise InvalidToken("unable to parse JWT token: algorithm is not allowed", reason_code="bad_algorithm")
    critical = _CRITICAL.get(str(header.get("typ")), {}) if understood else {}
    if not _HEADERS.issuperset(header) and {name: header[name] for name in header.keys() - _HEADERS} != critical:
        raise InvalidToken("unable to parse JWT token: unexpected header", reason_code="malformed")
    kid, typ = header.get("kid"), header.get("typ")
    if not all(isinstance(header[name], str) for name in ("kid", "typ") if name in header):
        raise InvalidToken("unable to parse JWT token: header has a wrong type", reason_code="malformed")
    return algorithm, kid, typ, jwk


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
    left = len(segment) % 4
    # What the last character has beyond the last byte must be zeros, or two texts would be one (RFC 4648, 3.5).
    if left == 1 or (left and segment[-1] not in _LAST[left]):
        raise InvalidToken(f"unable to parse JWT token: {what} is not canonical base64url", reason_code="malformed")
    try:
        return binascii.a2b_base64(segment.encode().translate(_TO_BASE64) + _PADDING[left], strict_mode=True)
    except ValueError as error:
        raise InvalidToken(f"unable to parse JWT token: {what} is not base64url", reason_code="malformed") from error


def _encode(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).translate(_TO_BASE64URL, b"=").decode()


def _dump(value: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(value).encode()


def _object(segment: str, what: str) -> dict[str, Any]:
    try:
        text = _decode(segment, what).decode()
        value = strict_json.loads(text)
        if "\\u" in text:  # half a character, which no text can have, comes in by an escape alone (RFC 7493, 2.1)
            json.dumps(value, ensure_ascii=False).encode()
    except InvalidToken:
        raise
    except ValueError as error:
        raise InvalidToken(f"unable to parse JWT token: {what} is not JSON", reason_code="malformed") from error
    if not isinstance(value, dict):
        raise InvalidToken(f"unable to parse JWT token: {what} is not a JSON object", reason_code="malformed")
    return value


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
