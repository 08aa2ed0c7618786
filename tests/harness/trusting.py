"""Outside parties that are to trust an agent: what they read of it, and what they believe."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from sojourn.authority.jwt_keys import JwtKeys, RsaKeys
from sojourn.limits import JWT_KEY_OVERLAP_SECONDS
from sojourn.runtime.clock import SystemClock
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId

from harness.agent import AgentProcess
from harness.tlsplace import TlsPlace
from harness.webclients import context

ISSUER = "https://sojourn.example.org"
WEB = "spiffe://example.org/web"
DISCOVERY, KEYS, BUNDLE = "/.well-known/openid-configuration", "/keys", "/bundle"


def trust_agent(place: TlsPlace | None = None, *, more: str = "", listen: str = "") -> AgentProcess:
    """An agent with the listener: by https_web if there is a certificate to show, else by https_spiffe; not started."""
    text = f'trust_domain = "example.org"\n{more}\n[listen]\ntrust = "127.0.0.1:0"\n{listen}'
    if place is not None:
        os.chmod(place.key, 0o600)
        text += f'trust_certificate = "{place.chain}"\ntrust_key = "{place.key}"\n'
    return AgentProcess(config=text)


def visitor(agent: AgentProcess, address: str = "") -> httpx.Client:
    """Somebody who takes whoever answers as it is; from an address of the loopback network, if one is given."""
    transport = httpx.HTTPTransport(verify=context(None), local_address=address or None)
    return httpx.Client(transport=transport, base_url=f"https://{agent.trust}", timeout=15)


def read(agent: AgentProcess, path: str) -> Any:
    with visitor(agent) as client:
        answer = client.get(path)
    assert 200 == answer.status_code, answer.text
    return answer.json()


def kids(agent: AgentProcess) -> set[str]:
    """The keys that outside parties read."""
    return {each["kid"] for each in read(agent, KEYS)["keys"]}


def signed(agent: AgentProcess, audience: str, kind: type[JwtKeys] = RsaKeys) -> str:
    """An assertion as the agent makes them for outside token endpoints, by its own key."""
    name = "jwt-rs256.pem" if kind is RsaKeys else "jwt.pem"
    text = (agent.data_dir / "keys" / name).read_bytes()
    copy = agent.folder / name
    copy.touch(mode=0o600)
    copy.write_bytes(text)
    clock = SystemClock()
    active = kind(copy, clock, timedelta(days=30), timedelta(seconds=JWT_KEY_OVERLAP_SECONDS)).active
    now = clock.now()
    made = jwtsvid.issue(
        active.key, SpiffeId.parse(WEB), audience, issued_at=now, expires_at=now + timedelta(minutes=1), issuer=ISSUER
    )
    return made.token


def first_bundle(agent: AgentProcess, folder: Path) -> Path:
    """The bundle by which a partner begins to trust the agent, as its operator hands it over."""
    path = folder / f"first-{time.monotonic_ns()}.json"
    path.write_text(agent.run("bundle", "show", "--format", "spiffe").stdout)
    assert json.loads(path.read_text())["keys"]
    return path


def node_id(agent: AgentProcess) -> str:
    return str(agent.json("status")["node_id"])
