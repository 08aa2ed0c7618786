"""OAuth clients as their users have them: each asks the token endpoint for an access token, by its documented options."""

import importlib
import json
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness.agent import AgentProcess
from harness.clients import built
from harness.program import published

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-jar")
SECONDS = 60


class Refused(Exception):
    """What the client made of a refusal."""


@dataclass(frozen=True)
class Endpoint:
    """How a client reaches the token endpoint. `pair` is a file with a certificate and its key, for mutual TLS."""

    url: str
    socket: str = ""
    roots: str = ""
    pair: str = ""


@dataclass(frozen=True)
class Wanted:
    """What a client asks for. `more` are parameters beside the usual ones."""

    grant_type: str
    client_id: str
    resource: str
    scope: str = ""
    subject_token: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, str]:
        """All but the grant type, the client and the scope, for which clients have options of their own."""
        subject = {"subject_token": self.subject_token, "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"}
        return {"resource": self.resource, **(subject if self.subject_token else {}), **self.more}


Ask = Callable[[AgentProcess, Endpoint, Wanted], dict[str, Any]]


def authlib_httpx(_agent: AgentProcess, endpoint: Endpoint, wanted: Wanted) -> dict[str, Any]:
    """Authlib's client on httpx."""
    integration = pytest.importorskip("authlib.integrations.httpx_client")
    base = pytest.importorskip("authlib.integrations.base_client")
    options: dict[str, Any] = {"verify": _context(endpoint)} if endpoint.roots else {}
    if endpoint.socket:
        options["transport"] = _httpx_of(integration.OAuth2Client).HTTPTransport(uds=endpoint.socket)
    scope = wanted.scope or None
    with integration.OAuth2Client(
        wanted.client_id, scope=scope, token_endpoint_auth_method="none", **options
    ) as client:
        try:
            return dict(client.fetch_token(endpoint.url, grant_type=wanted.grant_type, **wanted.parameters))
        except base.OAuthError as error:
            raise Refused(error.error, error.description) from error


def authlib_requests(_agent: AgentProcess, endpoint: Endpoint, wanted: Wanted) -> dict[str, Any]:
    """Authlib's client on requests."""
    integration = pytest.importorskip("authlib.integrations.requests_client")
    base = pytest.importorskip("authlib.integrations.base_client")
    scope = wanted.scope or None
    with integration.OAuth2Session(wanted.client_id, scope=scope, token_endpoint_auth_method="none") as session:
        url = _mounted(session, endpoint)
        options = {"cert": endpoint.pair} if endpoint.pair else {}
        try:
            return dict(session.fetch_token(url, grant_type=wanted.grant_type, **options, **wanted.parameters))
        except base.OAuthError as error:
            raise Refused(error.error, error.description) from error


def requests_oauthlib(_agent: AgentProcess, endpoint: Endpoint, wanted: Wanted) -> dict[str, Any]:
    """requests-oauthlib, whose users bring a class of their own for each grant beyond RFC 6749.

    Over a Unix socket it wants to be told, in the environment, that this is no insecure transport.
    """
    module = pytest.importorskip("requests_oauthlib")
    oauth2 = pytest.importorskip("oauthlib.oauth2")

    class OfGrant(oauth2.BackendApplicationClient):  # type: ignore[name-defined,misc]
        grant_type = wanted.grant_type

    client = OfGrant(wanted.client_id, scope=wanted.scope.split() or None)
    with module.OAuth2Session(client=client) as session:
        url = _mounted(session, endpoint)
        options = {"cert": endpoint.pair} if endpoint.pair else {}
        try:
            return dict(session.fetch_token(url, include_client_id=True, **options, **wanted.parameters))
        except oauth2.OAuth2Error as error:
            raise Refused(error.error, error.description) from error


def curl(_agent: AgentProcess, endpoint: Endpoint, wanted: Wanted) -> dict[str, Any]:
    """curl, with the form on its standard input: what is in argv everybody on the machine can read."""
    how = [*(("--unix-socket", endpoint.socket) if endpoint.socket else ())]
    how += [*(("--cacert", endpoint.roots) if endpoint.roots else ())]
    how += [*(("--cert", endpoint.pair) if endpoint.pair else ())]
    form = {"grant_type": wanted.grant_type, "client_id": wanted.client_id, "scope": wanted.scope, **wanted.parameters}
    body = "&".join(f"{name}={quote(value, safe='')}" for name, value in form.items() if value)
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", *how, "--data", "@-", endpoint.url],
        input=body,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert 0 == done.returncode, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise Refused(answer["error"], answer["error_description"])
    return answer


