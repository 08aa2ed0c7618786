"""Accepts the connections of a listening socket before anything is asked of the processes behind them, and opens them
when that is said: what a connection costs beyond the accept is its user's, in his turn.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

import structlog

from sojourn.limits import ACCEPT_PAUSE_SECONDS, ACCEPTED_PER_ROUND, LOOKED_AT_PER_ROUND

log = structlog.get_logger()
_NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Accepting:
    """The connections that come at a listener, which whoever made it closes."""

    def __init__(self, listener: socket.socket, came: Callable[[socket.socket], bool]) -> None:
        """`came` is given each connection, non-blocking, and owns it; it returns whether it has kept it, and raises
        nothing.
        """
        self._listener = listener
        self._came = came
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener, self._accept)

    def stop(self) -> None:
        """Accept nothing more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        kept = 0
        for _ in range(LOOKED_AT_PER_ROUND):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._wait(error)
                    return
                continue  # it ended before it was accepted
            connection.setblocking(False)
            if self._came(connection):
                kept += 1
                if kept >= ACCEPTED_PER_ROUND:
                    return

    def _wait(self, error: OSError) -> None:
        """Leave those that come to the kernel for a while."""
        log.error("cannot_accept", detail=error.strerror)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)


class Opening:
    """Makes a transport of a connection that was accepted, and gives it to its protocol.

    asyncio's way is a coroutine. As a task it would begin a round of the event loop later, which others' turns fill:
    its first step is made here, and the next one when the protocol has its transport.
    """

    def __init__(self, connection: socket.socket, protocol: asyncio.Protocol, failed: Callable[[], None]) -> None:
        """`failed` is called if there is no transport: the connection is closed then."""
        self._connection = connection
        self._failed = failed
        self._rest = asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
        self._step()

    def _step(self, _waited: "asyncio.Future[bool] | None" = None) -> None:
        try:
            waiter: asyncio.Future[bool] = self._rest.send(None)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001  # the protocol's, or that it was closed meanwhile
            log.info("connection_not_opened", detail=str(error))
            self._connection.close()
            self._failed()
        else:
            waiter.add_done_callback(self._step)
