"""Write build/promises.md and build/promises/ from the tests' docstrings, or, with `--check`, say only what they lack.

A test's docstring is what Sojourn promises by it: a sentence that stands by itself, and that no other test of its file
has. The areas are those of promises.toml. Nothing is imported from the tests, and nothing need be installed.
"""

import ast
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from trees import parsed

ROOT = Path(__file__).resolve().parent.parent
TESTS, PAGES = ROOT / "tests", ROOT / "build"
AREAS = Path(__file__).with_suffix(".toml")
LEANS = re.compile(  # what says nothing without the sentence before it
    r"(So|Nor|Neither) (is|are|was|do|does|did|has|have|can|it|for)\b|The same (on|for|holds)\b|(That|This) holds\b"
)
UNIT = "unit/"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a test says that holds."""

    file: str  # below tests/
    group: str  # what the classes around it say, or their names in words
    test: str
    line: int
    text: str
    full: bool = False  # of `make test-all` alone


@dataclass(frozen=True, slots=True)
class Room:
    """A file of tests: what it is about, and what it promises."""

    file: str
    about: str
    promises: tuple[Promise, ...]


@dataclass(frozen=True, slots=True)
class Area:
    """What users care about, as one page."""

    name: str
    title: str
    about: str
    patterns: tuple[str, ...]


def _first_paragraph(node: ast.AST) -> str:
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def _in_words(name: str) -> str:
    """A class's name in words: `TestBrokenGlass` is `Broken glass`, `TestF8Case29Forged` is `F8 case 29 forged`."""
    words = re.findall(r"[A-Z]{2,}(?![a-z])[0-9]*|[A-Z][0-9]+|[A-Z][a-z]*|[0-9]+|[a-z]+", name.removeprefix("Test"))
    return " ".join(word.lower() if at > 0 and not word.isupper() else word for at, word in enumerate(words))


def _promises(
    file: str, body: list[ast.stmt], groups: tuple[str, ...] = (), *, full: bool = False
) -> Iterator[Promise]:
    full = full or any(isinstance(node, ast.Assign) and _marked(node.targets[0], node.value) for node in body)
    for node in body:
        if isinstance(node, ast.ClassDef):
            group = _first_paragraph(node) or _in_words(node.name)
            yield from _promises(file, node.body, (*groups, group), full=full or _is_full(*node.decorator_list))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            alone = full or _is_full(*node.decorator_list)
            yield Promise(file, ": ".join(groups), node.name, node.lineno, _first_paragraph(node), alone)


def _marked(target: ast.expr, value: ast.expr) -> bool:
    """Whether this assignment to `pytestmark` gives all that follows the mark `full`."""
    marks = value.elts if isinstance(value, ast.List) else [value]
    return isinstance(target, ast.Name) and target.id == "pytestmark" and _is_full(*marks)


def _is_full(*marks: ast.expr) -> bool:
    return any(ast.unparse(each) in {f"pytest.mark.{mark}" for mark in ("full", "forked", "timing")} for each in marks)


def read(file: str, source: str) -> Room:
    """A file of tests, by its path below tests/ and its text."""
    tree = parsed(source)
    about = _first_paragraph(tree)
    if named := re.match(r"[\w/]+\.py: ", about):  # what it tests: the reader of promises need not know
        about = about[named.end()].upper() + about[named.end() + 1 :]
    return Room(file, about, tuple(_promises(file, tree.body)))


def faults(room: Room) -> list[str]:
    """What is wrong with a file's docstrings, each with its place and what to do."""
    found = [] if room.about else [f"tests/{room.file}:1: says nothing: give it a docstring that says what it is about"]
    said: dict[str, str] = {}
    for each in room.promises:
        place = f"tests/{each.file}:{each.line}: {each.test}"
        if not each.text:
            found.append(f"{place} promises nothing: give it a docstring of one sentence that says what holds")
        elif each.text in said:
            found.append(f"{place} says word by word what {said[each.text]} says: say what this one adds")
        elif each.text[-1] not in ".?!…":
            found.append(f"{place} is no sentence: it has no end")
        elif LEANS.match(each.text):
            found.append(f"{place} leans on the test before it ({each.text[:20]}…): say what holds, by itself")
        said.setdefault(each.text, each.test)
    return found


def areas() -> list[Area]:
    """The areas, in order."""
    tables = tomllib.loads(AREAS.read_text())
    return [Area(name, each["title"], each["about"], tuple(each["tests"])) for name, each in tables.items()]


def area_of(file: str, among: list[Area]) -> str | None:
    """The name of a file's area: the one with the narrowest pattern that fits; None if none does."""
    fits = [(len(p), each.name) for each in among for p in each.patterns if fnmatch(file, p)]
    return max(fits)[1] if fits else None


