"""Which tests a file has."""

import ast
from functools import cache
from pathlib import Path

from harness.trees import nodes_of


@cache
def functions(path: Path) -> set[str]:
    """The names of the tests in a file, those of its classes too."""
    return {
        node.name
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
