"""The processes of the demo. Each is started as a program of its own, so that the agent can tell them apart.

Each prints JSON, one object a line, and goes on until it is ended.
"""

import asyncio
import http.client
import json
import socket
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from sojourn import Client, TaskTokenMiddleware, X509Source, authorize_id

TRIAGE = "spiffe://example.org/agent/triage"
TICKETS_ID = "spiffe://example.org/service/tickets"
TICKETS = "https://tickets.example.org"
BILLING = "https://billing.example.org"


def say(**value: Any) -> None:
    print(json.dumps(value), flush=True)


async def service(audience: str, peer_port: int = 0) -> None:
    """A service: HTTP guarded by task tokens, and beside it an echo over mutual TLS for the triage agent."""
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive
        if scope["type"] == "http":
            body = json.dumps({"by": str(scope["sojourn.task"].actor)}).encode()
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": body})

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(str(writer.get_extra_info("ssl_object").peer_spiffe_id).encode() + b"\n")
        await writer.drain()
        writer.close()

    # The one line that guards a service: which action each route takes.
    guarded = TaskTokenMiddleware(
        app,
        audience=audience,
        actions={"GET /tickets/{ticket}": "ticket:read", "DELETE /tickets/{ticket}": "ticket:delete"},
    )
    async with Client() as client, X509Source(client) as source:
        server = await asyncio.start_server(
            greet, "127.0.0.1", peer_port, ssl=source.server_context(authorize_id(TRIAGE))
        )
        web = uvicorn.Server(uvicorn.Config(guarded, host="127.0.0.1", port=0, log_level="error", lifespan="on"))
        running = asyncio.ensure_future(web.serve())
        while not web.started:
            if running.done():
                raise SystemExit("the service did not start")
            await asyncio.sleep(0.01)
        say(
            event="serving",
            spiffe_id=str(source.svid.spiffe_id),
            http=web.servers[0].sockets[0].getsockname()[1],
            tls=server.sockets[0].getsockname()[1],
        )
        await running


async def triage(tls_port: int) -> None:
    """The agent: gets its SVIDs, talks mutual TLS, exchanges its JWT-SVID for a task token, and holds still."""
    async with Client() as client, X509Source(client) as source:
        svid = source.svid
        say(event="x509", spiffe_id=str(svid.spiffe_id), serial=svid.serial, not_after=svid.not_after.isoformat())
        metadata = await asyncio.to_thread(request, client.socket, "GET", "/.well-known/oauth-authorization-server")
        jwt = await client.fetch_jwt_svid(metadata["issuer"])
        say(event="jwt", spiffe_id=str(jwt.spiffe_id), expires_at=jwt.expires_at.isoformat())
        context = source.client_context(authorize_id(TICKETS_ID))
        reader, writer = await asyncio.open_connection("127.0.0.1", tls_port, ssl=context)
        writer.write(b"hello\n")
        seen_by_server = (await reader.readline()).decode().strip()
        say(event="tls", server=str(writer.get_extra_info("ssl_object").peer_spiffe_id), client=seen_by_server)
        writer.close()
        # A standard RFC 8693 request, as any OAuth library makes it.
        details = [{"type": "triage-ticket", "actions": ["ticket:read"], "locations": [TICKETS]}]
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": jwt.token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "resource": TICKETS,
            "authorization_details": json.dumps(details),
        }
        answer = await asyncio.to_thread(request, client.socket, "POST", "/token", form)
        say(event="token", **answer)
        await asyncio.Event().wait()


class AgentConnection(http.client.HTTPConnection):
    """HTTP to the agent's socket, by nothing but the standard library."""

    def __init__(self, path: str) -> None:
        super().__init__("agent", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def request(path: str, method: str, target: str, form: dict[str, str] | None = None) -> dict[str, Any]:
    connection = AgentConnection(path)
    try:
        body = urlencode(form) if form else None
        connection.request(method, target, body, {"Content-Type": "application/x-www-form-urlencoded"} if form else {})
        answer = connection.getresponse()
        return {"status": answer.status, **json.loads(answer.read())}
    finally:
        connection.close()


async def rotating(updates: int) -> None:
    """Holds a stream open and prints each X.509-SVID as it comes."""
    async with Client() as client:
        async for context in client.watch_x509_contexts():
            leaf = context.default.leaf
            say(
                event="update",
                serial=context.default.serial,
                now=datetime.now(UTC).timestamp(),
                not_before=leaf.not_valid_before_utc.timestamp(),
                not_after=leaf.not_valid_after_utc.timestamp(),
            )
            updates -= 1
            if not updates:
                return


async def stranger() -> None:
    """A process that nobody registered."""
    from sojourn import SojournError

    async with Client() as client:
        try:
            await client.fetch_x509_svids()
            say(event="served")
        except SojournError as error:
            say(event="refused", code=error.code, message=str(error))
        await asyncio.Event().wait()


def main() -> None:
    role, *arguments = sys.argv[1:]
    coroutine = {
        "tickets": lambda: service(TICKETS),
        "billing": lambda: service(BILLING),
        "triage": lambda: triage(int(arguments[0])),
        "rotating": lambda: rotating(int(arguments[0])),
        "stranger": stranger,
    }[role]
    asyncio.run(coroutine())


if __name__ == "__main__":
    main()
