"""What a guard tells the agent behind the requests: noted at once, sent in a while, and lost if it cannot be sent."""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from typing import Final, Self

REPORT_SECONDS: Final = 1.0
SEND_SECONDS: Final = 2.0
log = logging.getLogger("sojourn.guard")


class Behind(ABC):
    """Sends what was noted, in a task of its own. What is lost is counted, and told in the log once in a row."""

    def __init__(self, every_seconds: float, gap_seconds: float, loss: str) -> None:
        """`gap_seconds`: between two reports, however much is due at once. `loss`: how the log tells of one."""
        self._every_seconds = every_seconds
        self._gap_seconds = gap_seconds
        self._loss = loss
        self._some = asyncio.Event()
        self._due = asyncio.Event()  # at once
        self._sender: asyncio.Task[None] | None = None
        self._loss_told = False
        self._closing = False
        self.lost = 0

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send_always())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._some.set()
        self._due.set()
        if self._sender is not None:
            try:
                await asyncio.gather(self._sender, return_exceptions=True)  # what it is sending is not sent in vain
            finally:
                self._sender.cancel()
        await self._send()

    @abstractmethod
    async def _send(self) -> None:
        """Send all that was noted. It never raises."""

    async def _send_always(self) -> None:
        while not self._closing:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_seconds):
                    await self._due.wait()
            self._some.clear()
            self._due.clear()
            await self._send()
            await asyncio.sleep(self._gap_seconds)

    def _sent(self) -> None:
        """A report has arrived: the next loss is told again."""
        self._loss_told = False

    def _lose(self, number: int, why: str) -> None:
        self.lost += number
        if not self._loss_told:
            self._loss_told = True
            log.warning("%s: %s", self._loss, why)
