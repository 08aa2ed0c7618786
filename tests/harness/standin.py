"""A server on a loopback port that stands in for an outside system, and an issuer of JWT-SVIDs that it trusts."""

import contextlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.provider import ProviderTable

ISSUER = "https://agent.example.org"


@dataclass
class Request:
    """What was asked. `headers` have lower-case names; a form's fields and a JSON body are both in `fields`."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        if "json" in self.headers.get("content-type", ""):
            return json.loads(self.body or b"{}")
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass
class Reply:
    """What is answered: an object as JSON, or bytes of another type."""

    status: int = 200
    told: Any = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        return b"" if self.told is None else json.dumps(self.told).encode()


class StandIn:
    """Answers by `answer`, which a kind of server has; a test may put `instead` of it: by path, a reply or a function.

    `asked`: all that was asked, in order. With `tls` it is https, for `localhost`.
    """

    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self.asked: list[Request] = []
        self.instead: dict[str, Reply | Callable[[Request], Reply | None]] = {}
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def _do(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
                reply = standin.reply(request)
                content = reply.content()
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = _do

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that goes away is no news

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        host = "localhost" if tls is not None else "127.0.0.1"
        self.url = f"http{'s' if tls is not None else ''}://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def reply(self, request: Request) -> Reply:
        self.asked.append(request)
        other = self.instead.get(request.path)
        if other is not None:
            reply = other if isinstance(other, Reply) else other(request)
            if reply is not None:
                return reply
        return self.answer(request)

    def answer(self, request: Request) -> Reply:
        return Reply(404, {"error": f"nothing at {request.path}"})

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Issuer:
    """An agent's authority, as an outside system sees it: an issuer, with a key of each algorithm."""

    def __init__(self, issuer: str = ISSUER, clock: Callable[[], float] = time.time) -> None:
        self.issuer = issuer
        self.clock = clock
        self.renew()

    def renew(self) -> None:
        """Other keys: what was signed by those before is not good any more."""
        self.keys: dict[str, ECKey | RSAKey] = {}

    def key(self, algorithm: str) -> ECKey | RSAKey:
        """Made when it is first used: an RSA key takes a while."""
        if algorithm not in self.keys:
            told = {"kid": secrets.token_hex(8)}
            rsa = algorithm == "RS256"
            self.keys[algorithm] = RSAKey.generate_key(2048, told) if rsa else ECKey.generate_key("P-256", told)
        return self.keys[algorithm]

    def jwks(self) -> dict[str, Any]:
        self.key("ES256")
        return {"keys": [key.as_dict(private=False) for key in self.keys.values()]}

    def mint(self, spiffe_id: str, **changes: Any):
        """A Mint for a workload; `changes` of claims are a test's."""

        async def mint(audience: str, *, algorithm: str = "ES256", claims: Mapping[str, Any] | None = None) -> str:
            now = int(self.clock())
            told = {"iss": self.issuer, "sub": spiffe_id, "aud": audience, "iat": now, "exp": now + 60}
            told |= {"jti": secrets.token_urlsafe(16), **(claims or {}), **changes}
            key = self.key(algorithm)
            return jwt.encode({"alg": algorithm, "kid": key.kid, "typ": "JWT"}, told, key)

        return mint


class NotGood(Exception):
    """An assertion that is refused; `what` is which part of it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def verified(
    token: str, jwks: Mapping[str, Any], *, issuer: str, audiences: set[str], algorithms: set[str]
) -> dict[str, Any]:
    """The claims of an assertion, as a relying party reads them. Raise NotGood with the part that is not."""
    try:
        read = jwt.decode(token, KeySet.import_key_set(jwks), algorithms=sorted(algorithms))
    except Exception as error:
        raise NotGood("signature") from error
    claims = read.claims
    if claims.get("iss") != issuer:
        raise NotGood("issuer")
    if not isinstance(claims.get("aud"), str) or claims["aud"] not in audiences:
        raise NotGood("audience")
    if claims.get("exp", 0) <= time.time():
        raise NotGood("expired")
    if claims.get("iat", 0) > time.time() + 60:
        raise NotGood("early")
    return claims


@contextlib.asynccontextmanager
async def guarded(**table: Any) -> AsyncIterator[GuardedHttp]:
    """The agent's own HTTP, that may ask stand-ins on loopback."""
    http = GuardedHttp(ProviderTable(**{"kind": "any", "plain_http": True, **table}))
    try:
        yield http
    finally:
        await http.close()
