"""The pages' links lead somewhere: to a file that is there, and to a heading that it has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A link in text, with what is behind `#`; not one in code, nor an address elsewhere.
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What a forge makes of the headings for links: lower case, no punctuation, hyphens for spaces, numbers for twins."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        plain = re.sub(r"\]\([^)]*\)", "]", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = found.get(name, 0)
        found[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def dead(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target, anchor in _LINK.findall(_CODE.sub("", text)):
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            found.append(target)
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text("utf-8")):
            found.append(f"{target}#{anchor}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each link of a page leads to a file that is there, and to a heading of it if it names one."""
    assert [] == dead(page, page.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](README.md) [b](README.md#where-to-go-on) [c](https://example.org/#x)", []),
        ("[a](NOTHING.md)", ["NOTHING.md"]),
        ("[a](README.md#no-such-heading)", ["README.md#no-such-heading"]),
        ("## One, `two`\n[a](#one-two) [b](#one)", ["#one"]),
        ("`[a](NOTHING.md)`", []),
    ],
)
def test_dead_links_are_found(text: str, found: list[str], tmp_path: Path) -> None:
    """A file or a heading that is not there is found; what is code, or elsewhere, is no link of ours."""
    page = ROOT / "PAGE.md"
    if text.startswith("##"):
        page = tmp_path / "PAGE.md"
        page.write_text(text)
    assert found == dead(page, text)


def test_two_headings_of_one_name() -> None:
    """The second of two headings that are alike has a number."""
    assert {"a", "a-1"} == anchors("# A\n## A\n")


def test_each_page_is_found_from_the_index() -> None:
    """From docs/index.md every page of docs/ can be reached by links."""
    seen: set[Path] = set()
    wait = [ROOT / "docs" / "index.md"]
    while wait:
        page = wait.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        links = _LINK.findall(_CODE.sub("", page.read_text("utf-8")))
        wait += [(page.parent / target).resolve() for target, _ in links if target.endswith(".md")]
    assert set() == {path for path in (ROOT / "docs").rglob("*.md") if "examples" not in path.parts} - seen
