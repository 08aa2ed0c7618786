"""JWT-SVIDs of one trust domain, as they are or with something wrong, and what verifying them says."""

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.jws import joined
from sojourn.errors import InvalidToken
from sojourn.jose.jws import SigningKey
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
HERE, THERE = TrustDomain("example.org"), TrustDomain("other.org")
WEB = SpiffeId.parse("spiffe://example.org/web")
KEY = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
FOREIGN = SigningKey.from_private("k2", ec.generate_private_key(ec.SECP256R1()))
BUNDLES = {HERE: {"k1": KEY.public}, THERE: {"k2": FOREIGN.public}}
CLAIMS = {"sub": str(WEB), "aud": ["db"], "exp": SECONDS + 300, "iat": SECONDS, "jti": "x"}


def token(changes=None, *, without=None, key=KEY, typ="JWT"):
    """A signed token that is good but for what is changed."""
    claims = {**CLAIMS, **(changes or {})}
    claims.pop(without, None)
    return key.sign(claims, typ=typ)


def with_header(header, claims=CLAIMS, key=KEY):
    """A token with exactly this header, and a good ES256 signature by `key`."""
    return joined(header, json.dumps(claims).encode(), key)


def verify(text, audience=("db",), bundles=BUNDLES, now=NOW):
    return jwtsvid.verify(text, audience, bundles, now)


def refusal(text, **arguments):
    """The reason for which a token is refused."""
    with pytest.raises(InvalidToken) as caught:
        verify(text, **arguments)
    return caught.value.reason_code
