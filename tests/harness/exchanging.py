"""What tests of the token endpoint ask and expect."""

import os

import httpx

from harness.agent import AgentProcess
from harness.taskagent import TRIAGE

FORM = "application/x-www-form-urlencoded"
SAML = "urn:ietf:params:oauth:token-type:saml2"


def refused(response: httpx.Response) -> tuple[int, str, str]:
    """Status, RFC code and sentence of a refusal; it must be well-formed (RFC 6749, 5.2) and must not be cached."""
    assert "no-store" == response.headers["cache-control"]
    assert "application/json" == response.headers["content-type"]
    body = response.json()
    assert {"error", "error_description", "code"} <= set(body)
    assert "access_token" not in body
    return response.status_code, body["error"], body["error_description"]


class short_lived:
    """While it lasts, this user's JWT-SVIDs live for ten seconds."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        found = agent.json("entry", "list", "--selector", f"unix:uid:{os.getuid()}")["entries"]
        self._entry = next(entry["id"] for entry in found if entry["spiffe_id"] == TRIAGE)

    def __enter__(self) -> None:
        self._agent.run("entry", "update", self._entry, "--jwt-svid-ttl", "10s")

    def __exit__(self, *_: object) -> None:
        self._agent.run("entry", "update", self._entry, "--jwt-svid-ttl", "5m")