def _plain(text: str) -> str:
    """A sentence as Markdown: what is in backticks stays, anything else that Markdown takes for its own is escaped."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if at % 2 else re.sub(r"([\\*_<\[\]|`])", r"\\\1", part) for at, part in enumerate(parts))


def _anchor(file: str) -> str:
    return file.removesuffix(".py").replace("/test_", "-").replace("/", "-")


def _section(room: Room) -> Iterator[str]:
    yield f'### <a id="{_anchor(room.file)}"></a>{_plain(room.about)}\n'
    group = ""
    for at, each in enumerate(room.promises):
        if each.group != group:
            group = each.group
            if at > 0:
                yield ""
            if group:
                yield f"**{_plain(group)}**\n"
        yield f"- {_plain(each.text)} [`{each.test}`](../../tests/{each.file})"
    yield ""


def _page(area: Area, rooms: list[Room]) -> str:
    lines = [f"# {area.title}\n", f"{area.about} Back to [all areas](../promises.md).\n"]
    whole, parts = [r for r in rooms if not r.file.startswith(UNIT)], [r for r in rooms if r.file.startswith(UNIT)]
    for heading, those in (("On a running agent", whole), ("Part by part", parts)):
        if those:
            lines += [f"## {heading}\n", *(line for room in those for line in _section(room))]
    return "\n".join(lines).rstrip() + "\n"


def _index(chosen: dict[str, list[Room]], among: list[Area]) -> str:
    total = sum(len(room.promises) for rooms in chosen.values() for room in rooms)
    lines = [
        "# What Sojourn promises\n",
        f"{total:,} sentences, each proved by the test that is named beside it; a test that fails prints its sentence.",
        "Each area begins with what holds on a running agent, and goes on part by part. This page and those below it",
        "are written by `make promises` from the tests' docstrings: do not edit them.\n",
        "| Area | What it is about | Promises | of them in `make test` |",
        "|---|---|---|---|",
    ]
    for area in among:
        those = [each for room in chosen[area.name] for each in room.promises]
        soon = sum(not each.full for each in those)
        lines.append(
            f"| [{area.title}](#{area.name}) | {area.about} | [{len(those):,}](promises/{area.name}.md) | {soon:,} |"
        )
    for area in among:
        lines.append(f'\n## <a id="{area.name}"></a>[{area.title}](promises/{area.name}.md)\n')
        for room in chosen[area.name]:
            at = f"promises/{area.name}.md#{_anchor(room.file)}"
            lines.append(f"- {_plain(room.about)} [{len(room.promises)}]({at})")
    return "\n".join(lines) + "\n"


def pages(rooms: list[Room], among: list[Area]) -> dict[Path, str]:
    """Each page by its path below build/."""
    order = {"integration": 0, "security": 1, "conformance": 2, "fuzz": 3, "unit": 4}
    chosen: dict[str, list[Room]] = {area.name: [] for area in among}
    for room in sorted(rooms, key=lambda room: (order.get(room.file.split("/")[0], 9), room.file)):
        name = area_of(room.file, among)
        if name is not None and room.promises:
            chosen[name].append(room)
    made = {Path("promises") / f"{area.name}.md": _page(area, chosen[area.name]) for area in among}
    return {Path("promises.md"): _index(chosen, among), **made}


def _shown(room: Room) -> bool:
    """Whether it has something that `make test` shows on a running agent."""
    return not room.file.startswith(UNIT) and not all(each.full for each in room.promises)


def main() -> int:
    among = areas()
    rooms = [read(str(each.relative_to(TESTS)), each.read_text()) for each in sorted(TESTS.rglob("test_*.py"))]
    wrong = [fault for room in rooms for fault in faults(room)]
    wrong += [
        f"tests/{room.file}:1: is of no area: name it in .ci/promises.toml"
        for room in rooms
        if area_of(room.file, among) is None
    ]
    wrong += [
        f".ci/promises.toml: {area.name} names {pattern}, and there is no such test"
        for area in among
        for pattern in area.patterns
        if not any(fnmatch(room.file, pattern) for room in rooms)
    ]
    wrong += [
        f".ci/promises.toml: {area.name} has no test with real processes in `make test`: all have the mark full"
        for area in among
        if not any(_shown(room) and area_of(room.file, among) == area.name for room in rooms)
    ]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    if "--check" in sys.argv[1:]:
        return 0
    shutil.rmtree(PAGES / "promises", ignore_errors=True)
    for path, text in pages(rooms, among).items():
        (PAGES / path).parent.mkdir(parents=True, exist_ok=True)
        (PAGES / path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
