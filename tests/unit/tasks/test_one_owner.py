"""A task's state has one owner: tasks/task.py, whose methods say which change each is."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import sojourn
from harness.trees import nodes_of, parsed
from sojourn.tasks.seldom import Seldom
from sojourn.tasks.task import Task

ROOT = Path(sojourn.__file__).parent
OWNERS = {ROOT / "tasks/task.py", ROOT / "tasks/seldom.py"}  # and what writes an attribute of it in its name
PARTS = [each for kind in Task.__mro__ for each in vars(kind).items()]
STATE = {each.name for each in fields(Task)} | {name for name, each in PARTS if isinstance(each, Seldom)}
ROOMS = ("tasks", "oauth", "facts", "ssf", "notices", "agent")  # of all that is written in those
OTHERS = ("credentials", "endpoints")  # whose credentials and messages have fields of these names, too


def written(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Where an attribute of another object is written that a task has, and which one."""
    for node in nodes:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            continue
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                own = isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self"
                if isinstance(each, ast.Attribute) and each.attr in STATE and not own:
                    yield each.lineno, each.attr


@pytest.mark.parametrize("room", ROOMS)
def test_nobody_else_writes_it(room: str) -> None:
    """No other file sets a field that a task has, of whatever object that is not its own."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, name in written(nodes_of(path))
        if path not in OWNERS
    ]
    assert [] == found


@pytest.mark.parametrize("room", OTHERS)
def test_nor_where_others_have_such_fields(room: str) -> None:
    """Where credentials and messages have fields of these names, none of a task is set."""
    found = [
        (path, line)
        for path in (ROOT / room).rglob("*.py")
        for line, name in written(nodes_of(path))
        if f"task.{name}" in path.read_text().splitlines()[line - 1].partition("=")[0]
    ]
    assert [] == found


@pytest.mark.parametrize(
    "text", ["task.state = 'x'", "a.b.version += 1", "x, task.holder = 1, 2", "task.doom: str = ''", "each.key = None"]
)
def test_what_would_be_found(text: str) -> None:
    """Each way of writing to a task is found."""
    assert 1 == len(list(written(ast.walk(parsed(text)))))
