"""Whether the agent is ready: one value, which everything that is asked for its health answers by.

Conditions are looked at when somebody asks. Each has a name that is stable, and a sentence that says nothing about this
machine, so that anybody may read it; what was found goes to operators alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """`degraded`: it serves, and not everybody. `unready`: it cannot be relied on for what it is there for."""

    READY = "ready"
    DEGRADED = "degraded"
    UNREADY = "unready"


# The conditions by name, with what each says where it does not hold.
KEYS, AUTHORITY, STORE, SOCKETS = "keys", "authority", "store", "sockets"
ATTESTORS, UPSTREAM, ROOT_KEY = "attestors", "upstream", "root-key"
CONDITIONS: Final = {
    KEYS: "a key that signs cannot be used",
    AUTHORITY: "the authority's root certificate has ended, or has not begun",
    STORE: "the store refuses writes",
    SOCKETS: "a socket does not stand at its path",
    ATTESTORS: "an attestor cannot tell who calls",
    UPSTREAM: "the server above this node does not answer, or refuses it",
    ROOT_KEY: "the token with the root's key cannot be used",
}
DEGRADING: Final = frozenset({ATTESTORS, UPSTREAM, ROOT_KEY})  # those that leave the agent degraded, and not unready


@dataclass(frozen=True, slots=True)
class Fault:
    """A condition that does not hold: its name, and what was found, for operators."""

    name: str
    found: str

    @property
    def said(self) -> str:
        """What anybody may read."""
        return CONDITIONS[self.name]


class Readiness:
    """All conditions that have somebody who looks. One that nobody looks at holds."""

    def __init__(self) -> None:
        self._looks: list[tuple[str, Callable[[], str]]] = []

    def on(self, name: str, look: Callable[[], str]) -> None:
        """Have `look` asked about a condition: it returns what is wrong, '' if nothing is, and does not block."""
        if name not in CONDITIONS:
            raise KeyError(name)
        self._looks.append((name, look))

    def faults(self) -> list[Fault]:
        """What is wrong now, in the order of CONDITIONS."""
        found = [Fault(name, wrong) for name, look in self._looks if (wrong := look())]
        return sorted(found, key=lambda fault: list(CONDITIONS).index(fault.name))

    @property
    def state(self) -> State:
        return state_of(fault.name for fault in self.faults())


def state_of(names: Iterable[str]) -> State:
    """The state in which conditions of these names do not hold."""
    failing = set(names)
    if failing - DEGRADING:
        return State.UNREADY
    return State.DEGRADED if failing else State.READY
