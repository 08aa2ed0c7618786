"""A connection on which only we say something, over guarded TCP and TLS, such as a syslog receiver's.

Nothing comes back. What was sent counts as delivered when the other end's kernel has confirmed all of it: whether a
program has read it cannot be known.
"""

import array
import asyncio
import fcntl
import socket
import ssl
import termios
from typing import Final

import httpcore2

from sojourn.httpclient.faults import HttpFault, Why, fault_of
from sojourn.httpclient.tcp import TcpTransport

_LOOK_SECONDS: Final = 0.005  # between two looks whether all is confirmed
_READ_BYTES: Final = 4_096
_READ_SECONDS: Final = 0.002  # what is there is read within that
_OVER: Final = (7, 8)  # TCP_CLOSE, TCP_CLOSE_WAIT (linux/tcp_states.h)
_FAILURES: Final = (OSError, httpcore2.TimeoutException, httpcore2.NetworkError)


class OneWay:
    """One connection, made when something is sent, and made again when it has ended."""

    def __init__(self, transport: TcpTransport, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """`context` None: without TLS."""
        self._transport = transport
        self._host = host
        self._port = port
        self._context = context
        self._stream: httpcore2.AsyncNetworkStream | None = None

    async def send(self, content: bytes, connect_seconds: float) -> None:
        """Return when the other end's kernel has all of it. Raise HttpFault; some of it may be there then.

        `connect_seconds`: for a connection, and as long again for its TLS.
        """
        stream = await self._open(connect_seconds)
        try:
            await stream.write(content)
            while _unconfirmed(stream) and not _is_over(stream):  # noqa: ASYNC110  # the kernel tells no other way
                await asyncio.sleep(_LOOK_SECONDS)
            if await _has_ended(stream):
                raise HttpFault(Why.BROKEN, detail="the receiver has ended the connection")
        except _FAILURES as error:
            await self.close()
            raise fault_of(error) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def _open(self, seconds: float) -> httpcore2.AsyncNetworkStream:
        if self._stream is not None and await _has_ended(self._stream):
            await self.close()  # what is sent on it would be lost
        if self._stream is None:
            stream = await self._transport.connect_tcp(self._host, self._port, seconds)
            if self._context is not None:
                stream = await stream.start_tls(self._context, self._host, seconds)
            self._stream = stream
        return self._stream


async def _has_ended(stream: httpcore2.AsyncNetworkStream) -> bool:
    """Whether the other end has said goodbye. What it says else, as TLS of itself does, is read and left alone."""
    if _is_over(stream):
        return True
    try:
        return await stream.read(_READ_BYTES, _READ_SECONDS) == b""
    except httpcore2.ReadTimeout:
        return False
    except httpcore2.ReadError:
        return True


def _is_over(stream: httpcore2.AsyncNetworkStream) -> bool:
    """Whether the kernel knows that the other end has ended it, however busy this process is."""
    info = stream.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] in _OVER


def _unconfirmed(stream: httpcore2.AsyncNetworkStream) -> int:
    """Bytes that the other end's kernel has not confirmed (tcp(7), SIOCOUTQ)."""
    found = array.array("i", [0])
    fcntl.ioctl(stream.get_extra_info("socket").fileno(), termios.TIOCOUTQ, found)
    return found[0]
