"""What tells people to install something: from a checkout or a wheel of ours, and of the extras each that there is."""

import re
import tomllib
from pathlib import Path

import pytest
from sojourn.extras import how_to_install

ROOT = Path(__file__).parents[2]
# Where a text may tell somebody to install: of programs, guides, and what tests expect of programs.
PLACES = ("agent", "attestors", "docs", "deploy", "tests", "README.md", "CONTRIBUTING.md", "pyproject.toml")
_ARGUMENT = re.compile(r"""pip3? install\s+(?:[^\n`#]*?\s)?['"]?(?P<what>[^\s'"`]*sojourn(?:\\?\[[^\s'"`]*)?)['"]?""")


def told(text: str) -> list[str]:
    """What of Sojourn's a text says to install."""
    return [found["what"].replace("\\", "") for found in _ARGUMENT.finditer(text)]


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pip install 'sojourn[http]'", ["sojourn[http]"]),
        ("`.venv/bin/pip install fastapi 'sojourn[mcp]'`", ["sojourn[mcp]"]),
        (r"pip install 'sojourn\[http\]'", ["sojourn[http]"]),
        ("pip install sojourn", ["sojourn"]),
        ("pip install './sojourn[http]'", ["./sojourn[http]"]),
        ("pip install docs/examples/provider", []),
    ],
)
def test_what_is_looked_for(text: str, expected: list[str]) -> None:
    """The test below sees a package of ours by its name, quoted or not, whatever stands before it."""
    assert expected == told(text)


def test_nothing_comes_from_an_index() -> None:
    """No program and no guide tells anybody to install what has our name on an index: whoever has it there is not us."""
    files = [
        path
        for place in PLACES
        for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".service"} and path != Path(__file__)
    ]
    assert len(files) > 500
    by_name = {
        f"{path.relative_to(ROOT)}: {what}"
        for path in files
        for what in told(path.read_text("utf-8"))
        if not what.startswith((".", "/"))
    }
    assert set() == by_name


def test_how_to_install() -> None:
    """What an error says to run takes a path, and the page that it names is there."""
    assert how_to_install("http").startswith("pip install './sojourn[http]'")
    assert (ROOT / "docs" / "install.md").is_file()


def test_every_extra_is_in_the_table() -> None:
    """The table of extras has each that there is, and no other."""
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9]+)` \|", page.partition("## Extras")[2], re.MULTILINE)
    assert sorted(extras()) == sorted(rows)


def test_the_wheels_name() -> None:
    """The wheel that the page installs is that of this version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"sojourn-{version}-py3-none-any.whl[agent]" in (ROOT / "docs" / "install.md").read_text("utf-8")
