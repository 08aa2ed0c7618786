"""For whom the methods of a gRPC server run: gRPC may take each step of an answer in another context."""

import contextvars
import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import aclosing
from typing import Any

import grpc

from sojourn.sdk.guard.serving_token import serve_from_here, serving
from sojourn.tasktoken.tokens import TaskToken


def kind_of(handler: Any) -> str:
    """Which of a handler's four behaviors is there, as gRPC names it: `unary_stream`."""
    return "_".join("stream" if many else "unary" for many in (handler.request_streaming, handler.response_streaming))


def stepwise(token: TaskToken | None, begin: Callable[[], Iterator[Any]]) -> Generator[Any]:
    """An iterator whose every step knows its token; None: it is for nobody."""
    inside = contextvars.copy_context()

    def first() -> Iterator[Any]:
        serve_from_here(token)
        return iter(begin())

    steps = inside.run(first)
    end = object()
    try:
        while (each := inside.run(next, steps, end)) is not end:
            yield each
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            inside.run(close)


def for_nobody(handler: Any) -> Any:
    """The handler of a method that needs no token, of either kind of server: whatever it does is for nobody."""
    kind = kind_of(handler)
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(
        _serving_nobody(getattr(handler, kind), streams=handler.response_streaming),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _serving_nobody(behavior: Callable[..., Any], *, streams: bool) -> Callable[..., Any]:
    """The same behavior, of the same kind of function, by which gRPC tells how it is called."""
    if inspect.isasyncgenfunction(behavior):

        @functools.wraps(behavior)
        async def answers(*args: Any) -> Any:
            serve_from_here(None)  # a call of grpc.aio has an asyncio task, and so a context, of its own
            async with aclosing(behavior(*args)) as found:
                async for each in found:
                    yield each

        return answers
    if inspect.iscoroutinefunction(behavior):

        @functools.wraps(behavior)
        async def answer_later(*args: Any) -> Any:
            with serving(None):
                return await behavior(*args)

        return answer_later

    # What health services say of a method that hands its answers to a callback, so that no thread waits for them.
    by_callback = getattr(behavior, "experimental_non_blocking", False)

    @functools.wraps(behavior)
    def answer(*args: Any, **callback: Any) -> Any:
        if streams and not by_callback:
            return stepwise(None, lambda: behavior(*args))
        with serving(None):
            return behavior(*args, **callback)

    return answer
