"""The token that let a call in, for whoever serves the call; and whose call it is, for what is asked of tasks there."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sojourn.errors import InvalidInput
from sojourn.sdk.task.acting import act_from_here, acting_for_request
from sojourn.tasktoken.tokens import TaskToken

_serving: ContextVar[TaskToken | None] = ContextVar("sojourn_serving", default=None)


def serving_token() -> TaskToken:
    """The token of the call that is being served here: within a handler, a gRPC method or an MCP tool that is guarded.

    Raise InvalidInput outside of one.
    """
    token = _serving.get()
    if token is None:
        raise InvalidInput("no guarded call is being served here")
    return token


@contextmanager
def serving(token: TaskToken | None) -> Iterator[None]:
    """Within the block `serving_token` is this one, and tasks are used for its person. None: a call that needs none.

    What the context had before is not the call's, whoever's it was.
    """
    before = _serving.set(token)
    try:
        with acting_for_request(token.person if token is not None else None):
            yield
    finally:
        _serving.reset(before)


def serve_from_here(token: TaskToken | None) -> None:
    """The same for the rest of this context."""
    _serving.set(token)
    act_from_here(token.person if token is not None else None)
