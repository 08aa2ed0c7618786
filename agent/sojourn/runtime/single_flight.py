"""The same work for all who ask for it meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


class SingleFlight(Generic[Key, Result]):
    """Work that is under way, by key: whoever asks for a key meanwhile waits for the same work.

    The work goes on although all who asked go away. What it raises is raised to each who waits; if nobody does any
    more, asyncio does not warn of it.
    """

    def __init__(self) -> None:
        self._flights: dict[Key, asyncio.Future[Result]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Key) -> bool:
        """Whether work for a key is under way."""
        return key in self._flights

    async def run(self, key: Key, work: Callable[[], Awaitable[Result]]) -> Result:
        """Wait for the work that is under way for a key; if none is, for that which `work` begins."""
        return await asyncio.shield(self.begin(key, work))

    def begin(self, key: Key, work: Callable[[], Awaitable[Result]]) -> "asyncio.Future[Result]":
        """As `run`, without waiting. Whoever waits for what is returned should shield it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.ensure_future(work())
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: Key, done: "asyncio.Future[Result]") -> None:
        del self._flights[key]
        if not done.cancelled():
            done.exception()  # noted as seen: those who asked may all have gone

    async def close(self) -> None:
        """Cancel what is under way, and return when it has ended."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
