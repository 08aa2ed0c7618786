"""People at a real Keycloak: a realm with two users, who log in by its own form, and with clients that hear of their end.

with running_keycloak().realm() as realm:
    people = PeopleRealm(realm)
    people.make()
    alice = people.login("alice", Browser(realm.base))
    alice.id_token, alice.access_token, alice.session
"""

import base64
import hashlib
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.keycloak import Realm
from harness.loginform import Answer, Browser, Form, PeopleFailed, read_claims, read_part, send
from harness.loopback import LoopbackServer, QuietHandler

APP, SERVICE, INTROSPECTOR = "chat-app", "orders", "introspector"
NODE = "sojourn"  # who introspects by a JWT-SVID, once a test says by which: realm.service(NODE, SPIFFE_ID)
SECRETS = {APP: "secret-of-chat-app", INTROSPECTOR: "secret-of-introspector"}
REDIRECT = "http://127.0.0.1:9/callback"  # nobody listens there: the code is taken from the address
AFTER_LOGOUT = "http://127.0.0.1:9/bye"
LEVELS = {"silver": 1, "gold": 2}  # values of `acr`: by the password once, and once more at once
DEPARTMENT = "department"
# By name: their groups and their department.
USERS = {"alice": (("support", "refunds"), "north"), "bob": (("support",), "south")}
_ADMIN_SECONDS = 30.0


@dataclass(frozen=True)
class LoggedIn:
    """What the web application has of somebody who logged in, and the browser in which they did."""

    name: str
    id_token: str
    access_token: str
    refresh_token: str
    session: str  # the `sid`
    subject: str
    browser: Browser

    @property
    def claims(self) -> dict[str, Any]:
        """Of the ID token."""
        return read_claims(self.id_token)


@dataclass(frozen=True)
class Heard:
    """A logout token as it came, and when."""

    at: float  # time.monotonic()
    path: str
    token: str
    content_type: str

    @property
    def claims(self) -> dict[str, Any]:
        return read_claims(self.token)

    @property
    def header(self) -> dict[str, Any]:
        return read_part(self.token, 0)


class LogoutReceiver(LoopbackServer):
    """A web application's back-channel logout address on loopback. Keeps what it hears; `status` is its answer."""

    def __init__(self, status: int = 200) -> None:
        self.heard: list[Heard] = []
        self.status = status
        self._news = threading.Condition()
        outer = self

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                at = time.monotonic()
                token = urllib.parse.parse_qs(body).get("logout_token", [""])[0]
                with outer._news:  # before the answer: what is over for who was answered is heard
                    outer.heard.append(Heard(at, self.path, token, self.headers["Content-Type"]))
                    outer._news.notify_all()
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)
        self.url = f"{self.origin}/people/corp/logout"

    def wait(self, count: int = 1, *, seconds: float = 10.0) -> list[Heard]:
        """What was heard, once it is so much or the time is over."""
        with self._news:
            self._news.wait_for(lambda: len(self.heard) >= count, seconds)
            return list(self.heard)


