"""A stand-in for an OAuth authorization server, on loopback: it grants, revokes and introspects, or misbehaves as told.

with AuthServer() as server:                       # plain http; AuthServer(tls=TlsPlace(folder)) for https
    server.lifetime = 60
    server.script("token", status(503, retry_after="2"), drop)   # for the next two calls; then it behaves again
    server.always["token"] = slow(5)
    ... server.issuer, server.calls("token"), server.active(token) ...
"""

import base64
import contextlib
import gzip
import http.server
import json
import secrets
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from harness.httpserver import HttpServer

ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class Certified(Protocol):
    """Files of a server's certificate: see TlsPlace."""

    chain: Path
    key: Path


@dataclass(frozen=True)
class Call:
    """One request that came. `claims`: of the JWT that stands in each parameter that is one; nobody verified them."""

    path: str
    form: Mapping[str, str]
    headers: Mapping[str, str]
    connection: int
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Exchange(http.server.BaseHTTPRequestHandler):
    """One connection. `owner` is set by AuthServer."""

    owner: "AuthServer"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.owner.serve(self, {})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
        if self.headers.get("content-type") == "application/json":
            self.owner.serve(self, {"json": text})
            return
        self.owner.serve(self, {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()})

    def answer(self, status: int, body: object, **headers: str) -> None:
        """`body`: bytes as they are, or what becomes JSON. A header named x_y is X-Y."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        sent = {"content_type": "application/json", "content_length": str(len(content)), **headers}
        for name, value in sent.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.owner.now() if timestamp is None else timestamp, usegmt=True)

    def log_message(self, *_: object) -> None:
        pass


Deed = Callable[[Exchange], bool]
"""What to do with a request that was read: return True to go on as usual."""


def slow(seconds: float) -> Deed:
    """Answer after that time, or when the server ends."""

    def deed(exchange: Exchange) -> bool:
        exchange.owner.ending.wait(seconds)
        return not exchange.owner.ending.is_set()

    return deed


def held(until: threading.Event) -> Deed:
    """Answer when a test says so."""

    def deed(exchange: Exchange) -> bool:
        while not until.wait(0.05):
            if exchange.owner.ending.is_set():
                return False
        return True

    return deed


def status(code: int, body: object = b"", **headers: str) -> Deed:
    """Answer with that. `body`: bytes, or what becomes JSON."""

    def deed(exchange: Exchange) -> bool:
        exchange.answer(code, body, **headers)
        return False

    return deed


def refuse(error: str, description: str = "", code: int = 400) -> Deed:
    """An OAuth error."""
    return status(code, {"error": error, **({"error_description": description} if description else {})})


def changed(**members: object) -> Deed:
    """Answer as usual, but for these members of the JSON; None leaves one out."""

    def deed(exchange: Exchange) -> bool:
        exchange.owner.changes = members
        return True

    return deed


def drop(exchange: Exchange) -> bool:
    """Close the connection, with the request read and nothing said."""
    exchange.close_connection = True
    with contextlib.suppress(OSError):
        exchange.connection.shutdown(socket.SHUT_RDWR)
    return False


def granted_then_drop(exchange: Exchange) -> bool:
    """Do all that was asked for, and close the connection before a word of it is told."""
    exchange.owner.mute = True
    return True


def raw(content: bytes) -> Deed:
    """Send that, whatever it is, and close."""

    def deed(exchange: Exchange) -> bool:
        exchange.close_connection = True
        with contextlib.suppress(OSError):
            exchange.connection.sendall(content)
        return False

    return deed


def huge(size: int = 8 * 1024 * 1024) -> Deed:
    """An answer of that many bytes, its length not told."""
    return raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + b" " * size)


def bomb(size: int = 64 * 1024 * 1024) -> Deed:
    """An answer that is small until it is unpacked."""
    return status(200, gzip.compress(b" " * size), content_encoding="gzip")


def redirect(location: str, code: int = 307) -> Deed:
    """Somewhere else."""
    return status(code, location=location)


class AuthServer:
    """The server. Use as a context manager. Endpoints: metadata, jwks, token, revoke, introspect."""

    def __init__(self, *, tls: Certified | None = None, host: str = "127.0.0.1", path: str = "") -> None:
        """`path`: of the issuer, such as /realms/x. `host`: as its URLs have it."""
        self.lifetime = 300
        self.clock_off = 0.0  # seconds that its clock is ahead
        self.jwt = True  # whether its tokens look like JWTs
        self.scope: str | None = None  # that it gives, whatever was asked for
        self.max_age = 3600
        self.always: dict[str, Deed] = {}
        self.metadata_changes: dict[str, object] = {}
        self.jwks: Mapping[str, object] = {"keys": []}
        self.changes: Mapping[str, object] = {}
        self.mute = False
        self.ending = threading.Event()
        self._path = path
        self._scripts: dict[str, list[Deed]] = defaultdict(list)
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._tokens: dict[str, dict[str, Any]] = {}
        handler = type("Handler", (Exchange,), {"owner": self})
        self._server = HttpServer(("127.0.0.1", 0), handler)
        if tls is not None:
            self._server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server.context.load_cert_chain(tls.chain, tls.key)
        self.port = self._server.server_address[1]
        self.origin = f"{'http' if tls is None else 'https'}://{host}:{self.port}"
        self.issuer = self.origin + path

    def __enter__(self) -> "AuthServer":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.end()

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/token"

    @property
    def revocation_endpoint(self) -> str:
        return f"{self.issuer}/revoke"

    def now(self) -> float:
        return time.time() + self.clock_off

    def script(self, endpoint: str, *deeds: Deed) -> None:
        """What to do with the next calls of an endpoint: metadata, jwks, token, revoke or introspect."""
        self._scripts[endpoint] += deeds

    def calls(self, endpoint: str) -> list[Call]:
        with self._lock:
            return [each for each in self._calls if each.path == endpoint]

    def given(self) -> list[str]:
        """All tokens that it gave, the first first, whether or not anyone heard of them."""
        with self._lock:
            return list(self._tokens)

    def active(self, token: str) -> bool:
        """Whether a token is good."""
        with self._lock:
            found = self._tokens.get(token)
            return found is not None and not found["revoked"] and found["exp"] > self.now()

    def serve(self, exchange: Exchange, form: Mapping[str, str]) -> None:
        path = urlsplit(exchange.path).path
        endpoint = "metadata" if "/.well-known/" in path else path.rpartition("/")[2]
        headers = {name.lower(): value for name, value in exchange.headers.items()}
        claims = {name: _claims(value) for name, value in form.items() if value.count(".") == 2}
        with self._lock:
            self._calls.append(Call(endpoint, form, headers, exchange.client_address[1], claims))
            script = self._scripts[endpoint]
            deed = script.pop(0) if script else self.always.get(endpoint)
        if deed is not None and not deed(exchange):
            return
        code, body = self._answer(endpoint, path, form)
        with self._lock:
            changes, self.changes = self.changes, {}
            mute, self.mute = self.mute, False
        if mute:
            drop(exchange)
            return
        if isinstance(body, dict):
            body = {name: value for name, value in {**body, **changes}.items() if value is not None}
        age = {"cache_control": f"max-age={self.max_age}"} if endpoint == "metadata" else {"cache_control": "no-store"}
        exchange.answer(code, body, **age)

    def _answer(self, endpoint: str, path: str, form: Mapping[str, str]) -> tuple[int, object]:
        if endpoint == "metadata":
            ours = (
                f"{self._path}/.well-known/openid-configuration",
                f"/.well-known/oauth-authorization-server{self._path}",
            )
            return (200, self._metadata()) if path in ours else (404, {})
        if endpoint == "jwks":
            return 200, self.jwks
        if endpoint == "token":
            return self._grant(form)
        with self._lock:
            found = self._tokens.get(form.get("token", ""))
            if endpoint == "revoke":
                if found is not None:
                    found["revoked"] = True
                return 200, b""
        if endpoint == "introspect":
            return 200, {"active": self.active(form.get("token", ""))}
        return 404, {}

    def _metadata(self) -> dict[str, object]:
        document = {
            "issuer": self.issuer,
            "token_endpoint": self.token_endpoint,
            "revocation_endpoint": self.revocation_endpoint,
            "introspection_endpoint": f"{self.issuer}/introspect",
            "jwks_uri": f"{self.issuer}/jwks",
        }
        return {name: value for name, value in {**document, **self.metadata_changes}.items() if value is not None}

    def _grant(self, form: Mapping[str, str]) -> tuple[int, object]:
        grant = form.get("grant_type", "")
        needed = {
            "urn:ietf:params:oauth:grant-type:token-exchange": "subject_token",
            "urn:ietf:params:oauth:grant-type:jwt-bearer": "assertion",
            "client_credentials": "client_assertion",
        }
        if grant not in needed:
            return 400, {"error": "unsupported_grant_type"}
        if not form.get(needed[grant]):
            return 400, {"error": "invalid_request", "error_description": f"no {needed[grant]}"}
        ends = int(self.now()) + self.lifetime
        claims = {"iss": self.issuer, "jti": secrets.token_hex(8), "exp": ends, "iat": int(self.now())}
        requested = form.get("requested_token_type", ACCESS_TOKEN)
        header = {"alg": "ES256", "typ": "at+jwt"}
        if requested == ID_JAG:
            header = {"alg": "ES256", "typ": "oauth-id-jag+jwt"}
            claims["aud"] = form.get("audience", "")
        token = (
            ".".join((_part(header), _part(claims), secrets.token_urlsafe(64))) if self.jwt else secrets.token_hex(24)
        )
        with self._lock:
            self._tokens[token] = {"exp": ends, "revoked": False, "form": dict(form)}
        body: dict[str, object] = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        if grant.endswith("token-exchange"):
            body["issued_token_type"] = requested
            body["token_type"] = "Bearer" if requested == ACCESS_TOKEN else "N_A"
        scope = form.get("scope") if self.scope is None else self.scope
        return 200, body | ({"scope": scope} if scope else {})


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _claims(token: str) -> dict[str, Any]:
    try:
        value = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
