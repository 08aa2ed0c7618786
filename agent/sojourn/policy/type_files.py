"""The two files of a task type as they are changed in place: what is not changed stays, comments too."""

import re
import tomllib
from collections.abc import Iterable
from typing import Any, Final

import tomlkit

from sojourn.errors import InvalidInput
from sojourn.policy.task_types import TaskType, parse

_TRAILING: Final = re.compile(r"\A[ \t]*//[^\n\r]*")  # a comment on the line on which a policy ends
_HEADER: Final = re.compile(r"\s*\[")
_CEILING: Final = re.compile(r"\s*\[\[\s*ceiling\s*\]\]")


class TypeFiles:
    """The files of one task type. Each change takes something away, or sets a key; `made` says whether it is a type."""

    def __init__(self, kind: TaskType, toml: str, cedar: str) -> None:
        self._kind = kind
        self._document = tomlkit.parse(toml)
        self._cedar = cedar
        self._clauses = list(kind.policy.clauses)

    @property
    def toml(self) -> str:
        return tomlkit.dumps(self._document)

    @property
    def cedar(self) -> str:
        return self._cedar

    def made(self) -> TaskType:
        """The type that they are. Raise InvalidPolicy with all that is wrong."""
        return parse(self._kind.name, self.toml, self._cedar)

    def put(self, path: Iterable[str], value: Any) -> None:
        """Give a key a value; `path` are the names of its tables, and its own."""
        *tables, key = path
        self._table(tables)[key] = value

    def drop(self, path: Iterable[str]) -> None:
        """Take a key away, and a table in which nothing is left."""
        *tables, key = path
        del self._table(tables)[key]
        if tables and not self._table(tables):
            self.drop(tables)

    def take_out(self, path: Iterable[str], value: str) -> None:
        """Take a value out of an array, however often it stands there."""
        *tables, key = path
        _remove(self._table(tables)[key], value)

    def put_param(self, name: str, gone: Iterable[str] = (), **rules: Any) -> None:
        """Say more of a parameter, and no more what is in `gone`."""
        params: Any = self._document["params"]
        if isinstance(params[name], str):  # its type alone
            table = tomlkit.inline_table()
            table["type"] = str(params[name])
            params[name] = table
        for each in gone:
            if each in params[name]:
                del params[name][each]
        for key, value in rules.items():
            params[name][key] = value

    def take_action(self, resource: str, action: str) -> None:
        """Take an action at a resource out of the ceiling; the last of its kind goes with all that is said of it alone.

        A policy that names others beside it stays as it is, and then the files are no task type any more.
        """
        tables: Any = self._document["ceiling"]
        for number in reversed(range(len(tables))):
            if tables[number]["resource"] == resource and action in tables[number]["actions"]:
                _remove(tables[number]["actions"], action)
                if not tables[number]["actions"]:
                    self._drop_ceiling(number)
        tables = self._document["ceiling"]
        left = {str(each) for table in tables for each in table["actions"]}
        if action in left:
            return
        for name in ("limits", "bind", "consequence_of"):
            if action in self._document.get(name, ()):
                self.drop((name, action))
        for clause in list(self._clauses):
            if clause.actions and clause.actions.isdisjoint(left):
                self.take_policy(clause.id)

    def _drop_ceiling(self, number: int) -> None:
        """Take a table of the ceiling away, with the comment that stands directly above it.

        To tomlkit that belongs to what stands before it. Where the lines are not as they seem, it does all the same.
        """
        tables: Any = self._document["ceiling"]
        expected = self._document.unwrap()
        del expected["ceiling"][number]
        without = _without_table(self.toml, number)
        if without is not None and tomllib.loads(without) == expected:
            self._document = tomlkit.parse(without)
        else:
            del tables[number]

    def take_policy(self, name: str) -> None:
        """Take a policy away, with the comment that stands directly above it. Raise InvalidInput."""
        clause = next((each for each in self._clauses if each.id == name), None)
        if clause is None:
            return  # it has gone with its action
        if self._cedar.count(clause.text) != 1:
            raise InvalidInput(f"the text of policy {name[:64]!r} is not there once: it is changed by hand")
        before, after = self._cedar.split(clause.text)
        lines = before.split("\n")
        while len(lines) > 1 and lines[-2].lstrip().startswith("//") and not lines[-1].strip():
            del lines[-2]
        before, after = "\n".join(lines), _TRAILING.sub("", after, count=1)
        self._cedar = (before.rstrip() + "\n\n" if before.strip() else "") + after.lstrip("\n \t")
        self._clauses.remove(clause)

    def _table(self, tables: Iterable[str]) -> Any:
        found: Any = self._document
        for each in tables:
            found = found[each]
        return found


def _remove(array: Any, value: str) -> None:
    """Raise ValueError if it is not there."""
    array.remove(value)
    while value in array:
        array.remove(value)


def _without_table(toml: str, number: int) -> str | None:
    """A text without the lines of a table [[ceiling]], by its place, and the comment above it; None: there is none."""
    lines = toml.splitlines(keepends=True)
    heads = [at for at, line in enumerate(lines) if _CEILING.match(line)]
    if number >= len(heads):
        return None
    following = (at for at, line in enumerate(lines) if at > heads[number] and _HEADER.match(line))
    first, last = heads[number], next(following, len(lines))
    first, last = _above(lines, first), len(lines) if last == len(lines) else _above(lines, last)
    return "".join(lines[:first]) + "".join(lines[last:])


def _above(lines: list[str], at: int) -> int:
    """Where the comment begins that stands directly above a line."""
    while at and lines[at - 1].lstrip().startswith("#"):
        at -= 1
    return at
