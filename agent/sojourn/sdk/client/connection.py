"""One gRPC channel to the agent, and the ways in which it is called."""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import quote

import grpc
from google.protobuf.message import Message

from sojourn.errors import InvalidInput, Refused, SojournError, Unavailable, Unreachable
from sojourn.limits import MESSAGE_MAX_BYTES
from sojourn.sdk.client.agent_socket import AgentSocket
from sojourn.sdk.client.greenlets import begin_grpc_poller
from sojourn.sdk.client.grpc_status import (
    UNKNOWN_METHOD,
    listened_on,
    other_socket_sentence,
    translate,
    unreachable_sentence,
)
from sojourn.sdk.client.repeats import repeated

METADATA: Final = (("workload.spiffe.io", "true"),)
CALL_SECONDS: Final = 10.0  # an attestor may take five, and a fetch may be held for one
BACKOFF_FIRST_SECONDS: Final = 0.1
BACKOFF_MAX_SECONDS: Final = 5.0
CONNECT_MS: Final = 5_000  # what gRPC calls its least backoff is how long one attempt may take: on a busy machine, long
_LOOK_SECONDS: Final = 0.1  # until it is looked whether another agent stands at the path
_LEAVING_SECONDS: Final = 1.0
_NONE: Final = -1  # no handle
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # of a stream that crosses the end of its connection gRPC may never tell the end then
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", 200),  # a Unix socket whose queue is full says so at once, and never again
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
)
_NO_PLACE: Final = f"({errno.ENOTCONN})"  # in gRPC's words, where a Unix socket's queue was full: it wrote all the same
_FOR_GOOD: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED})

Answer = TypeVar("Answer", bound=Message)
Parsed = TypeVar("Parsed")
Made = TypeVar("Made")


