"""An OpenID provider of another make than Keycloak, which its own program runs: people log in at its form.

with running_provider(groups={"alice": ["support"]}, logout_url="https://localhost:8445/people/corp/logout", ca=FILE) as provider:
    alice = provider.login("alice")
    alice.id_token, alice.access_token
    provider.logout(alice)
"""

import base64
import hashlib
import json
import os
import secrets
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.agent import ROOT
from harness.loginform import Answer, Browser, Form, PeopleFailed, read_claims, send

CLIENT = "shop-app"
_REDIRECT = "http://127.0.0.1:9/callback"  # nobody listens there: the code is taken from the address
_STEPS = 6  # forms and pages between the request and the code, at the most


@dataclass(frozen=True)
class LoggedIn:
    """What the web application has of somebody who logged in, and the browser in which they did."""

    id_token: str
    access_token: str
    browser: Browser

    @property
    def claims(self) -> dict[str, Any]:
        """Of the ID token."""
        return read_claims(self.id_token)


class OidcProvider:
    def __init__(self, issuer: str, log: Path) -> None:
        self.issuer = issuer
        self._log = log

    @property
    def said(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    def login(self, name: str, *, resource: str = "", scope: str = "") -> LoggedIn:
        """Log in at the application, by the provider's own form, and agree to what that asks. Raise PeopleFailed.

        `resource`: what the access token is to be for, with `scope` there.
        """
        browser, verifier = Browser(self.issuer), secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {"client_id": CLIENT, "redirect_uri": _REDIRECT, "response_type": "code"}
        asked |= {"scope": f"openid groups {scope}".strip(), **({"resource": resource} if resource else {})}
        query = urllib.parse.urlencode({**asked, "code_challenge": challenge, "code_challenge_method": "S256"})
        code = self._code(browser, browser.ask("GET", f"{self.issuer}/auth?{query}"), name)
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": _REDIRECT, "client_id": CLIENT}
        answer, _ = send("POST", f"{self.issuer}/token", form={**given, "code_verifier": verifier})
        if answer.status != 200:
            raise PeopleFailed(f"no token: {answer.status} {answer.text}")
        return LoggedIn(answer.json()["id_token"], answer.json()["access_token"], browser)

    def logout(self, who: LoggedIn) -> None:
        """As the application sends one there who logs out (OpenID Connect RP-Initiated Logout), who agrees."""
        asked = {"id_token_hint": who.id_token, "post_logout_redirect_uri": _REDIRECT}
        page = who.browser.ask("GET", f"{self.issuer}/session/end?{urllib.parse.urlencode(asked)}")
        form = Form(page.text)
        if not form.action:
            raise PeopleFailed(f"nothing to agree to: {page.status} {page.text[:1000]}")
        found = who.browser.follow(who.browser.ask("POST", form.action, form.fields | {"logout": "yes"}), _REDIRECT)
        if not isinstance(found, str):
            raise PeopleFailed(f"no logout: {found.status} {found.text[:1000]}")

    def _code(self, browser: Browser, page: Answer, name: str) -> str:
        found = self._follow(browser, page)
        for _ in range(_STEPS):
            if isinstance(found, str):
                return urllib.parse.parse_qs(urllib.parse.urlsplit(found).query)["code"][0]
            form = Form(found.text)
            if not form.action:
                raise PeopleFailed(f"no form: {found.status} {found.text[:1000]}")
            named = {"login": name, "password": "any"} if "login" in form.fields else {}
            found = self._follow(browser, browser.ask("POST", form.action, form.fields | named))
        raise PeopleFailed("there was no end of forms")

    def _follow(self, browser: Browser, page: Answer) -> Answer | str:
        """As a browser does, to which some of its addresses are told without the host."""
        while page.status in {302, 303} and not page.headers["location"].startswith(_REDIRECT):
            page = browser.ask("GET", urllib.parse.urljoin(f"{self.issuer}/", page.headers["location"]))
        return page.headers["location"] if page.status in {302, 303} else page


@contextmanager
def running_provider(
    folder: Path,
    *,
    groups: Mapping[str, Sequence[str]],
    port: int,
    logout_url: str,
    ca: Path,
    asker: Mapping[str, Any] | None = None,
) -> Iterator[OidcProvider]:
    """It runs. `ca`: who signed the certificate at `logout_url`. `asker`: the client that may introspect, by
    private_key_jwt: `client_id` and `jwks`. Skips where Node is not here, but in CI.
    """
    script = ["bash", str(ROOT / ".ci" / "oidc-provider")]
    made = subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
    if made.returncode != 0:
        if os.environ.get("CI"):
            raise PeopleFailed(made.stderr)
        pytest.skip(f"needs an OpenID provider: {made.stderr.strip()[-300:]}")
    told_of = {"GROUPS": json.dumps(groups), "ASKER": json.dumps(asker)}
    environment = {**os.environ, **told_of, "NODE_EXTRA_CA_CERTS": str(ca), "NODE_ENV": "test"}
    command = ["node", f"{made.stdout.strip()}/server.mjs", str(port), _REDIRECT, logout_url]
    log = folder / "provider.log"
    with log.open("w") as told:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=told, text=True)
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise PeopleFailed(f"it did not start: {log.read_text()[-2000:]}")
            yield OidcProvider(f"http://127.0.0.1:{port}", log)
        finally:
            process.terminate()
            process.communicate(timeout=60)
