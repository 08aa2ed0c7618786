"""What tasks were granted and what was used of it, added up from records of the journal, by day.

Three grades of evidence, which are never added to each other: a task was `granted` an action; a token or an outside
credential for it was `taken`; a service said that it was `called`. A record counts on the day of its `at_ms`, by UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, Protocol, Self

from sojourn.oversight.histogram import Histogram
from sojourn.oversight.seen_values import SeenValues

DAY_MS: Final = 86_400_000


class TypeKey(NamedTuple):
    """Tasks of one type, as it was then, that one workload had on a day. `digest`: as records name the type's."""

    day: int  # since the epoch
    type: str
    digest: str
    workload: str


class ActionKey(NamedTuple):
    """One action at one resource that such tasks had."""

    day: int
    type: str
    digest: str
    workload: str
    resource: str
    action: str


@dataclass(slots=True)
class ActionSum:
    """What became of one action. `first_ms`, `last_ms`: when a token was taken, or a task that called it had ended."""

    granted: int = 0  # tasks that had it at their end, or used it before
    taken: int = 0  # tasks that took a token for it
    called: int = 0  # tasks of which a service told calls
    tokens: int = 0
    calls: int = 0
    unused_tokens: int = 0  # of tasks of which no service told a call
    denied: int = 0  # decisions of policies
    most: int = 0  # uses in one family of tasks, where the type counts them
    first_ms: int = 0  # 0: never
    last_ms: int = 0

    def used_at(self, at_ms: int) -> None:
        self.last_ms = max(self.last_ms, at_ms)
        if not self.first_ms or at_ms < self.first_ms:
            self.first_ms = at_ms

    def merge(self, other: "ActionSum") -> None:
        """Have what both have."""
        for name in ADDED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.most = max(self.most, other.most)
        if other.last_ms:
            self.used_at(other.first_ms)
            self.used_at(other.last_ms)


# What is added up of two; of `most` and the times one of the two is left.
ADDED: Final = ("granted", "taken", "called", "tokens", "calls", "unused_tokens", "denied")


@dataclass(slots=True)
class TypeSum:
    """What became of the tasks. Tokens and calls are those of a whole family, which shares its budgets: of each task
    that was not handed on. Milliseconds are those of tasks that have begun, from then to their end.
    """

    tasks: int = 0
    milliseconds: Histogram = field(default_factory=Histogram)
    tokens: Histogram = field(default_factory=Histogram)
    calls: Histogram = field(default_factory=Histogram)
    depth: Histogram = field(default_factory=Histogram)
    children: Histogram = field(default_factory=Histogram)
    bindings: dict[str, int] = field(default_factory=dict)  # tasks by how they were held
    policies: dict[str, int] = field(default_factory=dict)  # decisions by each policy that decided
    denials: dict[str, int] = field(default_factory=dict)  # by code: of tokens and beginnings, and services' own
    params: dict[str, SeenValues] = field(default_factory=dict)
    facts: dict[str, SeenValues] = field(default_factory=dict)

    def seen(self, what: str, name: str, value: str | int | bool) -> None:
        """Note a value of one of the `params` or `facts`."""
        of_all: dict[str, SeenValues] = getattr(self, what)
        found = of_all.get(name)
        if found is None:
            found = of_all[name] = SeenValues()
        found.add(value)

    def merge(self, other: "TypeSum") -> None:
        """Have what both have."""
        self.tasks += other.tasks
        for name in _HISTOGRAMS:
            getattr(self, name).merge(getattr(other, name))
        for name in _COUNTS:
            mine = getattr(self, name)
            for each, number in getattr(other, name).items():
                mine[each] = mine.get(each, 0) + number
        for name in _VALUES:
            mine = getattr(self, name)
            for each, values in getattr(other, name).items():
                mine.setdefault(each, SeenValues()).merge(values)

    def document(self) -> dict[str, Any]:
        """JSON's, without what is empty."""
        found: dict[str, Any] = {"tasks": self.tasks} if self.tasks else {}
        for name in _HISTOGRAMS:
            histogram = getattr(self, name)
            if histogram.counts or histogram.greatest:  # what moved within a bucket leaves the greatest alone
                found[name] = histogram.document()
        for name in _COUNTS:
            if counts := getattr(self, name):
                found[name] = {each: counts[each] for each in sorted(counts)}
        for name in _VALUES:
            if seen := getattr(self, name):
                found[name] = {each: seen[each].document() for each in sorted(seen)}
        return found

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """What `document` has written."""
        found = cls(document.get("tasks", 0))
        for name in _HISTOGRAMS:
            if name in document:
                setattr(found, name, Histogram.read(document[name]))
        for name in _COUNTS:
            setattr(found, name, dict(document.get(name, {})))
        for name in _VALUES:
            setattr(found, name, {each: SeenValues.read(seen) for each, seen in document.get(name, {}).items()})
        return found


