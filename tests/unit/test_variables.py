"""Variables of the environment: docs/reference/environment.md has a table of all that the code reads, and of no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.trees import parsed, tree_of

ROOT = Path(__file__).parents[2]
CODE = (ROOT / "agent" / "sojourn", ROOT / "attestors" / "sojourn_attestors")
# Of these kinds every name that stands in the code is a variable, wherever it is read.
_OURS = re.compile(r"(SOJOURN|SPIFFE|XDG)_[A-Z_]+")
_PLACEHOLDER = "SPIFFE_ID"  # in help texts
_NAME = re.compile(r"[A-Z][A-Z0-9_]+|[a-z]+_proxy")
# What has an environment in it, by its name in the code.
_ENVIRONMENTS = frozenset({"environ", "environment", "kept"})
# WSGI has its requests in a dictionary that is called environ.
_NOT_HERE = frozenset({"wsgi.py", "wsgi_streams.py"})


def names_in(tree: ast.Module) -> Iterator[str]:
    """The variables that a module reads or sets by their names."""
    tuples = {
        target.id: node.value
        for node in ast.walk(tree)
        for target in (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Tuple)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _OURS.fullmatch(node.value):
            yield node.value
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"get", "setdefault"}
        ):
            yield from texts(node.args[0], tuples) if is_environment(node.func.value) and node.args else ()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "home":
            yield "HOME"
        elif isinstance(node, ast.Subscript) and is_environment(node.value):
            yield from texts(node.slice, tuples)
        elif isinstance(node, ast.comprehension) and isinstance(node.iter, ast.Name):
            yield from texts(node.iter, tuples) if reads_each(tree, node) else ()


def reads_each(tree: ast.Module, loop: ast.comprehension) -> bool:
    """Whether what is looped over are names of variables: the loop's name is looked up in an environment."""
    if not isinstance(loop.target, ast.Name):
        return False
    return any(
        (isinstance(node, ast.Subscript) and is_environment(node.value) and uses(node.slice, loop.target.id))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and is_environment(node.func.value)
            and any(uses(each, loop.target.id) for each in node.args)
        )
        for parent in ast.walk(tree)
        if isinstance(parent, ast.GeneratorExp | ast.ListComp | ast.DictComp | ast.SetComp)
        and loop in parent.generators
        for node in ast.walk(parent)
    )


def uses(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def is_environment(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in _ENVIRONMENTS


def texts(node: ast.expr, tuples: dict[str, ast.Tuple]) -> Iterator[str]:
    if isinstance(node, ast.Name) and node.id in tuples:
        node = tuples[node.id]
    for each in node.elts if isinstance(node, ast.Tuple) else [node]:
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and _NAME.fullmatch(each.value):
            yield each.value


def read() -> set[str]:
    found = {
        name
        for folder in CODE
        for path in folder.rglob("*.py")
        if path.name not in _NOT_HERE and "_pb" not in path.parts
        for name in names_in(tree_of(path))
    }
    return found - {_PLACEHOLDER}


def told() -> set[str]:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text("utf-8")
    table = page.partition("## Variables")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([A-Za-z][A-Za-z0-9_]+)`", cell)}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('import os\nos.environ.get("ONE")', {"ONE"}),
        ('environment["TWO"]', {"TWO"}),
        ('_NAMES = ("A_PROXY", "a_proxy")\nany(environment.get(name) for name in _NAMES)', {"A_PROXY", "a_proxy"}),
        ('typer.Option("--x", envvar="SOJOURN_X")', {"SOJOURN_X"}),
        ('_NAMES = ("PATH", "TZ")\n{name: os.environ[name] for name in _NAMES if name in os.environ}', {"PATH", "TZ"}),
        ("Path.home()", {"HOME"}),
        ('other.get("NO")', set()),
    ],
)
def test_what_is_looked_for(code: str, expected: set[str]) -> None:
    """The test below sees each way in which the code reads a variable."""
    assert expected == set(names_in(parsed(code)))


def test_the_table_has_them_all() -> None:
    """The table of the reference names every variable that the code reads or sets, and none that it does not."""
    assert read() == told()
