"""What a task and its family have used: tokens, calls, and uses of actions that are counted. Values: what is counted
further takes their place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from sojourn.limits import GRANTS_PARSED_KEPT
from sojourn.tasktoken.grants import Authority, Grant

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})  # one for all tasks: most have nothing of most kinds


def nothing() -> Mapping[Any, Any]:
    """NOTHING, for a field."""
    return NOTHING


@dataclass(frozen=True, slots=True)
class Use:
    """What was made of one action at one resource."""

    tokens: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What is used of budgets and limits. `counted`: uses of each action with a limit."""

    tokens: int = 0
    calls: int = 0
    counted: Mapping[str, int] = field(default_factory=nothing)


@dataclass(frozen=True, slots=True)
class Used:
    """What was made of a task: tokens of it and calls that services accepted, in all and by (resource, action)."""

    total: Spent = Spent()
    of_actions: Mapping[tuple[str, str], Use] = field(default_factory=nothing)

    def with_tokens(self, grant: Grant, number: int) -> "Used":
        """The same with so many tokens more for a grant."""
        uses = {**self.of_actions}
        for action in grant.actions:
            use = self._use(grant.resource, action)
            uses[grant.resource, action] = Use(use.tokens + number, use.calls)
        total = self.total
        return Used(Spent(total.tokens + number, total.calls, total.counted), uses)

    def with_calls(self, resource: str, action: str, number: int) -> "Used":
        """The same with so many calls more."""
        use = self._use(resource, action)
        uses = {**self.of_actions, (resource, action): replace(use, calls=use.calls + number)}
        return Used(replace(self.total, calls=self.total.calls + number), uses)

    def _use(self, resource: str, action: str) -> Use:
        return self.of_actions.get((resource, action), _NO_USE)


_NO_USE: Final = Use()
NOT_USED: Final = Used()


@lru_cache(GRANTS_PARSED_KEPT)
def one_token(grant: Grant) -> Used:
    """What was made of a task of which one token was issued, for this grant: for most tasks that stays so."""
    return NOT_USED.with_tokens(grant, 1)


@dataclass(slots=True, eq=False)
class Purse:
    """What a family spends from: all of its tasks share one."""

    spent: Spent = Spent()

    def count(self, *, tokens: int = 0, calls: int = 0) -> None:
        """Count so many more, or fewer."""
        self.spent = replace(self.spent, tokens=self.spent.tokens + tokens, calls=self.spent.calls + calls)

    def count_use(self, action: str, number: int) -> None:
        """Count uses of an action with a limit."""
        counted = self.spent.counted
        self.spent = replace(self.spent, counted={**counted, action: counted.get(action, 0) + number})

    def merge(self, other: Spent) -> None:
        """Have what either of the two has: of each count the greater."""
        spent = self.spent
        counted = {**spent.counted}
        for action, number in other.counted.items():
            counted[action] = max(number, counted.get(action, 0))
        tokens, calls = max(spent.tokens, other.tokens), max(spent.calls, other.calls)
        self.spent = Spent(tokens, calls, counted or NOTHING)


def rows_of(authority: Authority, used: Used, spent: Spent, limits: Mapping[str, int]) -> list[dict[str, Any]]:
    """What was granted against what was used of it: a row for each action at each resource."""
    granted = [(grant.resource, action) for grant in authority.grants for action in grant.actions]
    rows = []
    for resource, action in dict.fromkeys([*granted, *used.of_actions]):
        use = used.of_actions.get((resource, action), _NO_USE)
        row = {"resource": resource, "action": action, "tokens": use.tokens, "calls": use.calls}
        if action in limits:
            row |= {"counted": spent.counted.get(action, 0), "limit": limits[action]}
        rows.append(row)
    return rows
