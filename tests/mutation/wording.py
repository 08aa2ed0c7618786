"""Whether a mutant says something in other words, and does nothing else."""

import ast
from collections.abc import Iterator

ERRORS_MODULES = ("errors", "oautherrors")
LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})


def error_names(module: ast.Module) -> frozenset[str]:
    """The names under which a module has the errors of Sojourn: what it imports of them, and what it derives."""
    found: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2] in ERRORS_MODULES:
            found |= {name.asname or name.name for name in node.names if name.name[0].isupper()}
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id in found for base in node.bases
        ):
            found.add(node.name)
    return frozenset(found)


def only_wording(function: ast.AST, mutant: ast.AST, errors: frozenset[str]) -> bool:
    """Whether two syntax trees of a function differ, and in messages alone.

    A message is the first argument of an error that is raised or made, or of a log's method, where that is written
    down as a text, and a docstring. Codes, details and fields are no wording: programs and operators go by them.
    """
    messages = frozenset(map(id, _messages(function, errors)))
    return not _same(function, mutant, frozenset()) and _same(function, mutant, messages)


def _messages(function: ast.AST, errors: frozenset[str]) -> Iterator[ast.AST]:
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node, clean=False) is not None:
                yield node.body[0]
        elif isinstance(node, ast.Raise):
            if isinstance(node.exc, ast.Call):
                yield from _first_text(node.exc)
        elif isinstance(node, ast.Call):
            made = isinstance(node.func, ast.Name) and node.func.id in errors
            if made or _is_log(node.func):
                yield from _first_text(node)


def _is_log(method: ast.expr) -> bool:
    return (
        isinstance(method, ast.Attribute)
        and method.attr in LOG_METHODS
        and isinstance(method.value, ast.Name)
        and method.value.id in {"log", "logger"}
    )


def _first_text(call: ast.Call) -> Iterator[ast.AST]:
    if call.args:
        yield from _texts(call.args[0])


def _texts(node: ast.expr) -> Iterator[ast.AST]:
    """A literal or f-string; of a choice each, but not which."""
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node


def _same(one: object, other: object, leaving_out: frozenset[int]) -> bool:
    """Whether two trees are equal, but for the nodes of the first whose `id` is in `leaving_out`."""
    if id(one) in leaving_out:
        return True
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(*pair, leaving_out) for pair in zip(one, other, strict=True))
    if not isinstance(one, ast.AST) or not isinstance(other, ast.AST):
        return type(one) is type(other) and one == other
    return type(one) is type(other) and all(
        _same(getattr(one, name, None), getattr(other, name, None), leaving_out) for name in one._fields
    )
