"""An issuer of people's tokens over HTTP, an agent that takes people of it, and a guarded service for whose orders they are.

The issuer is the tests' own: discovery and keys on loopback, tokens signed by a library that is not the agent's way to
read them.
"""

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import uvicorn
from fakes.people import PeopleIssuer
from joserfc import jwt
from joserfc.jwk import RSAKey
from sojourn import PersonToken, TaskTokenMiddleware
from sojourn.people.token_kind import ID_JAG as JAG
from sojourn.people.token_kind import ID_TOKEN
from sojourn.sdk.guard.routes import Action

from harness.agent import AgentProcess
from harness.loginform import read_claims
from harness.looking import until
from harness.loopback import LoopbackServer, QuietHandler
from harness.taskagent import inner_failures, revoke_all, write_type
from harness.tlsplace import TlsPlace

CHAT, HELPER = "spiffe://example.org/agent/chat", "spiffe://example.org/agent/helper"
CLIENT = "chat-app"
JAG_CLIENT = "chat-here"  # what the issuer calls the front end as a client of the agent's
CONFIG = """
trust_domain = "example.org"
[tasks]
types_dir = "types"
[people.corp]
issuer = "{issuer}"
plain_http = true
{more}
claims = ["department"]
scopes = {{"orders.read" = ["order:read"], "orders.write" = ["order:read", "order:write"]}}
[[people.corp.presenters]]
workloads = ["{chat}"]
id_token_audiences = ["{client}"]
access_token_audiences = ["https://chat.example.org"]
authorized_parties = ["chat-web"]
id_jag_clients = ["{jag_client}"]
"""
LOGOUTS = """
[listen]
https = "127.0.0.1:0"
people = "127.0.0.1:0"
people_certificate = "{chain}"
people_key = "{key}"
"""
ONE = """
allowed_workloads = ["{chat}"]
max_duration = "10m"
[person]
need = "required"
groups = ["corp/support"]
{more}
[delegation]
to = ["{helper}"]
max_depth = 1
max_children = 3
[[ceiling]]
resource = "{resource}"
actions = ["order:read"]
"""
NOBODY = """
allowed_workloads = ["{chat}"]
[[ceiling]]
resource = "{resource}"
actions = ["order:read"]
"""
POLICY = """@id("support") permit (principal, action, resource)
when { principal.user in Sojourn::Group::"corp/support" };"""
WATCHED = """
[facts.credential_change]
type = "string"
sources = ["https://idp.example.net/"]
[facts.credential_lost]
type = "boolean"
sources = ["operator", "{helper}"]
"""
UNLESS_LOST = """@id("lost") forbid (principal, action, resource)
when { context.facts has credential_lost && context.facts.credential_lost };"""
ALL = '@id("all") permit (principal, action, resource);'


@dataclass
class Idp:
    """The issuer: a person's token is made by `token`. `asked` are the paths that were asked for.

    Of the tokens in `dead` it says that they are not active. While it is `silent` it says of none anything.
    """

    issuer: PeopleIssuer
    asked: list[str] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    silent: bool = False

    def page(self, path: str) -> Any:
        """What it publishes; None: nothing there."""
        url = self.issuer.url
        pages = {
            "/.well-known/openid-configuration": {
                "issuer": url,
                "jwks_uri": f"{url}/keys",
                "token_endpoint": f"{url}/token",
                "introspection_endpoint": f"{url}/introspect",
            },
            "/keys": self.issuer.jwks(),
        }
        return pages.get(path)

    def introspected(self, form: Mapping[str, str]) -> Any:
        """What it says of a token; None: nothing."""
        if self.silent or not form.get("client_assertion"):
            return None
        text = form["token"]
        return {"active": False} if text in self.dead else {"active": True, "sub": read_claims(text)["sub"]}

    def token(self, subject: str, **changes: Any) -> PersonToken:
        """An ID token of the front end, for somebody in support who logged in just now."""
        return PersonToken.id_token(self.text(subject, **changes))

    def text(self, subject: str, *, seconds: int = 300, kind: str = "id", **changes: Any) -> str:
        self.issuer.at = int(time.time())
        said = {"sub": subject, "sid": f"session-of-{subject}", "exp": self.issuer.at + seconds, **changes}
        if kind == "id":
            return self.issuer.id_token(**said)
        return self.issuer.access_token(**{"scope": "openid orders.read", **said})

    def id_jag(self, subject: str, **changes: Any) -> str:
        """An ID-JAG of now, by which the front end may ask the agent for a token for somebody in support."""
        self.issuer.at = int(time.time())
        return self.issuer.id_jag(**{"sub": subject, "client_id": JAG_CLIENT, **changes})

    def exchange(self, form: dict[str, str]) -> dict[str, str]:
        """Its token endpoint: an ID-JAG for an ID token of its own (RFC 8693), with what the form wants it to say."""
        key = RSAKey.import_key(self.issuer.jwk())
        shown = jwt.decode(form["subject_token"], key, algorithms=["RS256"]).claims
        assert (JAG, ID_TOKEN, CLIENT) == (form["requested_token_type"], form["subject_token_type"], shown["aud"])
        kept = {name: shown[name] for name in ("auth_time", "acr", "groups")}
        wanted = {name: form[name] for name in ("resource", "scope") if name in form}
        text = self.id_jag(shown["sub"], aud=form["audience"], **kept, **wanted)
        return {"access_token": text, "issued_token_type": JAG, "token_type": "N_A"}


