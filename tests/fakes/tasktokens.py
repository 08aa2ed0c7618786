"""Task tokens, as they are or with something wrong, and what verifying them says."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from sojourn.errors import InvalidToken
from sojourn.jose.jws import SigningKey
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
ISSUER, DB = "https://agent.example.org", "https://db.example/rows"
WEB = SpiffeId.parse("spiffe://example.org/web")
PRIVATE = ec.generate_private_key(ec.SECP256R1())
KEY = SigningKey.from_private("k1", PRIVATE)
OTHER = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
DETAIL = {"type": "report", "actions": ["read", "write"], "locations": [DB]}
TASK = {"id": "t1", "type": "report", "ver": 3, "class": "normal"}
CLAIMS = {
    "iss": ISSUER,
    "sub": str(WEB),
    "client_id": str(WEB),
    "aud": DB,
    "iat": SECONDS,
    "nbf": SECONDS,
    "exp": SECONDS + 60,
    "jti": "x",
    "scope": " ".join(DETAIL["actions"]),
    "authorization_details": [DETAIL],
    "task": TASK,
}


def token(changes=None, *, without=None, key=KEY, typ="at+jwt"):
    """A signed token that is good but for what is changed."""
    claims = {**CLAIMS, **(changes or {})}
    claims.pop(without, None)
    return key.sign(claims, typ=typ)


def with_header(header):
    """A token with exactly this header and a good signature."""
    parts = (json.dumps(header).encode(), json.dumps(CLAIMS).encode())
    text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    r, s = decode_dss_signature(PRIVATE.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{text}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def verify(text, *, audience=DB, issuer=ISSUER, keys=None, now=NOW):
    return tokens.verify(
        text, keys={"k1": KEY.public} if keys is None else keys, issuer=issuer, audience=audience, now=now
    )


def refusal(text, **arguments):
    """The reason for which a token is refused."""
    with pytest.raises(InvalidToken) as caught:
        verify(text, **arguments)
    return caught.value.reason_code


def issue(**changes):
    return tokens.issue(
        KEY,
        **{
            "issuer": ISSUER,
            "spiffe_id": WEB,
            "grant": Grant.parse(DB, ["write", "read"]),
            "task": TaskClaim("t1", "report", 3, "normal"),
            "issued_at": NOW,
            "expires_at": NOW + timedelta(seconds=60),
            **changes,
        },
    )
