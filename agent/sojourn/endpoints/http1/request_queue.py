"""Whose turn it is: what one caller asks for over HTTP waits for what it asked before, and not what others ask for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from sojourn.endpoints.http1.scope import SENDER
from sojourn.errors import Unavailable
from sojourn.limits import HTTP_REQUESTS_AT_ONCE, HTTP_REQUESTS_WAITING
from sojourn.oauth.client_auth import ClientSender
from sojourn.quota.fair_semaphore import FairSemaphore


class Lines:
    """So many requests at once for each sender; more wait their turn."""

    def __init__(self, at_once: int = HTTP_REQUESTS_AT_ONCE, waiting: int = HTTP_REQUESTS_WAITING) -> None:
        self._places = FairSemaphore(at_once, waiting=waiting)

    def __len__(self) -> int:
        """How many senders have asked for something."""
        return len(self._places)

    @asynccontextmanager
    async def one(self, request: Request) -> AsyncIterator[None]:
        """Within it a request that has arrived whole is answered.

        Raise LimitExceeded if too many of its sender wait, or Unavailable if nobody hears the answer any more.
        """
        sender: ClientSender = request.scope[SENDER]
        waited = await self._places.acquire(sender.who)
        try:
            if waited and await request.is_disconnected():
                raise Unavailable("whoever asked has gone")
            yield
        finally:
            self._places.release(sender.who)