class AgentConnection:
    """Calls to whoever stands at the agent's path. Must be made inside the event loop that uses it; `close` ends them.

    A channel connects to the one socket that was looked at, by a handle on it, and to none that comes after it: then
    another channel is made.
    """

    def __init__(self, path: str, deadline_seconds: float) -> None:
        self.path = path
        self.deadline_seconds = deadline_seconds
        # For so long a call is made again of which nothing came because its agent stops: see sdk/client/repeats.py.
        self.restart_seconds = 0.0
        # Each byte that could end a URI's path is escaped, so that any file name in UTF-8 is reached.
        self._named = quote(path)
        self._socket = AgentSocket(path)
        self._handle = _NONE
        self._made: grpc.aio.Channel | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()
            self._made = None
        if self._handle != _NONE:
            os.close(self._handle)
            self._handle = _NONE
        if self._leaving:
            await asyncio.gather(*self._leaving)

    @property
    def _channel(self) -> grpc.aio.Channel:
        """That to the socket which stands at the path now. Where there is none to be believed, its calls fail."""
        handle = self._socket.look()
        if handle is None and self._made is not None:
            return self._made
        if self._made is not None:
            leaving = asyncio.ensure_future(_leave(self._made, self._handle))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._handle = _NONE if handle is None else handle
        self._made = _channel_to(self._handle, self._named)
        return self._made

    def _unreachable(self) -> str:
        """Why nobody is there."""
        if self._socket.distrust:
            return f"{self._socket.distrust}; look who that is, and what has become of the agent"
        return unreachable_sentence(self.path)

    async def wait_connected(self, seconds: float) -> None:
        """Return once the agent has taken a connection. Raise Unreachable if it has not within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not await _is_ready(self._channel):
                    pass
        except TimeoutError as error:
            raise Unreachable(self._unreachable(), detail=f"not within {seconds:g} seconds") from error

    async def taken(self, call: Callable[[float], Awaitable[Made]], seconds: float) -> Made:
        """What `call` answers, which is given how long it may take, and is made again for as long as it was not heard
        because more connections waited for the agent than there is room for. Raise its SojournError.
        """
        clock = asyncio.get_running_loop().time
        ends = clock() + seconds
        while True:
            try:
                return await call(ends - clock())
            except Unreachable as error:
                if _NO_PLACE not in error.detail or not self._may_be_full():
                    raise
                await self.wait_connected(ends - clock())

    def _may_be_full(self) -> bool:
        """Whether somebody listens there who may have had no room, and takes this client soon."""
        return not self._socket.distrust and listened_on(self.path)

    async def unary(self, method: str, request: Message, answer: type[Answer], seconds: float | None = None) -> Answer:
        """Make a call with one answer. Raise a SojournError."""

        async def once(left: float) -> Answer:
            call = self._channel.unary_unary(
                method, request_serializer=_serialize, response_deserializer=answer.FromString
            )
            try:
                made: Answer = await call(request, metadata=METADATA, timeout=left)
            except grpc.aio.AioRpcError as error:
                raise self.failure(error) from error
            return made

        within = seconds or self.deadline_seconds
        return await repeated(method, lambda: self.taken(once, within), self.restart_seconds)

    def failure(self, error: grpc.aio.AioRpcError) -> SojournError:
        """Our error for a status that a call ended with."""
        made = translate(error, self._unreachable)
        if made.public.startswith(UNKNOWN_METHOD):
            return Refused(other_socket_sentence(self.path), detail=made.public)
        return made

    async def first(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        """Return the first message of a stream, and close the stream. Raise a SojournError."""

        async def once(left: float) -> Answer:
            call = self.stream(method, request, answer)
            try:
                async with asyncio.timeout(left):
                    message: Answer = await read(call, self)
            except TimeoutError as error:
                raise Unavailable(f"agent sent nothing within {self.deadline_seconds:g} seconds") from error
            finally:
                call.cancel()
            return message

        return await repeated(method, lambda: self.taken(once, self.deadline_seconds), self.restart_seconds)

    def stream(self, method: str, request: Message, answer: type[Answer]) -> Any:
        """Begin a call whose answer is a stream; the caller cancels it."""
        call = self._channel.unary_stream(
            method, request_serializer=_serialize, response_deserializer=answer.FromString
        )
        return call(request, metadata=METADATA)

    def duplex(self, method: str, requests: AsyncIterator[Message], answer: type[Answer]) -> Any:
        """Begin a call with a stream each way; the caller cancels it."""
        call = self._channel.stream_stream(
            method, request_serializer=_serialize, response_deserializer=answer.FromString
        )
        return call(requests, metadata=METADATA)

    async def follow(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        parse: Callable[[Answer], Parsed],
        on_error: Callable[[SojournError], None] | None = None,
        silence_seconds: float | None = None,
    ) -> AsyncGenerator[Parsed, None]:
        """Yield each message of a stream, parsed, and begin the stream anew whenever it ends.

        `on_error` hears each failure. A message that `parse` refuses by a SojournError, and a silence longer than
        `silence_seconds`, count as one. The wait between attempts doubles from BACKOFF_FIRST_SECONDS to
        BACKOFF_MAX_SECONDS. Raise for INVALID_ARGUMENT and UNIMPLEMENTED, which no attempt will cure.
        """
        wait = BACKOFF_FIRST_SECONDS
        while True:
            call = self.stream(method, request, answer)
            failure: SojournError = Unavailable("agent ended the stream")
            try:
                while True:
                    async with asyncio.timeout(silence_seconds):
                        message = await read(call, self)
                    parsed = parse(message)
                    wait = BACKOFF_FIRST_SECONDS
                    yield parsed
            except TimeoutError:
                failure = Unavailable(f"agent was silent for {silence_seconds} seconds")
            except SojournError as error:
                cause = error.__cause__
                if isinstance(cause, grpc.aio.AioRpcError) and cause.code() in _FOR_GOOD:
                    raise
                failure = error
            finally:
                call.cancel()
            if on_error is not None:
                on_error(failure)
            await asyncio.sleep(wait)
            wait = min(wait * 2, BACKOFF_MAX_SECONDS)


def _channel_to(handle: int, path: str) -> grpc.aio.Channel:
    """One to the socket of a handle, or to nobody. Where there is no /proc, one to the path as it is."""
    place = f"/proc/self/fd/{handle}"
    if handle != _NONE and not os.path.exists(place):
        place = path
    begin_grpc_poller()
    return grpc.aio.insecure_channel("unix:" + place, options=_OPTIONS)


async def _leave(channel: grpc.aio.Channel, handle: int) -> None:
    """Close the channel to an agent that stands at the path no more, a moment after its last answers."""
    await channel.close(_LEAVING_SECONDS)
    if handle != _NONE:
        os.close(handle)


async def _is_ready(channel: grpc.aio.Channel) -> bool:
    """Wait a moment for it to be connected."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await channel.channel_ready()
    except TimeoutError:
        return False
    return True


async def read(call: Any, connection: AgentConnection) -> Any:
    """Return the next message of a stream. Raise a SojournError, also when the stream has ended well."""
    try:
        message = await call.read()
    except grpc.aio.AioRpcError as error:
        raise connection.failure(error) from error
    if message is grpc.aio.EOF:
        raise Unavailable("agent ended the stream")
    return message


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def not_open(name: str = "client", made: str = "Client()") -> InvalidInput:
    return InvalidInput(f"{name} is not open: use it as `async with {made} as {name}`")
