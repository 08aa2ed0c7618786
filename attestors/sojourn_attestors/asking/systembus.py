"""Asks over the system bus (D-Bus): calls and their answers, and nothing else of what arrives there.

Every user of this machine may send this connection signals of 32 MiB with open files in them. So what is no answer to
a call is thrown away unread, in small pieces. Open files are not negotiated where none is to be sent, so that the bus
keeps them: what nobody takes is closed in the reader's own thread, for as long as its sender likes (SO_LINGER). An
answer counts if it comes from the one that was called: the bus vouches for senders.
"""

import asyncio
import errno
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from jeepney import DBusAddress, new_method_call
from jeepney.auth import BEGIN, Authenticator
from jeepney.low_level import Header, HeaderFields, Message, MessageFlag, MessageType, calc_msg_size
from sojourn.errors import AttestationFailed
from sojourn.limits import BUS_ANSWER_MAX_BYTES
from sojourn.net.sockets import take_no_descriptors

_BUS_NAME: Final = "org.freedesktop.DBus"
_BUS: Final = DBusAddress("/org/freedesktop/DBus", bus_name=_BUS_NAME, interface=_BUS_NAME)
_HEAD_BYTES: Final = 16  # of a message: they tell its kind and size
_PART_BYTES: Final = 65_536  # read at once, so that a flood leaves the event loop to others in between
_MESSAGE_MAX_BYTES: Final = 2**27  # D-Bus Specification, "Message Format"
_ANSWERS: Final = frozenset({MessageType.method_return.value, MessageType.error.value})
_LOST: Final = "the connection to the system bus was lost"
_RETRY_SECONDS: Final = 0.01
_UCRED: Final = struct.Struct("3i")
_AUTHENTICATION_BYTES: Final = 4_096
_WHY: Final = {
    errno.ENOENT: "there is no socket at {}",
    errno.ENOTDIR: "there is no socket at {}",
    errno.ECONNREFUSED: "nobody listens at {}",
    errno.EACCES: "this agent may not use {}",
}


