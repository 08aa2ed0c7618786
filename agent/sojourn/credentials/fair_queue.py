"""So many calls at once, shared fairly: what one owner asks for waits for its own, and takes turns with the others."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from sojourn.errors import LimitExceeded


class Places:
    """`at_once` in all, and `per_owner` of one; `waiting` more of one may wait."""

    def __init__(self, at_once: int, per_owner: int, waiting: int) -> None:
        self._at_once = at_once
        self._per_owner = per_owner
        self._waiting = waiting
        self._taken: Counter[Hashable] = Counter()
        self._lines: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()  # whose turn is next, first

    def __len__(self) -> int:
        """How many owners have a place, or wait for one."""
        return len(self._taken.keys() | self._lines.keys())

    @asynccontextmanager
    async def one(self, owner: Hashable, until: float | None = None) -> AsyncIterator[None]:
        """Have a place within it. Raise LimitExceeded if too many of the owner wait, and TimeoutError if it has none by
        the loop's time `until`.
        """
        if owner in self._lines or not self._free(owner):
            async with asyncio.timeout_at(until):
                await self._wait(owner)
        else:
            self._taken[owner] += 1
        try:
            yield
        finally:
            self._leave(owner)

    def _free(self, owner: Hashable) -> bool:
        return self._taken.total() < self._at_once and self._taken[owner] < self._per_owner

    async def _wait(self, owner: Hashable) -> None:
        line = self._lines.setdefault(owner, deque())
        if len(line) >= self._waiting:
            raise LimitExceeded("too many requests of this user or workload wait for the provider: come again later")
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was just given a place
                self._leave(owner)
            elif owner in self._lines:
                self._forget(owner, turn)
            raise

    def _forget(self, owner: Hashable, turn: "asyncio.Future[None]") -> None:
        line = self._lines[owner]
        if turn in line:
            line.remove(turn)
        if not line:
            del self._lines[owner]

    def _leave(self, owner: Hashable) -> None:
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
        for next_ in list(self._lines):
            while next_ in self._lines and self._free(next_):
                turn = self._lines[next_][0]
                self._forget(next_, turn)
                if turn.done():  # whoever waited has gone
                    continue
                self._taken[next_] += 1
                turn.set_result(None)
                if next_ in self._lines:
                    self._lines.move_to_end(next_)
                break
