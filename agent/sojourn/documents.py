"""Reading documents that an earlier run of the agent has written: nothing in them is taken on trust."""

from collections.abc import Mapping
from typing import TypeVar

from sojourn.errors import InvalidInput

Wanted = TypeVar("Wanted")


def exactly(kind: type[Wanted], value: object) -> Wanted:
    """`value`, if it is of this very type: True is no int. Raise InvalidInput."""
    if type(value) is not kind:
        raise InvalidInput(f"not of type {kind.__name__}")
    return value


def texts(members: Mapping[object, object]) -> dict[str, str]:
    """The members of a document, all of whose names and values are texts. Raise InvalidInput."""
    return {exactly(str, name): exactly(str, value) for name, value in members.items()}
