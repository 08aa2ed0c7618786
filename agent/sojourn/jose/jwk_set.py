"""JWK Sets (RFC 7517, 5) of foreign issuers: the keys that may have signed what is verified here."""

import json
from collections.abc import Collection, Mapping

from sojourn.errors import InvalidInput, InvalidToken, quoted
from sojourn.jose.jws import CURVES, PublicKey


def read_jwk_set(text: str, algorithms: Collection[str], most: int) -> dict[str, PublicKey]:
    """The keys that may have signed by one of `algorithms`, by `kid`; the others are passed over. Raise InvalidInput.

    A set has `most` keys at the most, none of them twice, and one at least that may have signed.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("not JSON") from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise InvalidInput("not a JWK Set: there is no list of keys")
    if len(listed) > most:
        raise InvalidInput(f"more than {most} keys")
    keys: dict[str, PublicKey] = {}
    for jwk in listed:
        if not _may_sign(jwk, algorithms):
            continue
        try:
            key = PublicKey.from_jwk(jwk)
        except InvalidToken as error:
            raise InvalidInput(f"a key is not good: {error.public}", detail=error.detail) from error
        if key.kid in keys:
            raise InvalidInput(f"two keys have the key id {quoted(key.kid)}")
        keys[key.kid] = key
    if not keys:
        raise InvalidInput(f"there is no key with a kid for {', '.join(sorted(algorithms))}")
    return keys


def _may_sign(jwk: Mapping[str, object], algorithms: Collection[str]) -> bool:
    kind, algorithm = jwk.get("kty"), jwk.get("alg")
    curves = [curve for name, curve in CURVES.items() if name in algorithms]
    if kind not in ("EC", "RSA") or not jwk.get("kid") or (kind == "EC" and jwk.get("crv") not in curves):
        return False
    return jwk.get("use", "sig") == "sig" and (algorithm is None or algorithm in tuple(algorithms))
