"""Compact JWS of any make: what our own signer would not put into words."""

import base64
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def joined(header, payload, key):
    """A token with exactly this header (an object) and payload (bytes), and a good ES256 signature by `key`."""
    text = ".".join(encoded(part) for part in (json.dumps(header).encode(), payload))
    signature = key._key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(signature)
    return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def encoded(data):
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
