"""A guarded service over TLS in a thread of the test, and an agent whose task types are for it."""

import asyncio
import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from sojourn import TaskTokenMiddleware
from sojourn.sdk.guard.param_places import path
from sojourn.sdk.guard.routes import Action

from harness.agent import AgentProcess
from harness.looking import until
from harness.taskagent import CONFIG, TRIAGE, inner_failures, revoke_all, write_type
from harness.tlsplace import TlsPlace

SUMMARISE = "spiffe://example.org/agent/summarise"
ALL = '@id("all") permit (principal, action, resource);'
ACTIONS = {
    "GET /v1/tickets/{ticket}": "ticket:read",
    "HEAD /v1/tickets/{ticket}": "ticket:read",
    "POST /v1/tickets/{ticket}/notes": "ticket:write",
    "PUT /v1/tickets/{ticket}/file": Action("ticket:write", params={"ticket": path()}),
    "GET /v1/stream": Action("ticket:read", unchecked=("ticket",)),
    "GET /v1/big": Action("ticket:read", unchecked=("ticket",)),
    "GET /v1/away": Action("ticket:read", unchecked=("ticket",)),
    "DELETE /v1/tickets/{ticket}": "ticket:delete",
}


@dataclass
class Shop:
    """`requests`: what the service saw of each request that its guard let through, or that asked for anything."""

    url: str  # its origin
    tls: TlsPlace
    agent: AgentProcess
    requests: list[dict[str, Any]] = field(default_factory=list)
    seen: list[list[tuple[str, str]]] = field(
        default_factory=list, repr=False
    )  # headers of every request, guarded or not

    @property
    def resource(self) -> str:
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        content, size, digest = b"", 0, hashlib.sha256()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            digest.update(message.get("body", b""))
            content = content or message.get("body", b"")[:100]
            if not message.get("more_body"):
                break
        note = {
            "method": scope["method"],
            "target": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "size": size,
            "sha256": digest.hexdigest(),
            "headers": sorted(name.decode() for name, _ in scope["headers"]),
            "task": scope["sojourn.task"].task_id,
            "actions": list(scope["sojourn.task"].actions),
            "bound": scope["sojourn.task"].binding is not None,
        }
        self.requests.append(note)
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        if scope["path"] == "/v1/away":
            await _say(send, 307, b"", (b"location", query["to"].encode()))
        elif scope["path"] == "/v1/big":
            await self._big(send, int(query["parts"]), float(query.get("pause", "0")))
        else:
            await _say(send, 200, json.dumps(note).encode(), (b"content-type", b"application/json"))

    async def _big(self, send: Any, parts: int, pause: float) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(parts):
            await asyncio.sleep(pause)
            body = f"{number:<65536}".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def watched(self, scope: Any, receive: Any, send: Any) -> None:
        """Notes the headers of all that comes, then lets the guard judge."""
        if scope["type"] == "http":
            self.seen.append([(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]])
        await self._guarded(scope, receive, send)

    def server(self, tls: TlsPlace) -> uvicorn.Server:
        self._guarded = TaskTokenMiddleware(
            self.app, audience=self.resource, actions=ACTIONS, socket=self.agent.socket, base_url=self.url
        )
        config = uvicorn.Config(
            self.watched,
            interface="asgi3",
            log_level="error",
            lifespan="on",
            ssl_certfile=str(tls.chain),
            ssl_keyfile=str(tls.key),
        )
        return uvicorn.Server(config)


async def _say(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def types_for(url: str) -> dict[str, str]:
    return {
        "read-tickets": f"""
allowed_workloads = ["{TRIAGE}"]
max_duration = "10m"
bound = true
[params]
ticket = "string"
[delegation]
to = ["{SUMMARISE}"]
max_depth = 1
max_children = 3
[[ceiling]]
resource = "{url}/v1"
actions = ["ticket:read", "ticket:write"]
""",
        "delete-ticket": f"""
allowed_workloads = ["{TRIAGE}"]
max_duration = "10m"
consequence = "high"
[params]
ticket = "string"
[[ceiling]]
resource = "{url}/v1"
actions = ["ticket:delete", "ticket:write"]
""",
    }


@contextmanager
def ticket_shop(folder: Path) -> Iterator[Shop]:
    """A running shop, and a running agent on which this user is /agent/triage."""
    tls = TlsPlace(folder)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://localhost:{listening.getsockname()[1]}"
        agent = AgentProcess(config=CONFIG.format(level="info"))
        (agent.folder / "types").mkdir()
        for name, toml in types_for(url).items():
            write_type(agent.folder / "types", name, toml, ALL)
        with agent:
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            shop = Shop(url, tls, agent)
            server = shop.server(tls)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            until(lambda: server.started, "the service has started")
            try:
                yield shop
            finally:
                server.should_exit = True
                thread.join(timeout=10)
            revoke_all(agent)
            assert [] == inner_failures(agent)
