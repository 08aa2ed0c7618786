"""Requests to the token endpoint, and tokens that nobody issued."""

import base64
import json
from typing import Any

import httpx

from harness.taskagent import TICKETS

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
DETAILS = json.dumps([{"type": "triage-ticket", "actions": ["ticket:read"], "locations": [TICKETS]}])


def form(subject: str, /, **changes: str | None) -> dict[str, str]:
    """A good request, with changes; None leaves a parameter out."""
    fields: dict[str, str | None] = {
        "grant_type": GRANT,
        "subject_token": subject,
        "subject_token_type": JWT,
        "audience": TICKETS,
        "authorization_details": DETAILS,
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def http(socket: str) -> httpx.Client:
    """A client of the agent's HTTP side, with this process as the caller."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://localhost", timeout=15)


def post(socket: str, fields: dict[str, str]) -> httpx.Response:
    with http(socket) as client:
        return client.post("/token", data=fields)


def part(token: str, number: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a JWT, unverified."""
    text = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_header(token: str, **changes: Any) -> str:
    """The same token with a changed header, and so with a signature that is not good."""
    _, claims, signature = token.split(".")
    return ".".join((encoded({**part(token, 0), **changes}), claims, signature))


def with_claims(token: str, **changes: Any) -> str:
    header, _, signature = token.split(".")
    return ".".join((header, encoded({**part(token, 1), **changes}), signature))


def unsigned(token: str) -> str:
    """The same claims, `alg` none and no signature."""
    header = {**part(token, 0), "alg": "none"}
    return f"{encoded(header)}.{token.split('.')[1]}."
