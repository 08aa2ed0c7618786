"""Whose turn it is: what one caller asks for over HTTP waits for what it asked before, and not what others ask for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from sojourn.endpoints.http1.scope import SENDER
from sojourn.errors import LimitExceeded, Unavailable
from sojourn.limits import HTTP_REQUESTS_AT_ONCE, HTTP_REQUESTS_WAITING
from sojourn.oauth.client_auth import ClientSender


@dataclass(slots=True)
class _Line:
    places: asyncio.Semaphore
    asked: int = 0  # requests that are answered or wait


class Lines:
    """So many requests at once for each sender; more wait their turn."""

    def __init__(self, at_once: int = HTTP_REQUESTS_AT_ONCE, waiting: int = HTTP_REQUESTS_WAITING) -> None:
        self._at_once = at_once
        self._most = at_once + waiting
        self._lines: dict[int | str, _Line] = {}

    def __len__(self) -> int:
        """How many senders have asked for something."""
        return len(self._lines)

    @asynccontextmanager
    async def one(self, request: Request) -> AsyncIterator[None]:
        """Within it a request that has arrived whole is answered.

        Raise LimitExceeded if too many of its sender wait, or Unavailable if nobody hears the answer any more.
        """
        sender: ClientSender = request.scope[SENDER]
        line = self._lines.setdefault(sender.who, _Line(asyncio.Semaphore(self._at_once)))
        if line.asked >= self._most:
            raise LimitExceeded("too many requests of this user or workload wait: come again in a while")
        line.asked += 1
        try:
            waits = line.places.locked()
            async with line.places:
                if waits and await request.is_disconnected():
                    raise Unavailable("whoever asked has gone")
                yield
        finally:
            line.asked -= 1
            if line.asked == 0:
                del self._lines[sender.who]
