"""A semaphore of several owners: what one of them asks for waits for its own places, and takes turns with others'."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from math import inf

from sojourn.errors import LimitExceeded
from sojourn.quota.fair_queue import FairQueue
from sojourn.quota.usage import Usage

_Waiter = asyncio.Future[None]


class FairSemaphore:
    """So many places for each owner, and in all. Whoever finds none waits for its owner's turn. Belongs to one event
    loop.
    """

    def __init__(
        self,
        each: int,
        *,
        in_all: float = inf,
        waiting: float = inf,
        refusal: str = "too many requests of this user or workload wait: come again in a while",
    ) -> None:
        """`each`: places of one owner. `in_all`: places of all owners together. `waiting`: how many of one owner may
        wait. `refusal`: what one more is told.
        """
        self._each = each
        self._in_all = in_all
        self._waiting = waiting
        self._refusal = refusal
        self._taken = Usage[Hashable]()
        self._total = 0
        self._queue = FairQueue[Hashable, _Waiter]()

    def __len__(self) -> int:
        """How many owners have a place, or wait for one."""
        return len({*self._taken, *self._queue.owners()})

    def locked(self, owner: Hashable) -> bool:
        """Whether one more of this owner would have to wait."""
        return self._total >= self._in_all or self._taken.get(owner, 0) >= self._each

    async def acquire(self, owner: Hashable, until: float | None = None) -> bool:
        """Take a place, which is to be released. Return whether that had to wait.

        Raise LimitExceeded if too many of the owner wait, and TimeoutError if it has none by the loop's time `until`.
        """
        if not self.locked(owner):
            self._take(owner)
            return False
        if self._queue.length_of(owner) >= self._waiting:
            raise LimitExceeded(self._refusal)
        async with asyncio.timeout_at(until):
            await self._wait(owner)
        return True

    def release(self, owner: Hashable) -> None:
        """Give a place back: it goes to whoever's turn it is at once, so that nobody waits for one that is free."""
        was_full = self._total >= self._in_all
        self._total -= 1
        self._taken.remove(owner)
        # Nobody else waits for the places of this owner alone.
        for each in self._queue.owners() if was_full else (owner,):
            while not self.locked(each) and (waiter := self._queue.take_of(each)) is not None:
                if not waiter.done():  # else whoever waited has gone
                    self._take(each)
                    waiter.set_result(None)
                    return

    @asynccontextmanager
    async def one(self, owner: Hashable, until: float | None = None) -> AsyncIterator[None]:
        """Have a place within it. Raises as `acquire` does."""
        await self.acquire(owner, until)
        try:
            yield
        finally:
            self.release(owner)

    def _take(self, owner: Hashable) -> None:
        self._total += 1
        self._taken.add(owner)

    async def _wait(self, owner: Hashable) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._queue.put(owner, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was just given a place
                self.release(owner)
            else:
                self._queue.discard(owner, waiter)
            raise