def go_clientcredentials(agent: AgentProcess, endpoint: Endpoint, wanted: Wanted) -> dict[str, Any]:
    """golang.org/x/oauth2/clientcredentials, which lets EndpointParams name another grant type."""
    form = {"grant_type": wanted.grant_type, **wanted.parameters, **({"scope": wanted.scope} if wanted.scope else {})}
    flags = [each for name, value in form.items() for each in ("-form", f"{name}={value}")]
    return _go(agent, endpoint, "-with", "clientcredentials", "-client-id", wanted.client_id, *flags)


def go_externalaccount(agent: AgentProcess, endpoint: Endpoint, wanted: Wanted) -> dict[str, Any]:
    """golang.org/x/oauth2/google/externalaccount: token exchange without a client of its own."""
    return _go(
        agent,
        endpoint,
        "-with",
        "externalaccount",
        "-audience",
        wanted.resource,
        "-subject-token",
        wanted.subject_token,
        "-form",
        f"scope={wanted.scope}",
    )


def spring(agent: AgentProcess, endpoint: Endpoint, wanted: Wanted) -> dict[str, Any]:
    """Spring Security's clients for token exchange and for client credentials."""
    jar = published(built("spring"), agent.folder, "spring-client")
    flags = {
        "with": "exchange" if wanted.grant_type == EXCHANGE else "credentials",
        "token-url": endpoint.url,
        "client-id": wanted.client_id,
        "scope": wanted.scope,
        "socket": endpoint.socket,
        "roots": endpoint.roots,
        "pair": endpoint.pair,
        "resource": wanted.resource,
        "subject-token": wanted.subject_token,
        **wanted.more,
    }
    return _program([*JAVA, str(jar)], flags)


STOCK: dict[str, Ask] = {
    each.__name__: each
    for each in (
        authlib_httpx,
        authlib_requests,
        requests_oauthlib,
        curl,
        go_clientcredentials,
        go_externalaccount,
        spring,
    )
}
_MARKS = {
    "curl": pytest.mark.curl,
    "go_clientcredentials": pytest.mark.go,
    "go_externalaccount": pytest.mark.go,
    "spring": pytest.mark.java,
}


def stock(*names: str) -> list[Any]:
    """These clients, or all, as parameters of a test, each with the mark of its toolchain."""
    return [
        pytest.param(STOCK[name], id=name, marks=[_MARKS[name]] if name in _MARKS else [])
        for name in names or tuple(STOCK)
    ]


def _go(agent: AgentProcess, endpoint: Endpoint, *arguments: str) -> dict[str, Any]:
    program = published(built("go"), agent.folder, "go-client")
    flags = {"token-url": endpoint.url, "socket": endpoint.socket, "roots": endpoint.roots, "pair": endpoint.pair}
    return _program([str(program), "oauth", *arguments], flags)


def _program(argv: list[str], flags: Mapping[str, str]) -> dict[str, Any]:
    given = [each for name, value in flags.items() if value for each in (f"-{name}", value)]
    done = subprocess.run([*argv, *given], capture_output=True, text=True, timeout=SECONDS)
    line: dict[str, Any] = json.loads(done.stdout)
    if line["event"] == "error":
        raise Refused(line["message"])
    return line


def _mounted(session: Any, endpoint: Endpoint) -> str:
    """Have a session of requests reach the endpoint; return its URL there."""
    session.trust_env = False
    if endpoint.socket:
        adapters = pytest.importorskip("requests_unixsocket.adapters")
        session.mount("http+unix://", adapters.UnixAdapter())
        return f"http+unix://{quote(endpoint.socket, safe='')}{endpoint.url.partition('localhost')[2]}"
    session.verify = endpoint.roots
    return endpoint.url


def _httpx_of(client: type) -> Any:
    """The library that Authlib has chosen among those that are installed: httpx or its successor."""
    names = [each.__module__.partition(".")[0] for each in client.__mro__]
    return importlib.import_module(next(name for name in names if name.startswith("httpx")))


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=endpoint.roots)
    if endpoint.pair:
        context.load_cert_chain(endpoint.pair)
    return context


def pem(folder: Path, name: str, *parts: bytes) -> str:
    """A file of PEM blocks that only its owner may read."""
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(b"".join(parts))
    return str(path)
