"""Signatures that are asked for one by one, and made together: a call has what was asked for until it began, and what
is asked for meanwhile goes with the next.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from sojourn.errors import LimitExceeded, SojournError, Unavailable
from sojourn.limits import UPSTREAM_BATCH, UPSTREAM_GATHER_SECONDS, UPSTREAM_SIGN_WAITING
from sojourn.runtime.background import Background

Asked = TypeVar("Asked")
Made = TypeVar("Made")


class Batches(Generic[Asked, Made]):
    """One call at a time. After one that failed the next is half as large, and after a good one twice as large, so that
    a server that cannot do much does some of it.
    """

    def __init__(self, work: Callable[[Sequence[Asked]], Awaitable[Sequence[Made | SojournError]]]) -> None:
        """`work`: makes what is asked for, in its order, and says of each why it could not; or raises for all."""
        self._work = work
        self._waiting: deque[tuple[Asked, asyncio.Future[Made]]] = deque()
        self._background = Background("node_fault")
        self._running = False
        self.size = UPSTREAM_BATCH

    def __len__(self) -> int:
        """How many wait for their call."""
        return len(self._waiting)

    async def make(self, asked: Asked) -> Made:
        """Raise what `work` says of it, and LimitExceeded."""
        if len(self._waiting) >= UPSTREAM_SIGN_WAITING:
            raise LimitExceeded("too many signatures are waited for: come again in a while")
        made: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, made))
        if not self._running:
            self._running = True
            self._background.run(self._run())
        return await made  # whoever is cancelled cancels it, and it is not asked for if its call has not begun

    async def close(self) -> None:
        """Ask for nothing more."""
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        await self._background.quiet()

    async def _run(self) -> None:
        try:
            await asyncio.sleep(UPSTREAM_GATHER_SECONDS)
            while batch := self._next():
                await self._call(batch)
        finally:
            self._running = False

    def _next(self) -> list[tuple[Asked, "asyncio.Future[Made]"]]:
        batch: list[tuple[Asked, asyncio.Future[Made]]] = []
        while self._waiting and len(batch) < self.size:
            each = self._waiting.popleft()
            if not each[1].done():
                batch.append(each)
        return batch

    async def _call(self, batch: Sequence[tuple[Asked, "asyncio.Future[Made]"]]) -> None:
        try:
            found = await self._work([asked for asked, _ in batch])
            self.size = min(2 * self.size, UPSTREAM_BATCH)
        except SojournError as error:
            self.size = max(self.size // 2, 1)
            found = [error] * len(batch)
        except BaseException:
            for _, made in batch:
                _settle(made, Unavailable("the signature failed by a fault of this agent's"))
            raise
        for (_, made), each in zip(batch, found, strict=True):
            _settle(made, each)


def _settle(made: "asyncio.Future[Made]", found: Made | SojournError) -> None:
    if made.done():  # nobody waits any more
        return
    if isinstance(found, SojournError):
        made.set_exception(_another(found))
        made.exception()  # noted as seen: who asked may go away in this very moment
    else:
        made.set_result(found)


def _another(error: SojournError) -> SojournError:
    """The same error for one more who waits, with a traceback of its own. Not all can be made by their text alone."""
    made = type(error).__new__(type(error), *error.args)
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    return made
