"""What a task and its family have used: tokens, calls, and uses of actions that are counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from sojourn.limits import GRANTS_PARSED_KEPT
from sojourn.tasktoken.grants import Grant

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})  # one for all tasks: most have nothing of most kinds


def nothing() -> Mapping[Any, Any]:
    """NOTHING, for a field."""
    return NOTHING


@dataclass(slots=True)
class Use:
    """What was made of one action at one resource."""

    tokens: int = 0
    calls: int = 0


@dataclass(slots=True)
class Spent(Use):
    """What a family has used of the budgets and limits that it shares. `counted`: uses of each action with a limit."""

    counted: Mapping[str, int] = field(default_factory=nothing)

    def count(self, action: str, number: int = 1) -> None:
        """Count a use; -1 takes one back that was not allowed after all."""
        self.counted = {**self.counted, action: self.counted.get(action, 0) + number}

    def merge(self, other: "Spent") -> None:
        """Have what either of the two has: of each count the greater."""
        self.tokens, self.calls = max(self.tokens, other.tokens), max(self.calls, other.calls)
        for action, number in other.counted.items():
            self.counted = {**self.counted, action: max(number, self.counted.get(action, 0))}


@lru_cache(GRANTS_PARSED_KEPT)
def one_token(grant: Grant) -> Mapping[tuple[str, str], Use]:
    """What was made of a grant for which one token was issued: for most tasks that stays so."""
    return MappingProxyType({(grant.resource, action): Use(tokens=1) for action in grant.actions})
