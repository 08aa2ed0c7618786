"""Asking something that may be slow, fail or be away, until it answers."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from sojourn.limits import ROOT_RETRY_MAX_SECONDS, ROOT_RETRY_SECONDS, ROOT_SECONDS

Answer = TypeVar("Answer")
JITTER = 0.5  # of a pause: many agents whose upstream was away do not come back to it as one
Sleep = Callable[[float], Awaitable[object]]


class Asking(Generic[Answer]):
    """One question at a time, which is asked again and again until its answer is good.

    Each try has ROOT_SECONDS. After a failure there is a pause, of ROOT_RETRY_SECONDS first and twice as long each time
    after, up to ROOT_RETRY_MAX_SECONDS.
    """

    def __init__(self, failed: Callable[[Exception], None], sleep: Sleep = asyncio.sleep) -> None:
        """`failed` is told of each try that gave no good answer."""
        self._failed = failed
        self._sleep = sleep
        self._running: asyncio.Task[None] | None = None
        self._now = asyncio.Event()

    @property
    def under_way(self) -> bool:
        return self._running is not None and not self._running.done()

    def begin(self, ask: Callable[[], Awaitable[Answer]], take: Callable[[Answer], None]) -> None:
        """Begin to ask, unless that is under way. `take` has the answer; what it raises is a failure as any other."""
        if not self.under_way:
            self._running = asyncio.ensure_future(self._ask(ask, take))

    def hurry(self) -> None:
        """End a pause: there is reason to think that it is answered now."""
        self._now.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the answer, and return whether it is there."""
        if self._running is not None and self.under_way:
            await asyncio.wait({self._running}, timeout=seconds)
        return not self.under_way

    async def close(self) -> None:
        """Ask no more."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _ask(self, ask: Callable[[], Awaitable[Answer]], take: Callable[[Answer], None]) -> None:
        pause = ROOT_RETRY_SECONDS
        while True:
            try:
                async with asyncio.timeout(ROOT_SECONDS):
                    answer = await ask()
                take(answer)
            except Exception as error:  # noqa: BLE001  # whatever signs may be a plugin's, or a library's
                self._failed(error)
            else:
                return
            self._now.clear()
            await self._pause(pause * random.uniform(1 - JITTER, 1.0))  # noqa: S311
            pause = min(2 * pause, ROOT_RETRY_MAX_SECONDS)

    async def _pause(self, seconds: float) -> None:
        over, hurried = asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._now.wait())
        try:
            await asyncio.wait({over, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            hurried.cancel()
