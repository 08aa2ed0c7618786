"""Who is served next: a little of what one user or workload asks for, however much that is, and then others' share.

Work is shared by who asks. In a round of the event loop each caller has one turn, over all of its connections: those
that it makes, and what comes on them. A turn is long while nobody else asks for anything, since a round costs something
by itself, and short in company.

Whoever asks for little goes first. A connection takes some rounds of the loop until its first call is answered, and in
each of them a flood would have a call of its own done before it: so while something is under way for a caller for whom
nothing waited, nobody else for whom something waits has a turn. That is so for a moment only, and for no more than half
of the time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from sojourn.limits import (
    CALLS_PER_TURN,
    CALLS_PER_TURN_IN_COMPANY,
    COMPANY_SECONDS,
    MESSAGES_PER_ROUND,
    PRECEDENCE_SECONDS,
    TURN_SECONDS,
    TURNS_BEGUN_PER_ROUND,
    TURNS_GIVEN_PER_ROUND,
)


class Turn:
    """What may be done for one caller before others have their turn."""

    __slots__ = ("_calls", "_seconds", "over", "waiting")

    def __init__(self, calls: int, waiting: "deque[Reader] | None" = None) -> None:
        self._calls = calls
        self._seconds = TURN_SECONDS
        self.over = False
        self.waiting = waiting  # for the caller's next turn; None: nothing

    def spend(self, seconds: float, calls: int = 0) -> None:
        """So long has been spent, and so many calls begun, whose first steps come behind the turn."""
        self._calls -= calls
        self._seconds -= seconds
        self.over = self._calls <= 0 or self._seconds <= 0

    @property
    def late(self) -> bool:
        """Whether its time is over, and not its calls alone."""
        return self._seconds <= 0


class Reader(Protocol):
    """A connection, of which something has come."""

    def read(self, turn: Turn) -> bool:
        """Go on until the turn is over. Return whether there is more to be done then."""


class Precedence:
    """Which caller goes first: one at a time, for PRECEDENCE_SECONDS at the most, and then for as long nobody."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._who: int | str | None = None
        self._since = self._until = 0.0
        self._free = 0.0  # when the next may have it

    @property
    def who(self) -> int | str | None:
        """Who goes first now; None: nobody."""
        if self._who is not None and self._seconds() >= self._until:
            self._who = None
        return self._who

    def claim(self, who: int | str) -> None:
        """Have this caller go first, unless another does, or somebody did a moment ago."""
        now = self._seconds()
        if now >= self._free:
            self._who, self._since, self._until = who, now, now + PRECEDENCE_SECONDS
            self._free = self._until + PRECEDENCE_SECONDS

    def end(self, who: int | str) -> None:
        """Have this caller go first no longer."""
        if who == self._who:
            self._who = None
            self._until = min(self._until, self._seconds())
            self._free = 2 * self._until - self._since


class Turns:
    """One turn for each caller in each round of the event loop."""

    def __init__(
        self,
        alone: int = CALLS_PER_TURN,
        in_company: int = CALLS_PER_TURN_IN_COMPANY,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """Calls of a turn, while nobody else asks for anything and in company. `seconds`: a monotonic clock."""
        self._alone = alone
        self._in_company = in_company
        self._seconds = seconds
        self._lines: dict[int | str, Turn] = {}  # of this round, and with what waits for the next ones
        self._coming = False
        self._begun = 0  # turns of callers that asked for none before, in this round
        self._last: int | str | None = None  # who had a turn last
        self._company_until = 0.0  # by that clock
        self._precedence = Precedence(seconds)

    def ask(self, who: int | str, reader: Reader) -> None:
        """Let `reader` read: now if its caller's turn is not over yet, or behind the others of that caller."""
        turn = self._lines.get(who)
        if turn is None:
            turn = self._lines[who] = Turn(self._calls(who))
            self._come()
            self._precedence.claim(who)
            if self._begun >= TURNS_BEGUN_PER_ROUND:  # so many callers have asked in this round: in one of the next
                turn.over = True
            self._begun += 1
        if turn.over or reader.read(turn):
            self._precedence.end(who)  # it asks for more than a little
            if turn.waiting is None:
                turn.waiting = deque()
            turn.waiting.append(reader)

    def served(self, who: int | str) -> None:
        """Something that this caller had asked for is answered."""
        self._precedence.end(who)

    def _calls(self, who: int | str) -> int:
        now = self._seconds()
        if who != self._last:
            self._company_until = now + COMPANY_SECONDS if self._last is not None else now
            self._last = who
        return self._alone if now >= self._company_until else self._in_company

    def _come(self) -> None:
        if not self._coming:
            self._coming = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Give those who wait their next turn: not all at once, where they are many, so that whoever asks for little
        waits for few of them.
        """
        self._coming, self._begun = False, 0
        lines = {who: turn for who, turn in self._lines.items() if turn.waiting}
        self._lines = lines
        first = self._precedence.who
        try:
            for who in [each for each in lines if first in (None, each)][:TURNS_GIVEN_PER_ROUND]:
                waiting = lines.pop(who).waiting or deque()
                turn = lines[who] = Turn(self._calls(who), waiting)  # behind all others who wait
                for _ in range(len(waiting)):
                    if turn.over:
                        break
                    reader = waiting.popleft()
                    if reader.read(turn):
                        waiting.append(reader)
        finally:
            if lines:
                self._come()


class Paces:
    """MESSAGES_PER_ROUND of each caller's further messages in each round of the event loop, on however many calls they
    have come: what has come already would else be worked off by all its calls at once, while others wait.
    """

    def __init__(self) -> None:
        self._lines: dict[int | str, deque[asyncio.Future[None]]] = {}

    async def turn(self, who: int | str) -> None:
        """Return in a later round, when it is this message's turn."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(who)
        if line is None:
            line = self._lines[who] = deque()
            loop.call_soon(self._next, who, line)
        waiter = loop.create_future()
        line.append(waiter)
        await waiter

    def _next(self, who: int | str, line: "deque[asyncio.Future[None]]") -> None:
        left = MESSAGES_PER_ROUND
        while line and left:
            waiter = line.popleft()
            if not waiter.done():  # its call has ended
                waiter.set_result(None)
                left -= 1
        if line:
            asyncio.get_running_loop().call_soon(self._next, who, line)
        else:
            del self._lines[who]
