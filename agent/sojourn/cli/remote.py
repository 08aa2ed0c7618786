"""Calls of the command to the agent."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sojourn.cli.interrupts import INTERRUPTS
from sojourn.errors import (
    AlreadyExists,
    Bug,
    FailedPrecondition,
    InvalidEntry,
    InvalidInput,
    NotFound,
    SojournError,
    StoreFailed,
    StoreFull,
    Unavailable,
)
from sojourn.limits import RESTART_AWAITED_SECONDS

if TYPE_CHECKING:
    from sojourn.sdk.client.connection import AgentConnection

Answer = TypeVar("Answer")
_CALL_SECONDS = 30.0


def admin(socket: str | None, request: Any, method: str = "") -> Any:
    """Make one call on the admin socket, the one that takes this request: `method` says which, if there are several.

    Raise a SojournError.
    """
    from sojourn.config.paths import admin_socket

    with _of_operator():
        return _unary(admin_socket(socket), *method_of(request, method))


@contextmanager
def _of_operator() -> Iterator[None]:
    """What is raised within it was said to an operator."""
    try:
        yield
    except SojournError as error:
        error.by_operator = True
        raise


def workload(socket: str | None, request: Any) -> Any:
    """Make one call on the public socket, the one that takes this request. Raise a SojournError."""
    from sojourn.config.paths import public_socket

    return _unary(public_socket(socket), *method_of(request, operator=False))


def _unary(path: str, method: str, request: Any, answer: Any) -> Any:
    async def call() -> Any:
        async with _connected(path) as connection:
            return await connection.unary(method, request, answer)

    return INTERRUPTS.run(call)


@asynccontextmanager
async def _connected(path: str) -> "AsyncIterator[AgentConnection]":
    """A connection that lasts over a restart of the agent, as far as calls may be made again."""
    from sojourn.sdk.client.connection import AgentConnection

    connection = AgentConnection(path, _CALL_SECONDS)
    connection.restart_seconds = RESTART_AWAITED_SECONDS
    try:
        yield connection
    finally:
        await connection.close()


def method_of(request: Any, method: str = "", *, operator: bool = True) -> tuple[str, Any, Any]:
    """The full name of the method that takes a request, the request, and the type of its answer.

    It is looked for in the file of the request; for an `operator` in the service Admin before that.
    """
    from google.protobuf.message_factory import GetMessageClass

    from sojourn._pb.sojourn.v1 import admin_pb2

    asked = request.DESCRIPTOR
    for file in (admin_pb2.DESCRIPTOR, asked.file) if operator else (asked.file,):
        for service in file.services_by_name.values():
            for each in service.methods:
                if each.input_type.full_name == asked.full_name and method in {"", each.name}:
                    return f"/{service.full_name}/{each.name}", request, GetMessageClass(each.output_type)
    raise Bug(f"no method takes {asked.full_name}")


def admin_pages(socket: str | None, request: Any, each: Callable[[Any], None]) -> None:
    """Make a call on the admin socket that is answered in pages, for all of them, and call `each` with each answer.

    Raise a SojournError.
    """
    from sojourn.config.paths import admin_socket

    with _of_operator():
        _pages(admin_socket(socket), method_of(request), each)


def workload_pages(socket: str | None, request: Any, each: Callable[[Any], None]) -> None:
    """The same on the public socket, as a workload."""
    from sojourn.config.paths import public_socket

    _pages(public_socket(socket), method_of(request, operator=False), each)


def _pages(path: str, call: tuple[str, Any, Any], each: Callable[[Any], None]) -> None:
    method, request, answer = call

    async def pages() -> None:
        async with _connected(path) as connection:
            while True:
                page = await connection.unary(method, request, answer)
                each(page)
                if not page.next_page_token:
                    return
                request.page_token = page.next_page_token

    request.page_token = ""  # from the beginning, also when it was made before
    INTERRUPTS.run(pages)


def admin_stream(socket: str | None, request: Any, each: Callable[[Any], None]) -> None:
    """Make one call on the admin socket that is answered in parts, and call `each` with each part as it comes.

    Raise a SojournError if it does not end well.
    """
    import grpc

    from sojourn.config.paths import admin_socket
    from sojourn.sdk.client.repeats import repeated

    method, message, answer = method_of(request)
    heard = False

    async def parts(connection: "AgentConnection") -> None:
        nonlocal heard
        try:
            async for part in connection.stream(method, message, answer):
                heard = True
                each(part)
        except grpc.aio.AioRpcError as error:
            raise connection.failure(error) from error

    async def call() -> None:
        async with _connected(admin_socket(socket)) as connection:
            # Begun again after a part was heard, it would tell that part twice.
            await repeated(method, lambda: parts(connection), RESTART_AWAITED_SECONDS, until=lambda: heard)

    with _of_operator():
        INTERRUPTS.run(call)


def public(socket: str | None, use: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Run `use(client)` with a client of the public socket. Raise a SojournError."""
    from sojourn.sdk.client.client import Client

    async def call() -> Answer:
        async with Client(socket) as client:
            client.connection.restart_seconds = RESTART_AWAITED_SECONDS
            return await use(client)

    return INTERRUPTS.run(call)


def pairs(texts: Iterable[str] | None, what: str = "parameter") -> dict[str, str]:
    """Read NAME=VALUE options. Raise InvalidInput."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{what} {text[:100]!r} is not NAME=VALUE")
        if name in found:
            raise InvalidInput(f"{what} {name!r} is given twice")
        found[name] = value
    return found


def check(status: Any, invalid: type[SojournError] = InvalidEntry) -> None:
    """Raise what the status of one item of a batch says; `invalid` is what a malformed one is."""
    error = failure(status, invalid)
    if error is not None:
        raise error


def failure(status: Any, invalid: type[SojournError] = InvalidEntry) -> SojournError | None:
    """The error that the status of one item of a batch says, if it says one."""
    if status.code == 0:
        return None
    kinds: dict[int, type[SojournError]] = {
        3: invalid,
        5: NotFound,
        6: AlreadyExists,
        8: StoreFull,
        9: FailedPrecondition,
        14: StoreFailed,
    }
    error = kinds.get(status.code, Unavailable)(status.message)
    error.remote_code, error.by_operator = error.code, True
    return error
