"""docs/people.md: each of its steps works as it stands, with a real Keycloak and somebody at the browser."""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
from harness import guide, pagelines
from harness.agent import ROOT, clean_environment
from harness.keycloak import Realm, Running, running_keycloak
from harness.ports import free_port
from keycloak_realm import NotThere

pytestmark = [pytest.mark.full, pytest.mark.curl, pytest.mark.timeout(900)]

PAGE = "people.md"
STEPS = "From nothing to a guarded call"
BROWSER = f"{sys.executable} {ROOT / 'tests' / 'harness' / 'loginbrowser.py'} %s"


@pytest.fixture(scope="module")
def keycloak() -> Running:
    for library in ("fastapi", "uvicorn", "httpx"):
        pytest.importorskip(library)
    return running_keycloak()


@pytest.fixture(scope="module")
def printed(keycloak: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the steps print, typed in a folder with the examples: this Keycloak and this port stand for the page's."""
    folder, short, port = (
        tmp_path_factory.mktemp("people"),
        tmp_path_factory.mktemp("p", numbered=True),
        free_port(),
    )

    def here(text: str) -> str:
        for theirs, ours in (
            ("http://127.0.0.1:8080", keycloak.base),
            ("ADMIN_PASSWORD=admin", f"ADMIN_PASSWORD={keycloak.admin_password}"),
            ("localhost:8096", f"localhost:{port}"),
            ("/tmp/people/", f"{short}/"),
            ("realms/shop", f"realms/shop-{port}"),
        ):
            text = text.replace(theirs, ours)
        return text

    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    for file in [*(folder / "docs/examples/people").rglob("*.*"), folder / "docs/examples/agent_for_user.py"]:
        text = here(file.read_text())
        file.write_text(
            text.replace('"realm": "shop"', f'"realm": "shop-{port}"') if file.name == "realm.json" else text
        )
    typed = here(pagelines.sections(PAGE)[STEPS])
    # What the tests run with has them.
    typed = re.sub(r"^pip install .*\n", "", typed, flags=re.MULTILINE)
    environment = guide.environment_of({**clean_environment(), "BROWSER": BROWSER})
    try:
        yield pagelines.run(typed, folder, environment)
    finally:
        with suppress(NotThere):  # or what went wrong before it was made would not be told
            Realm(keycloak.base, f"shop-{port}", keycloak.admin_password).remove()  # its users' IDs are there once


def lines(printed: str, start: str) -> list[str]:
    return [each for each in printed.splitlines() if each.startswith(start)]


def test_each_their_own(printed: str) -> None:
    """Alice's and bob's order is refunded, by the same program, each for its customer."""
    first, second = lines(printed, "200 ")
    assert "'order': '1001', 'refunded': 2500, 'for': '6f1c2c58-" in first
    assert "'order': '2002', 'refunded': 2500, 'for': 'b0b5c0de-" in second
    for each in (first, second):
        assert each.endswith("'by': 'spiffe://example.org/agent/refund'}")


def test_what_is_refused(printed: str) -> None:
    """What the page says is refused, is: by the shop, by the guard, and by policy, which leaves the action out."""
    assert ["404 no such order"] == lines(printed, "404")
    page = (ROOT / "docs" / PAGE).read_text("utf-8").splitlines()
    assert [each for each in page if each.startswith("403 ")] == lines(printed, "403 ")


def test_what_is_told(printed: str) -> None:
    """The token is well at each step, the cases of the type hold, and the journal has alice by her pseudonym alone."""
    assert "corp: ok" in printed.splitlines()
    assert "0 failed" in printed
    assert [each for each in printed.splitlines() if each.isdigit() and int(each) >= 2]


def test_at_most_twelve_steps() -> None:
    """The page's list is at most twelve steps long, and no other section of it has commands that are not typed here."""
    section = (ROOT / "docs" / PAGE).read_text("utf-8").partition(f"## {STEPS}\n")[2].partition("\n## ")[0]
    assert [str(each) for each in range(1, 13)] == re.findall(r"^(\d+)\. ", section, flags=re.MULTILINE)
    assert {STEPS} == set(pagelines.sections(PAGE))
