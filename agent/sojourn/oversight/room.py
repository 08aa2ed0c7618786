"""Which names a day has room for.

What tasks can be granted stands in task types, and who may have them too, so that no caller makes up a name. An
operator's files may say more than a day's sums should hold all the same: what comes first has its own sums, and the
rest is added up under OTHERS, and told.
"""

from collections.abc import Callable, Iterable
from typing import Final

from sojourn.operating_limits import USAGE_KEYS_A_DAY
from sojourn.oversight.sums import ActionKey, TypeKey

Name = tuple[str, str, str, str, str]  # type, digest, workload; and resource and action, or nothing
OTHERS: Final = ("", "", "")
_DAYS_AT_HAND: Final = 3  # around midnight, and a clock that was set


class DayRoom:
    """The names of each day, as far as there is room."""

    def __init__(self, most: int = USAGE_KEYS_A_DAY, known: Callable[[int], Iterable[Name]] = lambda _day: ()) -> None:
        """`known`: those that a day has already."""
        self._most = most
        self._known = known
        self._days: dict[int, set[Name]] = {}

    def type_key(self, key: TypeKey) -> TypeKey:
        """The key under which tasks are added up."""
        return key if self._has(key.day, (*key[1:], "", "")) else TypeKey(key.day, *OTHERS)

    def action_key(self, key: ActionKey) -> ActionKey:
        """The key under which what concerns an action is added up."""
        return key if self._has(key.day, key[1:]) else ActionKey(key.day, *OTHERS, "", "")

    def forget(self) -> None:
        """Ask `known` again."""
        self._days.clear()

    def _has(self, day: int, name: Name) -> bool:
        names = self._days.get(day)
        if names is None:
            names = self._days[day] = set(self._known(day))
            if len(self._days) > _DAYS_AT_HAND:
                del self._days[min(self._days)]
        if name in names:
            return True
        if len(names) >= self._most:
            return False
        names.add(name)
        return True