@contextmanager
def idp() -> Iterator[Idp]:
    """An issuer that runs on loopback."""

    class Pages(QuietHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            page = made.page(self.path)
            self._answer(200 if page is not None else 404, page)

        def do_POST(self) -> None:
            made.asked.append(self.path)
            form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
            page = made.introspected(form) if self.path == "/introspect" else made.exchange(form)
            self._answer(200 if page is not None else 503, page)

        def _answer(self, status: int, page: object) -> None:
            body = json.dumps(page).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with LoopbackServer(Pages) as server:
        made = Idp(PeopleIssuer(time.time(), url=server.origin, algorithm="RS256"))
        yield made


@dataclass
class People:
    """All of it. `url` is the service's origin; whoever asks it for /orders/mine is told whose token it was."""

    idp: Idp
    agent: AgentProcess
    url: str
    tls: TlsPlace

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """By which clients trust the service and the agent's listener for logouts."""
        return ssl.create_default_context(cafile=str(self.tls.ca))

    def told(self, text: str) -> str:
        """What the service's guard says of a bearer token."""
        with httpx.Client(verify=self.trust) as client:
            return client.get(f"{self.url}/orders/mine", headers={"authorization": f"Bearer {text}"}).text

    async def app(self, scope: Any, _receive: Any, send: Any) -> None:
        token = scope["sojourn.task"]
        said = {
            "issuer": token.person.issuer,
            "subject": token.person.subject,
            "actor": str(token.actor),
            "actors": [str(each) for each in token.actors],
            "task": token.task_id,
        }
        if token.person.claims:
            said["claims"] = token.person.listed()
        body = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def server(self) -> uvicorn.Server:
        guarded = TaskTokenMiddleware(
            self.app,
            audience=self.url,
            actions={"GET /orders/mine": Action("order:read", person="required")},
            socket=self.agent.socket,
            base_url=self.url,
        )
        tls = {"ssl_certfile": str(self.tls.chain), "ssl_keyfile": str(self.tls.key)}
        return uvicorn.Server(uvicorn.Config(guarded, interface="asgi3", log_level="error", lifespan="on", **tls))


def _types(folder: Path, resource: str) -> None:
    said = {"chat": CHAT, "helper": HELPER, "resource": resource}
    folder.mkdir(exist_ok=True)
    write_type(folder, "for-one", ONE.format(more="", **said), POLICY)
    write_type(folder, "for-many", ONE.format(more="several = true\nmax_live = 50", **said), POLICY)
    telling = ONE.format(more='claims = {department = "string"}', **said) + 'tell_claims = ["department", "groups"]\n'
    write_type(folder, "telling", telling, POLICY)
    writing = ONE.format(more="several = true", **said).replace('"order:read"]', '"order:read", "order:write"]')
    write_type(folder, "writing", writing, POLICY)
    watched = ONE.format(more="several = true", **said) + WATCHED.format(**said)
    write_type(folder, "watched", watched, POLICY + UNLESS_LOST)
    write_type(folder, "for-nobody", NOBODY.format(**said), ALL)


@contextmanager
def people_place(folder: Path, more: str = "", tables: str = "") -> Iterator[People]:
    """Everything runs, and this process is both workloads: the front end and the helper.

    `more`: lines of [people.corp]. `tables`: other tables of the configuration, in which {folder} is the place's own
    and {issuer} the issuer.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"https://localhost:{listening.getsockname()[1]}"
    with idp() as issuer:
        tls = TlsPlace(folder / "tls")
        os.chmod(tls.key, 0o600)
        told = {"issuer": issuer.issuer.url, "chat": CHAT, "client": CLIENT, "jag_client": JAG_CLIENT, "more": more}
        tables = tables.replace("{folder}", str(folder)).replace("{issuer}", issuer.issuer.url)
        agent = AgentProcess(config=CONFIG.format(**told) + LOGOUTS.format(chain=tls.chain, key=tls.key) + tables)
        _types(agent.folder / "types", url)
        with agent:
            for path in ("/agent/chat", "/agent/helper"):
                agent.register(path, f"unix:uid:{os.getuid()}")
            place = People(issuer, agent, url, tls)
            server = place.server()
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            try:
                until(lambda: server.started, "the service has started")
                yield place
                revoke_all(agent)
                assert [] == inner_failures(agent)
            finally:
                server.should_exit = True
                thread.join()
