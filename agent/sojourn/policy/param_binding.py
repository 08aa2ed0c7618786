"""Which parameters concern which action, as a task type's `[bind]` says it: what is wrong with that."""

import re
from collections.abc import Iterator

from sojourn.errors import Fault
from sojourn.policy.task_type_tables import TypeFile

_TABLE = re.compile(r"\s*\[\s*bind\s*\]")
_HEADER = re.compile(r"\s*\[")
_INLINE = re.compile(r"\s*bind\s*[=.]")


def faults(name: str, toml: str, file: TypeFile) -> list[Fault]:
    """The faults of `[bind]`, each with the line of its action."""
    actions = {action for each in file.ceiling for action in each.actions}
    return [
        Fault(name, line_of(toml, action), f"bind.{action}: {said}")
        for action, names in file.bind.items()
        for said in _of(file, actions, action, names)
    ]


def _of(file: TypeFile, actions: set[str], action: str, names: tuple[str, ...]) -> Iterator[str]:
    if action not in actions:
        yield f"no ceiling has the action {action[:64]!r}"
    for each in names:
        rule = file.params.get(each)
        if rule is None:
            yield f"the type has no parameter {each[:64]!r}"
        elif not rule.in_tokens:
            yield f"parameter {each!r} has in_tokens = false, so that no service can compare it"


def line_of(toml: str, action: str) -> int:
    """Where an action's line of `[bind]` stands, or the table itself; 0 if neither can be found."""
    table, inside = 0, False
    key = re.compile(rf"""\s*["']?{re.escape(action)}["']?\s*=""")
    for number, line in enumerate(toml.splitlines(), 1):
        if _INLINE.match(line) and not inside:
            table = table or number
        elif _HEADER.match(line):
            inside = bool(_TABLE.match(line))
            table = number if inside else table
        elif inside and key.match(line):
            return number
    return table
