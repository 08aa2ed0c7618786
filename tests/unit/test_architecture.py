"""docs/architecture.md says what is so: its files are there, and its arrows are the imports between the rooms."""

import ast
import re
from pathlib import Path

import pytest
from harness.trees import nodes_of

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "agent" / "sojourn"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = {path.parent.name for path in AGENT.glob("*/__init__.py")} - {"_pb"}


def named():
    """Every file and folder that stands in backticks, and every page that is linked."""
    files = re.findall(r"`([\w./-]+(?:/|\.(?:py|toml)))`", PAGE)
    return sorted({*files, *(f"docs/{name}" for name in re.findall(r"\]\(([\w-]+\.md)\)", PAGE))})


def drawn():
    """By room, the rooms that an arrow of the picture goes to."""
    found = {}
    for one, others in re.findall(r"^ +(\w+)(?:\[.*?\])? --> (\w+(?: & \w+)*)$", PAGE, re.MULTILINE):
        found.setdefault(one, set()).update(others.split(" & "))
    return found


def reached(room, arrows):
    """The rooms that some way along the arrows leads to."""
    found, due = set(), [room]
    while due:
        for each in arrows.get(due.pop(), ()):
            if each not in found:
                found.add(each)
                due.append(each)
    return found


def room_of(name):
    """The room of a module below `sojourn`; None: it is in none."""
    first = name.partition(".")[0]
    return first if first in ROOMS else None


def uses(path):
    """The modules below `sojourn` that a file imports, wherever in the file."""
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sojourn":
            for alias in node.names:
                yield f"{node.module}.{alias.name}".removeprefix("sojourn.")


def imported():
    """By room, the other rooms that its files import, with one import of each."""
    found = {}
    for path in sorted((*AGENT.rglob("*.py"), *(ROOT / "attestors").rglob("*.py"))):
        ours = path.is_relative_to(AGENT)
        one = room_of(".".join(path.relative_to(AGENT).with_suffix("").parts)) if ours else "attestors"
        for name in uses(path):
            other = room_of(name)
            if one is not None and other not in {None, one}:
                found.setdefault(one, {}).setdefault(other, f"{path.name} imports {name}")
    return found


@pytest.mark.parametrize("name", named())
def test_what_it_names_is_there(name):
    """A file or a folder that the page names is there, below agent/sojourn or in the repository."""
    assert any((place / name).exists() for place in (AGENT, ROOT))


def test_it_has_every_room():
    """Each room of the agent is in the picture, and nothing else is but our attestors."""
    arrows = drawn()
    assert ROOMS | {"attestors"} == arrows.keys() | {each for to in arrows.values() for each in to}


def test_every_import_is_drawn():
    """Where one room imports another, arrows lead there."""
    undrawn = {
        f"{one} -> {other}": why
        for one, others in imported().items()
        for other, why in others.items()
        if other not in reached(one, drawn())
    }
    assert {} == undrawn


def test_every_arrow_is_an_import():
    """An arrow of the picture is an import that there is."""
    found = imported()
    assert [] == [(one, other) for one, to in drawn().items() for other in to if other not in found.get(one, ())]


def test_no_arrow_goes_back():
    """No way along the arrows comes back to where it began."""
    assert [] == [room for room in drawn() if room in reached(room, drawn())]
