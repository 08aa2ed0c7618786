"""The service manager that has started the agent, and what the agent tells it: the protocol of sd_notify(3).

Whatever is told, nothing waits for the service manager: a message for which there is no room yet is sent at the next
chance.
"""

import os
import socket
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final, Self

import structlog

from sojourn.errors import CannotStart, SojournError
from sojourn.limits import SERVICE_MESSAGES_WAITING

log = structlog.get_logger()
_NOTIFYING: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Where messages go. Without an address they go nowhere."""

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        """`watchdog_seconds`: how long the manager waits for a sign of life before it replaces us; 0: for ever."""
        self.watchdog_seconds = watchdog_seconds
        self._waiting: deque[bytes] = deque(maxlen=SERVICE_MESSAGES_WAITING)
        self._socket: socket.socket | None = None
        self._address = address
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """The one that the environment names, whose variables are taken out: no child is to speak for us.

        Raise CannotStart if they are there and cannot be gone by: the manager would wait in vain.
        """
        given = environment.get("NOTIFY_SOCKET", "")
        seconds = _watchdog(environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", ""))
        for name in _NOTIFYING:
            environment.pop(name, None)
        if given and given[0] not in "/@":
            raise CannotStart(
                f"NOTIFY_SOCKET is {given[:200]!r}: it is a path, or @ and the name of an abstract socket"
            )
        return cls("\0" + given[1:] if given.startswith("@") else given, seconds if given else 0.0)

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return self._socket is not None

    def tell(self, *assignments: str) -> None:
        """Send one message, such as `READY=1`, `STATUS=…`."""
        if self._socket is not None:
            self._waiting.append("\n".join(" ".join(each.splitlines()) for each in assignments).encode())
            self.send_waiting()

    @contextmanager
    def told_of_failure(self) -> Iterator[None]:
        """Within it an error that ends the agent is also the status that the manager shows."""
        try:
            yield
        except SojournError as error:
            self.tell(f"STATUS=cannot start: {error.public}")
            raise

    def extend_start(self, seconds: float) -> None:
        """Have the manager wait so long from now for the next word before it takes the start for a failed one."""
        self.tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def send_waiting(self) -> None:
        """Send what there was no room for."""
        while self._socket is not None and self._waiting:
            try:
                self._socket.sendto(self._waiting[0], self._address)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("service_manager_not_told", reason=error.strerror)
            self._waiting.popleft()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog(usec: str, pid: str) -> float:
    """The seconds of a watchdog that is ours."""
    if not usec or pid not in {"", str(os.getpid())}:
        return 0.0
    if not usec.isascii() or not usec.isdecimal() or not int(usec):
        raise CannotStart(f"WATCHDOG_USEC is {usec[:100]!r}: it is a number of microseconds")
    return int(usec) / 1_000_000
