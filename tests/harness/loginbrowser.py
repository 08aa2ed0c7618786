"""Somebody at a browser who logs in where a program sends them: BROWSER="python loginbrowser.py %s" is what it opens.

Who it is stands in the form already (`login_hint`); their password is the one of the realm in docs/examples/people.
"""

import json
import sys
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from harness.loginform import Browser, Form, PeopleFailed, send  # noqa: E402

REALM = ROOT / "docs" / "examples" / "people" / "realm.json"


def passwords() -> dict[str, str]:
    return {each["username"]: each["credentials"][0]["value"] for each in json.loads(REALM.read_text())["users"]}


def log_in(url: str, browser: Browser | None = None) -> None:
    """Fill the form in, and go back to where the program waits. Raise PeopleFailed."""
    parts = urllib.parse.urlsplit(url)
    back = urllib.parse.parse_qs(parts.query)["redirect_uri"][0]
    browser = browser or Browser(f"{parts.scheme}://{parts.netloc}")
    page = browser.follow(browser.ask("GET", url), back)
    if not isinstance(page, str):
        form = Form(page.text)
        if "password" not in form.fields:
            raise PeopleFailed(f"not a form for a password: {page.status} {page.text[:2000]}")
        fields = form.fields | {"password": passwords()[form.fields["username"]]}
        page = browser.follow(browser.ask("POST", form.action, fields), back)
    if not isinstance(page, str):
        raise PeopleFailed(f"no login: {page.status} {page.text[:2000]}")
    send("GET", page)


if __name__ == "__main__":
    log_in(sys.argv[1])
