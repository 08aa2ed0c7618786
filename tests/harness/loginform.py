"""A person's browser, as far as a login form needs one: cookies, redirects, and the form's fields."""

import base64
import html.parser
import http.client
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SECONDS = 60.0


class PeopleFailed(Exception):
    """A server, or its form, did not do what it was asked for."""


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]  # by their names in lower case
    text: str

    def json(self) -> Any:
        return json.loads(self.text) if self.text else None


@dataclass
class Browser:
    """One person's browser: it keeps the cookies of one site, and follows nothing by itself."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, url: str, form: Mapping[str, str] | None = None) -> Answer:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        answer, cookies = send(method, url, form=form, headers=headers)
        for each in cookies:
            name, _, value = each.partition(";")[0].partition("=")
            if value and "max-age=0" not in each.lower():
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    def follow(self, answer: Answer, until: str) -> Answer | str:
        """Go where it sends one. Returns the address that begins with `until`, which is not visited, or the last page."""
        while answer.status in {302, 303}:
            where = answer.headers["location"]
            if where.startswith(until):
                return where
            if not where.startswith(f"{self.base}/"):
                raise PeopleFailed(f"it sends the browser elsewhere: {where}")
            answer = self.ask("GET", where)
        return answer


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes, and the values that it has already."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.action:
            self.action = found.get("action", "")
        elif tag == "input" and found.get("name") and found.get("type") != "checkbox":
            self.fields[found["name"]] = found.get("value", "")


def read_part(token: str, number: int) -> dict[str, Any]:
    part = token.split(".")[number]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def read_claims(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    return read_part(token, 1)


def send(
    method: str,
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[Answer, list[str]]:
    """One request to a server on loopback, and its cookies. Follows no redirect."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_SECONDS)
    sent, content = dict(headers or {}), None
    if form is not None:
        sent["Content-Type"], content = "application/x-www-form-urlencoded", urllib.parse.urlencode(form)
    elif body is not None:
        sent["Content-Type"], content = "application/json", json.dumps(body)
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, content, sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
        return found, answer.headers.get_all("Set-Cookie") or []
    finally:
        connection.close()
