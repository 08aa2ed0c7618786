"""Syntax trees of files, each of which a process parses once."""

import ast
import gc
from functools import cache
from pathlib import Path


def parsed(text: str) -> ast.Module:
    """The tree of a text. A collection on the way would have CPython 3.11 lose count of its depth: there is none."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if collects:
            gc.enable()


@cache
def tree_of(path: Path) -> ast.Module:
    """The tree of a file. It is everybody's: change nothing of it."""
    return parsed(path.read_text("utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's tree, as ast.walk tells them."""
    return tuple(ast.walk(tree_of(path)))
