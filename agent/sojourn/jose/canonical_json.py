"""Documents of the agent's own: their digests, and reading what an earlier run has written.

Nothing in that is taken on trust.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from sojourn.errors import InvalidInput

Wanted = TypeVar("Wanted")
# Canonical JSON: members sorted, no spaces, ASCII.
canonical: Final[Callable[[object], str]] = json.JSONEncoder(
    separators=(",", ":"), sort_keys=True, ensure_ascii=True
).encode


def digest_of(value: object) -> str:
    """SHA-256 over canonical JSON, lower-case hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def exactly(kind: type[Wanted], value: object) -> Wanted:
    """`value`, if it is of this very type: True is no int. Raise InvalidInput."""
    if type(value) is not kind:
        raise InvalidInput(f"not of type {kind.__name__}")
    return value


def texts(members: Mapping[object, object]) -> dict[str, str]:
    """The members of a document, all of whose names and values are texts. Raise InvalidInput."""
    return {exactly(str, name): exactly(str, value) for name, value in members.items()}


def seconds(value: object) -> float:
    """A moment or a length of time. Raise InvalidInput."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InvalidInput("not a time")
    return float(value)