class ErrorAnswer(AttestationFailed):
    """Whoever was called answered with an error. `name` is its D-Bus name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"systemd answered {name[:200]!r}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Call:
    """One method call that is answered with what the signature `gives` says. `body` is what `signature` says; an `h` in
    it is a file descriptor, which stays the caller's.
    """

    to: DBusAddress
    member: str
    gives: str
    signature: str = ""
    body: tuple[Any, ...] = ()

    def message(self) -> Message:
        message = new_method_call(self.to, self.member, self.signature or None, self.body)
        message.header.flags |= MessageFlag.no_auto_start
        return message


class SystemBus:
    """One connection, of one event loop. `close` it. Once it is `closed` there is no answer from it any more."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._buffer = bytearray()
        self._skip = 0  # bytes of a message that nobody wants
        self._serial = 0
        self._waiting: dict[int, tuple[Call, asyncio.Future[tuple[Any, ...]]]] = {}
        self._may_write: asyncio.Future[None] | None = None
        self.closed = False
        self._loop.add_reader(connection.fileno(), self._readable)

    @classmethod
    async def connect(cls, path: str, *, files: bool = False) -> Self:
        """Connect to the bus at a Unix socket. Raise AttestationFailed if there is none, or it is not root's or ours.

        `files`: calls may have file descriptors in them. So may what others send then, over which the kernel breaks the
        connection where it knows how to (Linux 6.16). It may take forever: set a deadline.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        take_no_descriptors(connection)
        try:
            await _connect(connection, path)
            owner = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
            if owner not in {0, os.geteuid()}:
                raise AttestationFailed(f"the system bus is that of user {owner}")
            await _authenticate(connection, files=files)
        except (OSError, ValueError) as error:
            connection.close()
            why = _WHY.get(getattr(error, "errno", 0) or 0, "the connection to {} broke").format(path)
            raise AttestationFailed(f"the system bus cannot be reached: {why}", detail=str(error)) from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    async def ask(self, gives: str, member: str, *texts: str) -> Any:
        """What the bus itself answers to a method of its own that takes texts and gives one value, of that type."""
        ((value,),) = await self.calls(Call(_BUS, member, gives, "s" * len(texts), texts))
        return value

    async def calls(self, *calls: Call) -> Sequence[tuple[Any, ...]]:
        """Make calls one behind the other, and return the body of the answer to each.

        Raise ErrorAnswer for the first that is answered with an error, or AttestationFailed if the connection breaks.
        """
        sent: list[int] = []
        try:
            for call in calls:
                await self._send(call, sent)
            return [await self._waiting[serial][1] for serial in sent]
        finally:
            for serial in sent:
                _, answer = self._waiting.pop(serial)
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # which the one before it had too

    def close(self, reason: str = "the connection to the system bus was closed", *, detail: str = "") -> None:
        """Let go of it. Whoever waits for an answer is told `reason`."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for waiting in (self._may_write, *(answer for _, answer in self._waiting.values())):
            if waiting is not None and not waiting.done():
                waiting.set_exception(AttestationFailed(reason, detail=detail))
                waiting.exception()  # whoever waits hears of it; nobody may be

    # --- out ---

    async def _send(self, call: Call, sent: list[int]) -> None:
        async with self._turn:
            if self.closed:
                raise AttestationFailed(_LOST)
            descriptors = array("i")
            serial = self._serial = self._serial % (2**32 - 1) + 1
            message = call.message().serialise(serial, descriptors)
            self._waiting[serial] = (call, self._loop.create_future())
            try:
                await self._write(message, descriptors)
            except BaseException as error:
                del self._waiting[serial]
                self.close(_LOST, detail=str(error))  # half a message may be out
                if isinstance(error, OSError):
                    raise AttestationFailed(_LOST, detail=str(error)) from error
                raise
            sent.append(serial)

    async def _write(self, message: bytes, descriptors: "array[int]") -> None:
        rest = memoryview(message)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        while rest:
            try:
                written = self._socket.sendmsg([rest], ancillary)
            except BlockingIOError:
                await self._writable()
                continue
            rest, ancillary = rest[written:], []

    async def _writable(self) -> None:
        ready = self._may_write = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _settle, ready)
        try:
            await ready
        finally:
            if not self.closed:
                self._loop.remove_writer(self._socket.fileno())

    # --- in ---

    def _readable(self) -> None:
        try:
            part = self._socket.recv(_PART_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(_LOST, detail=str(error))
            return
        if not part:
            self.close(_LOST, detail="it closed the connection")
            return
        try:
            self._take(part)
        except AttestationFailed as error:
            self.close(error.public, detail=error.detail)

    def _take(self, part: bytes) -> None:
        skipped = min(self._skip, len(part))
        self._skip -= skipped
        self._buffer += part[skipped:]
        begin = 0
        while len(self._buffer) - begin >= _HEAD_BYTES:
            head = bytes(self._buffer[begin : begin + _HEAD_BYTES])
            size, wanted = _size_of(head), head[1] in _ANSWERS
            if wanted and size > BUS_ANSWER_MAX_BYTES:
                raise AttestationFailed(f"systemd answered more than {BUS_ANSWER_MAX_BYTES} bytes")
            there = len(self._buffer) - begin
            if there < size:
                if not wanted:
                    self._skip, begin = size - there, begin + there
                break
            if wanted:
                self._answered(bytes(self._buffer[begin : begin + size]))
            begin += size
        del self._buffer[:begin]

    def _answered(self, frame: bytes) -> None:
        try:
            header, body = _parse(frame)
        except Exception as error:
            raise _malformed(error) from error
        waiting = self._waiting.get(header.fields.get(HeaderFields.reply_serial, 0))
        sender = header.fields.get(HeaderFields.sender)
        if waiting is None or waiting[1].done():
            return
        call, answer = waiting
        if header.message_type is MessageType.error and sender in {call.to.bus_name, _BUS_NAME}:
            answer.set_exception(ErrorAnswer(str(header.fields.get(HeaderFields.error_name, ""))))
        elif header.message_type is MessageType.method_return and sender == call.to.bus_name:
            if header.fields.get(HeaderFields.signature, "") == call.gives:
                answer.set_result(body)
            else:
                answer.set_exception(AttestationFailed(f"systemd answered {call.member} with what it does not give"))


def _settle(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def _malformed(error: Exception) -> AttestationFailed:
    return AttestationFailed("the system bus sent what is no message", detail=f"{type(error).__name__}: {error}")


def _size_of(head: bytes) -> int:
    try:
        size = int(calc_msg_size(head))
        if size > _MESSAGE_MAX_BYTES:
            raise ValueError(f"a message of {size} bytes")
    except (KeyError, ValueError) as error:
        raise _malformed(error) from error
    return size


def _parse(frame: bytes) -> tuple[Header, tuple[Any, ...]]:
    """The header of an answer, and its body: () if it is an error, as what errors say is for people."""
    fields_bytes = int.from_bytes(frame[12:16], "little" if frame[:1] == b"l" else "big")
    _refuse_endless(frame[: _HEAD_BYTES + fields_bytes])
    header, _ = Header.from_buffer(frame)
    if header.message_type is not MessageType.method_return:
        return header, ()
    _refuse_endless(frame)
    return header, tuple(Message.from_buffer(frame).body)


def _refuse_endless(data: bytes) -> None:
    if b"()" in data:  # D-Bus has no struct of nothing; the parser finds no end to an array of them
        raise ValueError("a struct of nothing")


async def _connect(connection: socket.socket, path: str) -> None:
    while True:
        try:
            connection.connect(path)  # to a Unix socket: at once, or not now
        except BlockingIOError:  # so many others want to connect
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _authenticate(connection: socket.socket, *, files: bool) -> None:
    loop = asyncio.get_running_loop()
    authenticator = Authenticator(enable_fds=files)
    for line in authenticator:
        await loop.sock_sendall(connection, line)
        answer = await loop.sock_recv(connection, _AUTHENTICATION_BYTES)
        if not answer:
            raise ConnectionResetError("it closed the connection")
        authenticator.feed(answer)
    await loop.sock_sendall(connection, BEGIN)
