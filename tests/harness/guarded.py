"""A client of an Envoy on deploy/envoy/guarded.yaml, and the service behind it."""

import http.client
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from harness.agent import AgentProcess
from harness.echo import Echo
from harness.envoy import AGENT_SOCKET, sample
from harness.raw import Wire
from harness.sds import fetch, roots, secrets_of
from harness.taskagent import TICKETS

BASE = "https://tickets.example.org:8444"


@dataclass
class Answer:
    """What a client saw, and what the service did: None if the request never reached it."""

    status: int
    headers: dict[str, str]
    body: Any
    seen: dict[str, Any] | None = field(default=None)

    def at_service(self, name: str) -> list[str]:
        assert self.seen is not None
        return [value for each, value in self.seen["headers"] if each == name]


class Guarded:
    """A client of the guarded port."""

    def __init__(self, port: int, echo: Echo, context: ssl.SSLContext) -> None:
        self.port, self.echo, self.context = port, echo, context

    def call(
        self,
        token: str | None = None,
        path: str = "/tickets/42",
        *,
        method: str = "GET",
        scheme: str = "Bearer",
        headers: list[tuple[str, str]] | None = None,
        content: bytes = b"",
    ) -> Answer:
        """One request, its path and header lines as they are given."""
        before = len(self.echo.seen)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=15, context=self.context)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            lines = [("host", "tickets.example.org"), *(headers or [])]
            if token is not None:
                lines.append(("authorization", f"{scheme} {token}"))
            if content:
                lines.append(("content-length", str(len(content))))
            for line in lines:
                connection.putheader(*line)
            connection.endheaders(content or None)
            response = connection.getresponse()
            text = response.read().decode()
            body = json.loads(text) if text.startswith("{") else text
            seen = self.echo.seen[before:]
            lines = {name.lower(): ", ".join(response.headers.get_all(name) or ()) for name in response.headers}
            return Answer(response.status, lines, body, seen[0] if seen else None)
        finally:
            connection.close()


def config(agent: AgentProcess, port: int, echo: Echo, *changes: tuple[str, str]) -> str:
    return sample(
        "guarded.yaml",
        (AGENT_SOCKET, agent.socket),
        ("port_value: 8444", f"port_value: {port}"),
        ("port_value: 9000", f"port_value: {echo.port}"),
        *changes,
    )


def trusting(agent: AgentProcess, folder: Path | None = None, spiffe_id: str = "") -> ssl.SSLContext:
    """A client's TLS context with the agent's roots, and with the certificate of one of this process's IDs."""
    with Wire(agent.socket) as wire:
        found = secrets_of(fetch(wire, "ROOTCA", *([spiffe_id] if spiffe_id else [])))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=roots(found["ROOTCA"])["example.org"][0].public_bytes(Encoding.PEM).decode())
    if folder is not None:
        own = found[spiffe_id].tls_certificate
        pair = folder / "pair.pem"
        pair.write_bytes(own.private_key.inline_bytes + own.certificate_chain.inline_bytes)
        made.load_cert_chain(pair)
    return made


def refused(answer: Answer) -> tuple[int, str]:
    """Status and code of a refusal, which is well-formed (RFC 6750, 3) and has not reached the service."""
    assert answer.seen is None
    assert "no-store" == answer.headers["cache-control"]
    assert "application/json" == answer.headers["content-type"]
    assert set(answer.body) >= {"error", "error_description"}
    challenge = answer.headers["www-authenticate"]
    assert f'realm="{TICKETS}"' in challenge
    if answer.body["error"] != "no_token":
        assert f'error="{answer.body["error"]}"' in challenge
    return answer.status, answer.body["error"]
