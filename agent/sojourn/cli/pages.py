"""Lists that the agent gives in pages: printed as the pages come, so that a long list is held by nobody."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sojourn.cli.options import Output
from sojourn.cli.output import escaped, printable
from sojourn.cli.watch import show as show_live

Value = dict[str, Any]
Follow = Callable[[Callable[[Sequence[Value]], None]], None]
"""Calls what it is given with the values of each page, one after the other."""
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class PageForm:
    """How a list is printed: its `name` in JSON; for people a table, or the line `none`."""

    name: str
    headings: Sequence[str]
    row: Callable[[Value], Sequence[object]]
    none: str

    def lines(self, values: Sequence[Value]) -> list[str]:
        """The whole table."""
        return list(PageTable(self).lines(values)) if values else [self.none]


@dataclass(slots=True)
class PageTable:
    """A table that grows. Its columns are as wide as the first rows need; what is longer later stands out."""

    form: PageForm
    _widths: list[int] = field(default_factory=list)

    def lines(self, values: Sequence[Value]) -> list[str]:
        rows = [[printable(str(cell)) for cell in self.form.row(value)] for value in values]
        if not self._widths:
            rows.insert(0, list(self.form.headings))
            self._widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, self._widths)).rstrip() for row in rows]


class Printer:
    """Prints a list part by part. `end` must be called when there is no more."""

    def __init__(
        self, output: Output, name: str, lines: Callable[[Sequence[Value]], list[str]], none: str = ""
    ) -> None:
        """`name`: of the list in JSON. `lines`: of a part, for people, and `none` where there is nothing."""
        self._json = output is Output.JSON
        self._begin = f'{{\n  "{name}": ['
        self._lines = lines
        self._none = none
        self._any = False

    def add(self, values: Sequence[Value]) -> None:
        if not values:
            return
        if not self._json:
            print("\n".join(self._lines(values)), flush=True)
        else:
            begin = "," if self._any else self._begin
            texts = (json.dumps(value, indent=2, ensure_ascii=False) for value in values)
            items = (_INDENT + escaped(text).replace("\n", "\n" + _INDENT) for text in texts)
            sys.stdout.write(begin + "\n" + ",\n".join(items))
        self._any = True

    def end(self, **others: Any) -> None:
        """`others`: what JSON has beside the list."""
        if self._json:
            print("\n  ]" if self._any else self._begin + "]", end="")
            print("".join(f',\n  "{name}": {json.dumps(value)}' for name, value in others.items()) + "\n}")
        elif not self._any and self._none:
            print(self._none)


def show(output: Output, form: PageForm, follow: Follow, *, watch: bool = False, interval: str = "") -> None:
    """Print a list as its pages come; with `watch` all of it, and again whenever it has changed."""
    if watch:

        def get() -> Value:
            found: list[Value] = []
            follow(found.extend)
            return {form.name: found}

        show_live(output, get, lambda value: form.lines(value[form.name]), watch=True, interval=interval)
        return
    printer = Printer(output, form.name, PageTable(form).lines, form.none)
    follow(printer.add)
    printer.end()


def more(number: int, where: str) -> list[str]:
    """The line that says how much was left out, and where it is; none if nothing was."""
    return [f"{number} more {'was' if number == 1 else 'were'} left out: {where}"] if number else []
