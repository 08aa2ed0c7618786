"""The processes of the demo with Keycloak. Each is a program of its own, and prints JSON, one object a line."""

import asyncio
import json
import signal
import ssl
import sys
import time
import traceback
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sojourn import Client, SyncClient

ORDERS = "https://orders.example.org"
SPIFFE_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
SCOPES = {"GET": "orders.read", "POST": "orders.write"}


def say(**value: Any) -> None:
    print(json.dumps(value), flush=True)


class Realm:
    """What a service asks of Keycloak: its keys, once; and whether a token is good still, if it wants to know."""

    def __init__(self, issuer: str, ca: str, client: SyncClient) -> None:
        self.issuer = issuer
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
        )
        self._client = client
        self.keys = KeySet.import_key_set(self._ask(f"{issuer}/protocol/openid-connect/certs"))

    def verified(self, token: str, scope: str) -> int:
        """The status for a request with a token, by nothing but Keycloak's keys: nobody is asked."""
        try:
            claims = jwt.decode(token, self.keys, algorithms=["RS256"]).claims
        except (JoseError, ValueError):
            return 401
        audience = claims.get("aud")
        good = claims.get("iss") == self.issuer and "orders" in (audience if isinstance(audience, list) else [audience])
        if not good or claims.get("exp", 0) <= time.time():
            return 401
        return 200 if scope in str(claims.get("scope", "")).split() else 403

    def is_active(self, token: str) -> bool:
        """By introspection (RFC 7662). The service says who it is by its own JWT-SVID: it has no secret either."""
        svid = self._client.fetch_jwt_svid(self.issuer).token
        form = {"token": token, "client_assertion_type": SPIFFE_ASSERTION, "client_assertion": svid}
        url = f"{self.issuer}/protocol/openid-connect/token/introspect"
        return bool(self._ask(url, urllib.parse.urlencode(form).encode())["active"])

    def _ask(self, url: str, form: bytes | None = None) -> Any:
        with self._opener.open(url, form, timeout=20) as answer:
            return json.loads(answer.read())


def service(issuer: str, ca: str, client: SyncClient) -> None:
    """The orders service. /orders goes by Keycloak's keys alone, /introspected by what Keycloak says now."""
    realm = Realm(issuer, ca, client)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                self._decide()
            except Exception:  # noqa: BLE001  # a demo's service: its log says what it was
                traceback.print_exc()
                self._answer(500)

        def do_POST(self) -> None:
            self.do_GET()

        def _decide(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if self.path == "/introspected":
                self._answer(200 if realm.is_active(token) else 401)
            else:
                self._answer(realm.verified(token, SCOPES[self.command]))

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    say(event="serving", port=server.server_address[1])
    server.serve_forever()


async def agent() -> None:
    """The workload: begins a task, has a token of it for the orders, and ends it when it is told to (SIGUSR1)."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    async with Client() as client:
        async with client.task("handle-orders") as task:
            before = time.monotonic()
            token = await task.token(ORDERS)
            first = time.monotonic()
            again = await task.token(ORDERS)
            then = time.monotonic()
            narrow = await task.token(ORDERS, ["orders:read"])
            say(
                event="token",
                task=task.id,
                token=token.token,
                narrow=narrow.token,
                provider=token.provider,
                recall=token.recall,
                expires_at=token.expires_at.timestamp(),
                milliseconds=(first - before) * 1000,
                again_milliseconds=(then - first) * 1000,
                same=again.token == token.token,
            )
            await told.wait()
        say(event="ended")
        await asyncio.Event().wait()


def main() -> None:
    role, *arguments = sys.argv[1:]
    if role == "orders":
        with SyncClient() as client:
            service(*arguments, client)
    else:
        asyncio.run(agent())


if __name__ == "__main__":
    main()
