"""The token that let a call in, for whoever serves the call."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sojourn.errors import InvalidInput
from sojourn.tasktoken.tokens import TaskToken

_serving: ContextVar[TaskToken | None] = ContextVar("sojourn_serving", default=None)


def serving_token() -> TaskToken:
    """The token of the call that is being served here: within a gRPC method or an MCP tool that is guarded.

    Raise InvalidInput outside of one.
    """
    token = _serving.get()
    if token is None:
        raise InvalidInput("no guarded call is being served here")
    return token


@contextmanager
def serving(token: TaskToken) -> Iterator[None]:
    """Within the block `serving_token` is this one."""
    before = _serving.set(token)
    try:
        yield
    finally:
        _serving.reset(before)


def serve_from_here(token: TaskToken) -> None:
    """For the rest of this context `serving_token` is this one."""
    _serving.set(token)
