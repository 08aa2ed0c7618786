"""The connections of a small server on this machine. Strangers take no place of who has said its secret."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from sojourn.sdk.client.extras import extra

with extra("http"):
    import anyio
    import anyio.abc

Known = Callable[[], bool]


class Serve(Protocol):
    """Serves one connection to its end. It calls `known` when it is the command's; False: there is no room."""

    async def __call__(self, stream: anyio.abc.SocketStream, known: Known) -> None: ...


class Serving:
    """Serves the connections of a listener, `most` at once, and as many again that have not said the secret yet."""

    def __init__(self, serve: Serve, most: int, log: logging.Logger) -> None:
        self._serve = serve
        self._most = most
        self._log = log
        self._open: set[anyio.CancelScope] = set()  # of the command
        self._strange: dict[anyio.CancelScope, None] = {}  # those that have not said the secret, the oldest first

    async def run(
        self, listener: anyio.abc.Listener[anyio.abc.SocketStream], ended: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Serve until cancelled. When `ended` returns, what is under way is cut off; what comes then is served."""
        async with anyio.create_task_group() as group:
            if ended is not None:
                group.start_soon(self._cut_off, ended)
            await listener.serve(self._one, group)

    async def _one(self, stream: anyio.abc.SocketStream) -> None:
        with anyio.CancelScope() as scope:
            try:
                self._make_room()
                self._strange[scope] = None
                await self._serve(stream, partial(self._known, scope))
            except Exception as error:  # noqa: BLE001  # one connection's failure ends that one
                self._log.warning("a connection failed: %s", type(error).__name__)
            finally:
                self._strange.pop(scope, None)
                self._open.discard(scope)
                with anyio.CancelScope(shield=True), suppress(OSError, anyio.BrokenResourceError):
                    await anyio.aclose_forcefully(stream)

    def _make_room(self) -> None:
        """The command says the secret at once: whoever has waited longest does not know it."""
        while len(self._strange) >= self._most:
            oldest = next(iter(self._strange))
            del self._strange[oldest]
            oldest.cancel()

    def _known(self, scope: anyio.CancelScope) -> bool:
        """The connection is the command's. Say whether there is room for it."""
        self._strange.pop(scope, None)
        if scope not in self._open and len(self._open) >= self._most:
            return False
        self._open.add(scope)
        return True

    async def _cut_off(self, ended: Callable[[], Awaitable[None]]) -> None:
        await ended()
        for scope in [*self._open, *self._strange]:
            scope.cancel()
