"""A key process as the agent asks it: one that it starts for itself, or one that is a service of its own."""

import asyncio
import os
import signal
import socket
import subprocess
from contextlib import suppress
from typing import Any, Final, Protocol

from sojourn.authority.token import messages
from sojourn.authority.token.messages import frame_of
from sojourn.authority.token.places import FolderPlace, Place, ServicePlace
from sojourn.authority.token.settings import TokenSettings
from sojourn.errors import KeysUnavailable
from sojourn.net.sockets import take_no_descriptors
from sojourn.runtime import own_programs

_BEGIN: Final = "from sojourn.keyprocess.host import run\nrun()\n"


class Asked(Protocol):
    """One key process. `pid` tells people which; `gone` is set when it is known to be there no more."""

    pid: int
    gone: asyncio.Event

    @property
    def has_left(self) -> bool:
        """Whether it has hung up while nothing was asked, as a service does that is restarted."""

    async def ask(self, do: str, told: dict[str, Any]) -> dict[str, Any]:
        """Ask, and return the answer. Raise ValueError if that is none, OSError or EOFError if there is none."""

    def end(self) -> None:
        """Hear no more of it; one that the agent has started is killed."""


class _Channel:
    """Questions and answers over a connected socket, one after the other."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asked = 0

    async def ask(self, do: str, told: dict[str, Any]) -> dict[str, Any]:
        if self._streams is None:
            self._socket.setblocking(False)
            self._streams = await asyncio.open_unix_connection(sock=self._socket)
        reader, writer = self._streams
        self._asked += 1
        writer.write(frame_of({"id": self._asked, "do": do, **told}))
        await writer.drain()
        length = messages.length_of(await reader.readexactly(messages.LENGTH.size))
        answer = messages.read(await reader.readexactly(length))
        if answer.pop("id", None) != self._asked:
            raise ValueError("an answer to another question")
        return answer

    @property
    def is_at_end(self) -> bool:
        return self._streams is not None and self._streams[0].at_eof()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        else:
            self._socket.close()


class Child:
    """One that the agent starts. Raise OSError if it cannot be started."""

    def __init__(self, settings: TokenSettings) -> None:
        ours, theirs = socket.socketpair()
        take_no_descriptors(ours)
        try:
            self._process = _start(settings.place, theirs.fileno())
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.gone = asyncio.Event()
        self._channel = _Channel(ours)
        self._ended = False
        self.has_left = False  # whose end is seen at once, and told
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited)

    async def ask(self, do: str, told: dict[str, Any]) -> dict[str, Any]:
        return await self._channel.ask(do, told)

    def end(self) -> None:
        """Kill it, with all that it has started."""
        if self._ended:
            return
        self._ended = True
        if not self.gone.is_set():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._channel.close()

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self.gone.set()


class Service:
    """One that listens at a socket, in a folder of its user's. Raise OSError if it does not, KeysUnavailable if another
    user does.
    """

    def __init__(self, path: str) -> None:
        connected = socket.socket(socket.AF_UNIX)
        try:
            take_no_descriptors(connected)
            connected.setblocking(False)  # a queue that is full refuses at once
            connected.connect(path)
            self.pid, uid, _ = messages.peer_of(connected)
            if uid not in {0, os.stat(os.path.dirname(path)).st_uid}:
                raise KeysUnavailable(f"user {uid} listens at {path!r}, in a folder that is another user's")
        except BaseException:
            connected.close()
            raise
        self.gone = asyncio.Event()
        self._path = path
        self._channel = _Channel(connected)

    @property
    def has_left(self) -> bool:
        return self._channel.is_at_end

    async def ask(self, do: str, told: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._channel.ask(do, told)
        except (EOFError, ConnectionError) as error:
            raise KeysUnavailable(
                f"who listens at {self._path!r} has hung up: the log of that service says why"
            ) from error

    def end(self) -> None:
        self.gone.set()
        self._channel.close()


def begun(settings: TokenSettings) -> Asked:
    """The process that answers by what these settings say. Raise KeysUnavailable."""
    place = settings.place
    if isinstance(place, ServicePlace):
        try:
            return Service(place.socket)
        except OSError as error:
            raise KeysUnavailable(f"no key process listens at {place.socket!r}: {error.strerror}") from error
    try:
        return Child(settings)
    except OSError as error:
        raise KeysUnavailable(f"the key process cannot be started: {error.strerror}") from error


def _start(place: Place, channel: int) -> "subprocess.Popen[bytes]":
    assert not isinstance(place, FolderPlace | ServicePlace)
    network = "network" if place.network else "no-network"
    # What a vendor's library prints may have anything in it, so that nothing of it gets into a log.
    return own_programs.start(_BEGIN, channel, str(os.getpid()), network, "sojourn-keys", more=place.environment)
