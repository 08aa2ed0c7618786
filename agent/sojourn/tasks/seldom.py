"""Attributes that most tasks never have. There are thousands of tasks, and a place for each of these in each of them
would be most of what a task takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, overload

from sojourn.tasks.spent import NOTHING, nothing

Value = TypeVar("Value")


@dataclass(slots=True, eq=False, kw_only=True)
class HasSeldom:
    """What has such attributes. `seldom`: those that it has, by name; replaced, and never changed."""

    seldom: Mapping[str, Any] = field(default_factory=nothing, repr=False)


class Seldom(Generic[Value]):
    """One of them: it reads as its default until it is set to something else, and again once it is set back."""

    def __init__(self, default: Value) -> None:
        self._default = default

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, task: None, _owner: type) -> Self: ...

    @overload
    def __get__(self, task: HasSeldom, _owner: type) -> Value: ...

    def __get__(self, task: HasSeldom | None, _owner: type) -> Self | Value:
        if task is None:
            return self
        if task.seldom is NOTHING:
            return self._default
        found: Value = task.seldom.get(self._name, self._default)
        return found

    def __set__(self, task: HasSeldom, value: Value) -> None:
        left = {name: each for name, each in task.seldom.items() if name != self._name}
        if value is not self._default:
            left[self._name] = value
        task.seldom = left or NOTHING
