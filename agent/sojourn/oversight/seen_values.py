"""Which values something had: a parameter of tasks, or a fact that policies read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

VALUES_SHOWN: Final = 20
_TEXT_SHOWN: Final = 100  # characters of a value; a longer one is not kept


@dataclass(slots=True)
class SeenValues:
    """The values as far as they are few and short, each as JSON; and of numbers the least and the greatest.

    `many`: there are more than VALUES_SHOWN, or one is too long: then none is kept. `longest`: characters of a text.
    """

    number: int = 0  # how often one was seen
    values: set[str] = field(default_factory=set)
    many: bool = False
    least: int | None = None
    greatest: int | None = None
    longest: int | None = None

    def add(self, value: str | int | bool) -> None:
        """Note one."""
        self.number += 1
        if isinstance(value, str):
            self.longest = max(self.longest or 0, len(value))
            if len(value) > _TEXT_SHOWN:
                self._give_up()
        elif not isinstance(value, bool):
            self.least = _of_both(min, self.least, value)
            self.greatest = _of_both(max, self.greatest, value)
        if not self.many:
            self.values.add(json.dumps(value))
            self._bound()

    def merge(self, other: "SeenValues") -> None:
        """Have what both have."""
        self.number += other.number
        self.least = _of_both(min, self.least, other.least)
        self.greatest = _of_both(max, self.greatest, other.greatest)
        self.longest = _of_both(max, self.longest, other.longest)
        if self.many or other.many:
            self._give_up()
        else:
            self.values |= other.values
            self._bound()

    @property
    def constant(self) -> bool:
        """Whether it was the same each time."""
        return not self.many and len(self.values) == 1

    @property
    def shown(self) -> list[str | int | bool]:
        """The values, if they are few and short."""
        return sorted((json.loads(each) for each in self.values), key=lambda value: (str(type(value)), value))

    def _bound(self) -> None:
        if len(self.values) > VALUES_SHOWN:
            self._give_up()

    def _give_up(self) -> None:
        self.many, self.values = True, set()

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"number": self.number}
        if self.many:
            found["many"] = True
        else:
            found["values"] = sorted(self.values)
        for name in ("least", "greatest", "longest"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        return found

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        ends = (document.get(name) for name in ("least", "greatest", "longest"))
        return cls(document["number"], set(document.get("values", ())), document.get("many", False), *ends)


def _of_both(choose: Any, one: int | None, other: int | None) -> int | None:
    found: int | None = choose((each for each in (one, other) if each is not None), default=None)
    return found