class PeopleRealm:
    """Brings a realm to have people and an application for them, and does to them what people and admins do."""

    def __init__(self, realm: Realm) -> None:
        self.realm = realm
        self.protocol = f"{realm.issuer}/protocol/openid-connect"
        self.passwords = {name: secrets.token_urlsafe(12) for name in USERS}
        self._token = ("", 0.0)

    # --- making it ---

    def make(self, *, logout_url: str = "", lightweight: bool = False) -> None:
        """Users, groups, the application, a service, and who may introspect. `logout_url`: of the application."""
        self.admin(
            "PUT", "/users/profile", {**self.admin("GET", "/users/profile"), "unmanagedAttributePolicy": "ENABLED"}
        )
        for group in sorted({each for groups, _ in USERS.values() for each in groups}):
            self.admin("POST", "/groups", {"name": group})
        for name, (groups, department) in USERS.items():
            self.admin("POST", "/users", self._user(name, groups, department))
        self._levels()
        for each in (SERVICE, NODE):
            self.realm.service(each)
        self.admin("POST", "/clients", self._application(logout_url, lightweight=lightweight))
        # A client hears of tokens that are for it alone: who introspects is in the audience of the application's tokens.
        self.admin("POST", "/clients", {"clientId": INTROSPECTOR, "secret": SECRETS[INTROSPECTOR], **_NO_LOGIN})

    def _user(self, name: str, groups: Sequence[str], department: str) -> dict[str, Any]:
        return {
            "username": name,
            "enabled": True,
            "email": f"{name}@example.org",
            "emailVerified": True,
            "firstName": name.capitalize(),
            "lastName": "Example",
            "groups": [f"/{each}" for each in groups],
            "attributes": {DEPARTMENT: [department]},
            "credentials": [{"type": "password", "value": self.passwords[name], "temporary": False}],
        }

    def _application(self, logout_url: str, *, lightweight: bool) -> dict[str, Any]:
        attributes = {
            "backchannel.logout.url": logout_url,
            "backchannel.logout.session.required": "true",
            "post.logout.redirect.uris": AFTER_LOGOUT,
            "acr.loa.map": json.dumps(LEVELS),
            "client.use.lightweight.access.token.enabled": str(lightweight).lower(),
        }
        return {
            "clientId": APP,
            "secret": SECRETS[APP],
            "enabled": True,
            "standardFlowEnabled": True,
            "directAccessGrantsEnabled": False,
            "redirectUris": [REDIRECT],
            "attributes": attributes,
            "protocolMappers": [*_mappers(), *(_audience(each) for each in (SERVICE, INTROSPECTOR, NODE))],
        }

    def _levels(self) -> None:
        """A login whose `acr` is by level: the password is `silver`, and the password again, at once, is `gold`."""
        self.admin("POST", "/authentication/flows", {"alias": "people", "providerId": "basic-flow", "topLevel": True})
        self._step("people", "auth-cookie", "ALTERNATIVE")
        self._under("people", "people-forms", "ALTERNATIVE")
        steps = {"silver": ("auth-username-password-form", 36000), "gold": ("auth-password-form", 0)}
        for name, level in LEVELS.items():
            form, seconds = steps[name]
            self._under("people-forms", f"people-{name}", "CONDITIONAL")
            condition = self._step(f"people-{name}", "conditional-level-of-authentication", "REQUIRED")
            config = {"loa-condition-level": str(level), "loa-max-age": str(seconds)}
            self.admin("POST", f"/authentication/executions/{condition}/config", {"alias": name, "config": config})
            self._step(f"people-{name}", form, "REQUIRED")
        self.admin("PUT", "", {"browserFlow": "people"})

    def _step(self, flow: str, provider: str, requirement: str) -> str:
        self.admin("POST", f"/authentication/flows/{flow}/executions/execution", {"provider": provider})
        return self._require(flow, requirement)

    def _under(self, flow: str, alias: str, requirement: str) -> None:
        wanted = {"alias": alias, "type": "basic-flow", "provider": "registration-page-form", "description": ""}
        self.admin("POST", f"/authentication/flows/{flow}/executions/flow", wanted)
        self._require(flow, requirement)

    def _require(self, flow: str, requirement: str) -> str:
        """Of the execution of the flow that was added last."""
        added = [each for each in self.admin("GET", f"/authentication/flows/{flow}/executions") if each["level"] == 0][
            -1
        ]
        self.admin("PUT", f"/authentication/flows/{flow}/executions", {**added, "requirement": requirement})
        return str(added["id"])

    # --- what people do ---

    def login(self, name: str, browser: Browser | None = None, *, password: str = "", **parameters: str) -> LoggedIn:
        """Log in at the application, by the real form unless the browser has a session. `parameters`: of the request."""
        browser = browser or Browser(self.realm.base)
        found = self.authorize(name, browser, password=password, **parameters)
        got = self.token(
            {
                "grant_type": "authorization_code",
                "code": found["code"],
                "redirect_uri": REDIRECT,
                "code_verifier": found["verifier"],
            }
        )
        claims = read_claims(got["id_token"])
        tokens = (got["id_token"], got["access_token"], got.get("refresh_token", ""))
        return LoggedIn(name, *tokens, claims.get("sid", ""), claims["sub"], browser)

    def authorize(self, name: str, browser: Browser, *, password: str = "", **parameters: str) -> dict[str, str]:
        """What the application's redirect address is told, and `verifier`. Raise PeopleFailed if it is not the code."""
        verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(12)
        asked = {"client_id": APP, "redirect_uri": REDIRECT, "response_type": "code", "scope": "openid", "state": state}
        asked |= {
            "code_challenge": _encoded(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        page = browser.follow(
            browser.ask("GET", f"{self.protocol}/auth?{urllib.parse.urlencode(asked | parameters)}"), REDIRECT
        )
        for _ in LEVELS:  # a form for each level that is not reached yet
            if isinstance(page, str):
                break
            page = browser.follow(self._fill(browser, page, name, password or self.passwords[name]), REDIRECT)
        if not isinstance(page, str):
            raise PeopleFailed(f"no login: {page.status} {page.text[:2000]}")
        told = {key: value[0] for key, value in urllib.parse.parse_qs(urllib.parse.urlsplit(page).query).items()}
        if told.get("state") != state or "code" not in told:
            raise PeopleFailed(f"no code: {told}")
        return {**told, "verifier": verifier}

    def _fill(self, browser: Browser, page: Answer, name: str, password: str) -> Answer:
        form = Form(page.text)
        if "password" not in form.fields:
            raise PeopleFailed(f"not a form for a password: {page.status} {page.text[:2000]}")
        fields = form.fields | {"password": password} | ({"username": name} if "username" in form.fields else {})
        return browser.ask("POST", form.action, fields)

    def logout(self, who: LoggedIn) -> None:
        """As the application sends one there who logs out (OpenID Connect RP-Initiated Logout)."""
        query = urllib.parse.urlencode({"id_token_hint": who.id_token, "post_logout_redirect_uri": AFTER_LOGOUT})
        found = who.browser.follow(who.browser.ask("GET", f"{self.protocol}/logout?{query}"), AFTER_LOGOUT)
        if not isinstance(found, str):
            raise PeopleFailed(f"no logout: {found.status} {found.text[:1000]}")

    # --- what clients do ---

    def token(self, form: Mapping[str, str], client: str = APP) -> dict[str, Any]:
        """What the token endpoint gives a client with a secret. Raise PeopleFailed."""
        return self._called("token", form, client)

    def introspect(self, token: str, client: str = INTROSPECTOR, **more: str) -> dict[str, Any]:
        return self._called("token/introspect", {"token": token, **more}, client)

    def _called(self, endpoint: str, form: Mapping[str, str], client: str) -> dict[str, Any]:
        secret = {"client_id": client, "client_secret": SECRETS[client]} if client in SECRETS else {}
        answer, _ = send("POST", f"{self.protocol}/{endpoint}", form={**secret, **form})
        if answer.status != 200:
            raise PeopleFailed(f"{endpoint}: {answer.status} {answer.text}")
        found: dict[str, Any] = answer.json()
        return found

    # --- what admins do ---

    def user_id(self, name: str) -> str:
        return str(self.admin("GET", f"/users?exact=true&username={name}")[0]["id"])

    def end_session(self, session: str) -> None:
        self.admin("DELETE", f"/sessions/{session}")

    def log_out_everywhere(self, name: str) -> None:
        self.admin("POST", f"/users/{self.user_id(name)}/logout")

    def enable(self, name: str, *, enabled: bool) -> None:
        user = self.user_id(name)
        self.admin("PUT", f"/users/{user}", {**self.admin("GET", f"/users/{user}"), "enabled": enabled})

    def reset_password(self, name: str) -> None:
        self.passwords[name] = secrets.token_urlsafe(12)
        wanted = {"type": "password", "value": self.passwords[name], "temporary": False}
        self.admin("PUT", f"/users/{self.user_id(name)}/reset-password", wanted)

    def set_logout_url(self, url: str, client: str = APP) -> None:
        self._set(client, {"backchannel.logout.url": url})

    def let_introspect(self, client: str) -> None:
        """Let a client know of all tokens of the realm, not only of those that are for it."""
        self._set(client, {"allow.token.introspection.without.audience.check": "true"})

    def let_have_streams(self, client: str, **more: str) -> None:
        """Have the realm send signed events, and let a client have streams of those about all people. `more`: other
        attributes of the client, whose names begin with `ssf.`, without that.
        """
        attributes = self.admin("GET", "").get("attributes", {})
        self.admin("PUT", "", {"attributes": {**attributes, "ssf.transmitterEnabled": "true"}})
        said = {"enabled": "true", "defaultSubjects": "ALL", "userSubjectFormat": "iss_sub", **more}
        known = self._set(client, {f"ssf.{name}": value for name, value in said.items()})
        for each in self.admin("GET", "/client-scopes"):
            if each["name"] in {"ssf.read", "ssf.manage"}:
                self.admin("PUT", f"/clients/{known['id']}/optional-client-scopes/{each['id']}")

    def _set(self, client: str, attributes: Mapping[str, str]) -> dict[str, Any]:
        """Set attributes of a client. Return it as it was."""
        known: dict[str, Any] = self.admin("GET", f"/clients?clientId={client}")[0]
        self.realm.change_client(client, attributes={**known["attributes"], **attributes})
        return known

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Ask the admin REST API, below the realm. Logs in as rarely as it can: a time that is taken is of the act."""
        token, until = self._token
        if time.monotonic() > until:
            url = f"{self.realm.base}/realms/master/protocol/openid-connect/token"
            token = send("POST", url, form=self.realm.admin_login)[0].json()["access_token"]
            self._token = (token, time.monotonic() + _ADMIN_SECONDS)
        url = f"{self.realm.base}/admin/realms/{self.realm.name}{path}"
        answer, _ = send(method, url, body=body, headers={"Authorization": f"Bearer {token}"})
        if answer.status >= 300:
            raise PeopleFailed(f"{method} {path}: {answer.status} {answer.text[:500]}")
        return answer.json()


_NO_LOGIN = {"enabled": True, "standardFlowEnabled": False, "directAccessGrantsEnabled": False}


def _mappers() -> list[dict[str, Any]]:
    """What the application's tokens say beside the defaults: groups by their paths, and the department."""
    there = dict.fromkeys(("id.token.claim", "access.token.claim", "introspection.token.claim"), "true")
    groups = {"claim.name": "groups", "full.path": "true", **there}
    department = {"user.attribute": DEPARTMENT, "claim.name": DEPARTMENT, "jsonType.label": "String", **there}
    kinds = {
        "groups": ("oidc-group-membership-mapper", groups),
        DEPARTMENT: ("oidc-usermodel-attribute-mapper", department),
    }
    return [
        {"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": config}
        for name, (kind, config) in kinds.items()
    ]


def _audience(client: str) -> dict[str, Any]:
    config = {"included.client.audience": client, "access.token.claim": "true", "introspection.token.claim": "true"}
    return {
        "name": f"for-{client}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": config,
    }


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
