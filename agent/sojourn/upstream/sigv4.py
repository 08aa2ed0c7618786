"""Signature Version 4 of AWS, for requests that post JSON to one path of one service.

AWS's SDK for Python would bring its descriptions of all services with it; what is signed here is two strings, and AWS
publishes examples of both, which the tests go by.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Credentials of AWS. `session_token` is empty for those of a user. `expires`: when they end, if that is known."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    expires: datetime | None = None


def signed_headers(
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes,
    keys: AwsKeys,
    *,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """The headers to send: those given, with `host`, `x-amz-date`, the session token and the signature.

    The path and the query of `url` are taken to be in AWS's canonical form, as `/` is.
    """
    parts = urlsplit(url)
    at = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    sent |= {"host": parts.netloc, "x-amz-date": at}
    if keys.session_token:
        sent["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(sent))
    lines = [method, parts.path or "/", parts.query, *(f"{name}:{sent[name]}" for name in sorted(sent)), "", names]
    canonical = "\n".join([*lines, hashlib.sha256(content).hexdigest()])
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join([_ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(signing_key(keys.secret_access_key, scope), to_sign.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={keys.access_key_id}/{scope}"
    return {**sent, "authorization": f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"}


def signing_key(secret: str, scope: str) -> bytes:
    """The key of a day, a region and a service: `YYYYMMDD/REGION/SERVICE/aws4_request`."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
