"""Whose connections are read: so much of one user's or workload's, however many they are, and then others'."""

import asyncio
from collections import deque
from typing import Protocol

from sojourn.limits import FRAMES_PER_TURN, MESSAGES_PER_ROUND, TURN_SECONDS


class Turn:
    """What may be read of one caller's connections before others have their turn."""

    __slots__ = ("_frames", "_seconds", "over")

    def __init__(self, frames: int = FRAMES_PER_TURN) -> None:
        self._frames = frames
        self._seconds = TURN_SECONDS
        self.over = False

    def spend(self, seconds: float) -> None:
        """A frame, or what had come of another protocol, has been read, in so long a time."""
        self._frames -= 1
        self._seconds -= seconds
        self.over = self._frames <= 0 or self._seconds <= 0


class Reader(Protocol):
    """A connection, which has got something."""

    def read(self, turn: Turn) -> bool:
        """Read until the turn is over. Return whether there is more to be read then."""


class _Line:
    """One caller's turn in this round, and those of its connections that wait for the next."""

    __slots__ = ("next", "turn", "waiting")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.waiting: deque[Reader] = deque()
        self.next: asyncio.Handle | None = None


class Turns:
    """One turn of so many frames for each caller in each round of the event loop."""

    def __init__(self, frames: int = FRAMES_PER_TURN) -> None:
        self._frames = frames
        self._lines: dict[int | str, _Line] = {}

    def ask(self, who: int | str, reader: Reader) -> None:
        """Let `reader` read: now if its caller's turn is not over yet, or behind the others of that caller."""
        line = self._lines.get(who)
        if line is None:
            line = self._lines[who] = _Line(Turn(self._frames))
            self._go_on(who, line)
        if line.turn.over or reader.read(line.turn):
            if not line.waiting:  # of others that wait already the next turn is on its way
                self._go_on(who, line)
            line.waiting.append(reader)

    def _go_on(self, who: int | str, line: _Line) -> None:
        """Have the next turn behind the first steps of all calls that this one has begun."""
        if line.next is not None:
            line.next.cancel()
        line.next = asyncio.get_running_loop().call_soon(self._next, who, line)

    def _next(self, who: int | str, line: _Line) -> None:
        if not line.waiting:
            del self._lines[who]
            return
        line.turn = Turn(self._frames)
        try:
            while line.waiting and not line.turn.over:
                reader = line.waiting.popleft()
                if reader.read(line.turn):
                    line.waiting.append(reader)
        finally:
            self._go_on(who, line)


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
