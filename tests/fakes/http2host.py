"""What an HTTP/2 server is given to run alone: turns, paces, a count of bytes, and transports that are in memory.

It needs nothing of Sojourn but the package `http2`, so that what is tested by it is that package and nothing else.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

from sojourn.http2.frames import GREETING
from sojourn.http2.host import TurnTaker
from sojourn.http2.server import Handler, Server


class OneCaller:
    """Whose every connection is."""

    who = 7
    details: Mapping[str, int | str] = {}


class ShortTurn:
    """A turn of so many calls, and so many frames."""

    def __init__(self, calls: int, frames: int) -> None:
        self._calls = calls
        self._frames = frames

    @property
    def over(self) -> bool:
        return self._calls <= 0 or self.late

    @property
    def late(self) -> bool:
        return self._frames <= 0

    def spend(self, seconds: float, calls: int = 0) -> None:
        del seconds
        self._calls -= calls
        self._frames -= 1


class Rounds:
    """Has each connection read at once, and on in later rounds of the loop, as long as there is more."""

    def __init__(self, lengths: Sequence[tuple[int, int]]) -> None:
        """`lengths`: calls and frames of the turns, which begin anew behind the last."""
        self._lengths: Iterator[tuple[int, int]] = cycle(lengths)
        self.waiting: deque[TurnTaker] = deque()
        self._coming = False  # another round

    def ask(self, who: int | str, reader: TurnTaker) -> None:
        assert who == OneCaller.who
        if reader.read(ShortTurn(*next(self._lengths))):
            self.waiting.append(reader)
            self._come()

    def served(self, who: int | str) -> None:
        assert who == OneCaller.who

    def _come(self) -> None:
        if not self._coming:
            self._coming = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._coming = False
        try:
            for _ in range(len(self.waiting)):
                self.ask(OneCaller.who, self.waiting.popleft())
        finally:
            if self.waiting:
                self._come()


class Later:
    """Has each further message wait for the next round of the loop. `asked` for whom."""

    def __init__(self) -> None:
        self.asked: list[int | str] = []

    async def turn(self, who: int | str) -> None:
        self.asked.append(who)
        await asyncio.sleep(0)


class Tally(Counter[int | str]):
    """Bytes that are held, by caller, of which each may have so many; and the most that were held of all."""

    def __init__(self, each: int) -> None:
        super().__init__()
        self._each = each
        self.most = 0

    def hold(self, who: int | str, size: int) -> bool:
        self[who] += size
        held = self[who]
        assert held >= 0, "more was let go than was held"
        if not held:
            del self[who]
        self.most = max(self.most, self.total())
        return size <= 0 or held <= self._each


class LoneHost:
    """A server with a host of its own."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        message_max: int = 100_000,
        lengths: Sequence[tuple[int, int]] = ((8, 1_000),),
        each: int = 1 << 20,
    ) -> None:
        """`lengths` are those of Rounds, and `each` that of Tally."""
        self.turns, self.paces, self.held = Rounds(lengths), Later(), Tally(each)
        self.server = Server(handlers, message_max=message_max, turns=self.turns, paces=self.paces, held=self.held)


class MemoryTransport(asyncio.Transport):
    """Keeps what is written, and whether it is read from, and how it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.reading, self.ended = b"", True, ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """(kind, flags, stream, body) of all that was written since, but for the greeting."""
        data, found = self.written.removeprefix(GREETING), []
        while data:
            ends = 9 + int.from_bytes(data[:3], "big")
            assert len(data) >= ends, "a frame was written in part"
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:ends]))
            data = data[ends:]
        self.written = b""
        return found

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = "close"

    def abort(self) -> None:
        self.ended = "abort"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
