"""Which tests a file has."""

import ast
from functools import cache
from pathlib import Path


@cache
def functions(path: Path) -> set[str]:
    """The names of the tests in a file, those of its classes too."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
