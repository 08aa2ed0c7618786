"""What a server is given by the program that it is part of: who calls, whose turn it is, and how much is held for whom.

All of it is shared by many connections and with other protocols, so that it has no default here. Everything is called
in the event loop's thread.
"""

from collections.abc import Mapping
from typing import Protocol


class Visitor(Protocol):
    """Who is at the other end of a connection: a process of this machine, or a workload on another."""

    @property
    def who(self) -> int | str:
        """Whose limits count: a uid, or a SPIFFE ID."""

    @property
    def details(self) -> Mapping[str, int | str]:
        """What else is to be said of it, for log and audit: handlers read it, and nothing here does."""


class ReadingTurn(Protocol):
    """What may be done for one caller before others have their turn."""

    @property
    def over(self) -> bool:
        """Whether no further call is to be begun."""

    @property
    def late(self) -> bool:
        """Whether nothing more is to be read at all."""

    def spend(self, seconds: float, calls: int = 0) -> None:
        """So long has been spent, and so many calls begun."""


class TurnTaker(Protocol):
    """A connection, of which something has come."""

    def read(self, turn: ReadingTurn) -> bool:
        """Go on until the turn is over. Return whether there is more to be done then."""


class TurnOrder(Protocol):
    """Has connections read, by whose turn it is."""

    def ask(self, who: int | str, reader: TurnTaker) -> None:
        """Have `reader` read: now, or when it is its caller's turn, and as often as it says that there is more."""

    def served(self, who: int | str) -> None:
        """A call of this caller is answered."""


class MessagePace(Protocol):
    """Spreads out what has come already, so that others are served in between."""

    async def turn(self, who: int | str) -> None:
        """Return when one more message of this caller may be worked off."""


class HeldBytes(Protocol):
    """Counts the bytes that are held for callers."""

    def hold(self, who: int | str, size: int) -> bool:
        """Count so many bytes more, or fewer. Return whether that is still allowed: fewer always is."""