_HISTOGRAMS: Final = ("milliseconds", "tokens", "calls", "depth", "children")
_COUNTS: Final = ("bindings", "policies", "denials")
_VALUES: Final = ("params", "facts")
assert {each.name for each in fields(TypeSum)} == {"tasks", *_HISTOGRAMS, *_COUNTS, *_VALUES}


@dataclass(slots=True)
class IssuedSum:
    """SVIDs of one registration entry that were issued."""

    number: int = 0
    last_ms: int = 0

    def merge(self, other: "IssuedSum") -> None:
        """Have what both have."""
        self.number += other.number
        self.last_ms = max(self.last_ms, other.last_ms)


@dataclass(frozen=True, slots=True)
class Window:
    """The days whose sums are wanted, the last one among them. What it has is of no day any more.

    `since_of`: the first day of a type by its name, if that is later.
    """

    since: int
    until: int
    since_of: Mapping[str, int] = field(default_factory=dict)

    def has(self, key: TypeKey) -> bool:
        return max(self.since, self.since_of.get(key.type, 0)) <= key.day <= self.until


class Room(Protocol):
    """Under which keys sums are kept, where there may be more than are wanted."""

    def type_key(self, key: TypeKey) -> TypeKey: ...

    def action_key(self, key: ActionKey) -> ActionKey: ...


@dataclass(slots=True)
class Sums:
    """All of it. `unread`: records that are not as the agent writes them, of which nothing, or not all, is counted."""

    types: dict[TypeKey, TypeSum] = field(default_factory=dict)
    actions: dict[ActionKey, ActionSum] = field(default_factory=dict)
    entries: dict[str, IssuedSum] = field(default_factory=dict)  # by ID
    unread: int = 0
    room: Room | None = None  # None: there is enough

    def of_type(self, key: TypeKey) -> TypeSum:
        found = self.types.get(key)
        if found is None:
            key = key if self.room is None else self.room.type_key(key)
            found = self.types.setdefault(key, TypeSum())
        return found

    def of_action(self, key: TypeKey, resource: str, action: str) -> ActionSum:
        name = ActionKey(*key, resource, action)
        found = self.actions.get(name)
        if found is None:
            name = name if self.room is None else self.room.action_key(name)
            found = self.actions.setdefault(name, ActionSum())
        return found

    def of_entry(self, entry_id: str) -> IssuedSum:
        found = self.entries.get(entry_id)
        if found is None:
            found = self.entries[entry_id] = IssuedSum()
        return found

    def merge(self, other: "Sums", wanted: "Window | None" = None) -> None:
        """Have what both have, of `other` what is `wanted`. What `other` has is its own still."""
        for key, of_type in other.types.items():
            if wanted is None or wanted.has(key):
                self.of_type(key if wanted is None else key._replace(day=0)).merge(of_type)
        for action, of_action in other.actions.items():
            key = TypeKey(*action[:4])
            if wanted is None or wanted.has(key):
                key = key if wanted is None else key._replace(day=0)
                self.of_action(key, action.resource, action.action).merge(of_action)
        for entry, issued in other.entries.items():
            self.of_entry(entry).merge(issued)
        self.unread += other.unread
