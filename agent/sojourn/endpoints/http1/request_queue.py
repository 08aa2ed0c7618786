"""Whose turn it is: what one caller asks for over HTTP waits for what it asked before, and not what others ask for."""

from contextlib import AbstractAsyncContextManager

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

    def one(self, request: Request) -> "AbstractAsyncContextManager[None]":
        """Within it a request that has arrived whole is answered.

        Raise LimitExceeded if too many of its sender wait, or Unavailable if nobody hears the answer any more.
        """
        return _Place(self._places, request)


class _Place(AbstractAsyncContextManager[None]):
    """A place while a request has it. There is one for each: a generator would take three times as long."""

    __slots__ = ("_places", "_request", "_who")

    def __init__(self, places: FairSemaphore, request: Request) -> None:
        self._places = places
        self._request = request
        sender: ClientSender = request.scope[SENDER]
        self._who = sender.who

    async def __aenter__(self) -> None:
        waited = await self._places.acquire(self._who)
        try:
            if waited and await self._request.is_disconnected():
                raise Unavailable("whoever asked has gone")
        except BaseException:
            self._places.release(self._who)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._places.release(self._who)
