"""Tokens made without any JOSE library, good and bad ones, and the keys that they are made with."""

import base64
import json
import warnings

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from harness.examples import examples
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning
from sojourn.errors import InvalidToken
from sojourn.jose.jws import (
    PublicKey,
    parse_unverified,
)

FREELY = examples(300)


HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


KEYS = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}


KEYS["RSA-1024"] = rsa.generate_private_key(65537, 1024)


KEYS["RSA-2047"] = rsa.generate_private_key(65537, 2047)


KEYS["RSA-2048"] = rsa.generate_private_key(65537, 2048)


with warnings.catch_warnings():  # weak keys: they can be made, and fit nothing
    warnings.simplefilter("ignore", SecurityWarning)
    PUBLIC = {name: PublicKey.from_key("k1", key.public_key()) for name, key in KEYS.items()}


FITTING = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


CLAIMS = {"sub": "spiffe://example.org/web", "exp": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def segment(value):
    """Text, bytes, or a JSON value as a segment of a token."""
    raw = (
        value
        if isinstance(value, bytes)
        else json.dumps(value).encode()
        if not isinstance(value, str)
        else value.encode()
    )
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(algorithm, key, signed):
    """A signature by the algorithm, made without any JOSE library."""
    digest = HASHES[algorithm[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        size = (key.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return key.sign(signed, padding.PKCS1v15(), digest)


def forge(header, payload=CLAIMS, *, key="P-256", algorithm="ES256"):
    """A token with this header and payload and a signature that is good by `algorithm`."""
    text = f"{segment(header)}.{segment(payload)}"
    return f"{text}.{segment(sign(algorithm, KEYS[key], text.encode()))}"


def refusal(token):
    """The reason for which a token is refused before its signature is looked at."""
    with pytest.raises(InvalidToken) as caught:
        parse_unverified(token)
    return caught.value.reason_code


GOOD = forge({"alg": "ES256", "kid": "k1", "typ": "JWT"})


HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
