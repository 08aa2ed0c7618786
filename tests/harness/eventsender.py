"""An agent that hears signed events, and their delivery over its socket."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from fakes.signed_events import IDP, issuer_key, jwks, signed
from google.protobuf.json_format import MessageToDict
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.cli.output import whole
from sojourn.jose.jws import SigningKey

from harness.agent import AgentProcess
from harness.exchanges import http
from harness.taskcalls import unary

KEY = issuer_key("k1")
OTHER = "https://other.example.net"
OTHER_KEY = issuer_key("k1")  # the same kid, another key
MEDIA_TYPE = "application/secevent+jwt"

CONFIG = f"""
trust_domain = "example.org"
[tasks]
types_dir = "types"
[[signals]]
issuer = "{IDP}"
jwks = "idp.json"
[[signals]]
issuer = "{OTHER}"
jwks = "other.json"
max_age = "1h"
"""


def events_agent(config: str = CONFIG, *, types: Mapping[str, tuple[str, str]] | None = None) -> AgentProcess:
    """An agent, not started, that hears IDP with KEY and OTHER with OTHER_KEY."""
    agent = AgentProcess(config=config)
    keys_of(agent, "idp", KEY)
    keys_of(agent, "other", OTHER_KEY)
    folder = agent.folder / "types"
    folder.mkdir()
    for name, (toml, cedar) in (types or {}).items():
        (folder / f"{name}.toml").write_text(toml)
        (folder / f"{name}.cedar").write_text(cedar)
    return agent


def keys_of(agent: AgentProcess, name: str, *keys: SigningKey) -> Path:
    """Put the JWK Set of an issuer in its place, whole."""
    new = agent.folder / f"{name}.new"
    new.write_text(jwks(*keys))
    return new.replace(agent.folder / f"{name}.json")


def event(key: SigningKey = KEY, *, ago: float = 0, **changes: Any) -> str:
    """A good event, with changes to its claims."""
    return signed(key, time.time() - ago, **changes)


def post(socket: str, token: str | bytes, media_type: str | None = MEDIA_TYPE) -> httpx.Response:
    """Deliver an event as a transmitter does."""
    with http(socket) as client:
        headers = {} if media_type is None else {"Content-Type": media_type}
        return client.post("/events", content=token, headers=headers)


def refused(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must be as RFC 8935, 2.4, has it."""
    assert "application/json" == response.headers["content-type"]
    assert "no-store" == response.headers["cache-control"]
    body = response.json()
    assert {"err", "description"} == set(body)
    assert body["description"]
    return response.status_code, body["err"]


def taken(response: httpx.Response) -> None:
    """It was accepted: 202 and nothing else."""
    assert (202, b"") == (response.status_code, response.content)


def records(agent: AgentProcess, name: str) -> list[dict[str, Any]]:
    """The fields of the records of this name among the journal's last thousand, oldest first."""
    request = pb.ListAuditRequest(limit=1_000)
    answer = unary(agent.admin_socket, "/sojourn.v1.Admin/ListAudit", request, pb.ListAuditResponse)
    return [whole(MessageToDict(each.fields)) for each in answer.records if each.event == name]
