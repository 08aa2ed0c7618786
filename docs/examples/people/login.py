"""A web application, as far as logging in goes: somebody logs in in their browser, and it has their ID token.

    python docs/examples/people/login.py http://127.0.0.1:8080/realms/shop shop-app alice.jwt --login-hint alice

The authorization code flow with PKCE, and an address on loopback for the browser to come back to (RFC 8252). The token
is written to a file that only you can read: a real front end hands it to the agent's program, and keeps it nowhere.
"""

import argparse
import base64
import hashlib
import json
import os
import secrets
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Callback(HTTPServer):
    """Waits for the browser that comes back."""

    found: dict[str, str]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.found = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/callback"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        if parts.path == "/callback" and isinstance(self.server, Callback):
            self.server.found = dict(urllib.parse.parse_qsl(parts.query))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"You are logged in. Close this page.\n")

    def log_message(self, *_: object) -> None:
        pass


def ask(url: str, form: dict[str, str] | None = None) -> Any:
    content = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(url, content, timeout=30) as answer:  # noqa: S310  # the issuer that you name
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}: {error.code} {error.read()[:500].decode(errors='replace')}") from None


def login(issuer: str, client: str, hint: str) -> str:
    """The ID token of whoever logs in."""
    known = ask(f"{issuer}/.well-known/openid-configuration")
    verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with Callback() as callback:
        asked = {"client_id": client, "redirect_uri": callback.url, "response_type": "code", "scope": "openid"}
        asked |= {"state": state, "code_challenge": challenge, "code_challenge_method": "S256"}
        asked |= {"login_hint": hint} if hint else {}
        url = f"{known['authorization_endpoint']}?{urllib.parse.urlencode(asked)}"
        print(f"log in at {url}", file=sys.stderr, flush=True)
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()  # some return when they are closed
        while not callback.found:
            callback.handle_request()
        found = callback.found
        if not secrets.compare_digest(found.get("state", ""), state) or "code" not in found:
            raise SystemExit(f"no login: {found.get('error', 'the answer is to another question')}")
        form = {"grant_type": "authorization_code", "client_id": client, "code": found["code"]}
        got = ask(known["token_endpoint"], form | {"redirect_uri": callback.url, "code_verifier": verifier})
    return str(got["id_token"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Have somebody log in, and write their ID token to a file.")
    for name in ("issuer", "client", "file"):
        parser.add_argument(name)
    parser.add_argument("--login-hint", default="", help="who it will be: the form has the name already")
    said = parser.parse_args()
    token = login(said.issuer, said.client, said.login_hint)
    with open(os.open(said.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token)


if __name__ == "__main__":
    main()
