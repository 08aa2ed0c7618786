"""Clients of the agent's HTTPS listener: with an X.509-SVID under the agent's own root, or with none."""

import ssl
from typing import Any

import httpx
from fakes.certificates import Issued, san

from harness import forging
from harness.agent import AgentProcess

SERVICE, STRANGER = "spiffe://example.org/service", "spiffe://example.org/stranger"


def context(shown: Issued | None) -> ssl.SSLContext:
    """For TLS with this certificate, or with none; whoever answers is taken as it is."""
    made = forging.context(shown)
    made.set_alpn_protocols(["http/1.1"])
    return made


def svid(agent: AgentProcess, spiffe_id: str, **changes: Any) -> Issued:
    """An X.509-SVID under the agent's root, which the agent knows nothing of."""
    return forging.leaf(forging.root_of(agent), san=(san(spiffe_id), False), **changes)


def web(agent: AgentProcess, spiffe_id: str = "", shown: Issued | None = None) -> httpx.Client:
    """A client with this identity or certificate; with neither it shows none."""
    if spiffe_id:
        shown = svid(agent, spiffe_id)
    return httpx.Client(verify=context(shown), base_url=f"https://{agent.https}", timeout=15, trust_env=False)


def introspected(client: httpx.Client, token: str, **fields: str) -> dict[str, Any]:
    """What the client is told of a token."""
    answer = client.post("/introspect", data={"token": token, **fields})
    assert 200 == answer.status_code, answer.text
    assert "no-store" == answer.headers["cache-control"]
    told: dict[str, Any] = answer.json()
    return told


def revoked(client: httpx.Client, token: str, **fields: str) -> None:
    """Have a token revoked, or nothing: the answer is the same."""
    answer = client.post("/revoke", data={"token": token, **fields})
    assert (200, b"") == (answer.status_code, answer.content)
