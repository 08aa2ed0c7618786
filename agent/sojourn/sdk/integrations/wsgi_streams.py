"""What goes on after its token was judged, over WSGI: an answer in parts is its caller's, and ends with their task."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sojourn.sdk.guard.serving_token import serving
from sojourn.sdk.task.acting import expected, go_on_for
from sojourn.tasktoken.tokens import TaskToken

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Over = Callable[[], str]  # why the task is over, or ''


class TaskIsOver(OSError):
    """As servers know it of a client that has gone: the task of whoever is answered is over."""


def answer_while_live(app: App, environ: Environ, start_response: StartResponse, over: Over) -> Iterable[bytes]:
    """Call an application, whose answer's parts are sent while its task lives. After that TaskIsOver is raised.

    A server breaks the connection off then, so that its client does not take the answer for a whole one.
    """

    def started(*args: Any, **kwargs: Any) -> Callable[[bytes], object]:
        write = start_response(*args, **kwargs)

        def write_while_live(part: bytes) -> object:
            _check(over)
            return write(part)

        return write_while_live

    parts = app(environ, started)
    return parts if isinstance(parts, list | tuple) and len(parts) < 2 else _Parts(parts, over)


class _Parts:
    """An answer whose first part may go out at once: its token has just been judged."""

    def __init__(self, parts: Iterable[bytes], over: Over) -> None:
        self._parts = parts
        self._over = over

    def __iter__(self) -> Iterator[bytes]:
        for at, part in enumerate(self._parts):
            if at:
                _check(self._over)
            yield part

    def close(self) -> None:
        """Close the application's own, as each server does at the end (PEP 3333)."""
        close_parts(self._parts)


def answer_for(token: TaskToken | None, app: App, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Call an application for the caller with this token; None: the call needs none, and is for nobody.

    An answer may be made while the server reads it, after the call and between others: each step is its caller's too.
    """
    with serving(token):
        parts = app(environ, start_response)
    return parts if isinstance(parts, list | tuple) or _is_file(parts, environ) else _Steps(parts, token)


class _Steps:
    # Each step is in the context that the server has: frameworks reset what they have set, in the context of the call.
    # So what a step leaves behind of ours, such as a block of `acting_for` that it is within, is set for the next one.
    def __init__(self, parts: Iterable[bytes], token: TaskToken | None) -> None:
        self._parts = parts
        self._token = token
        self._left: str | None = None  # for whom the last step was at its end; None: there was none

    def __iter__(self) -> Iterator[bytes]:
        with self._step():
            steps = iter(self._parts)
        while True:
            with self._step():
                try:
                    part = next(steps)
                except StopIteration:
                    return
            yield part

    def close(self) -> None:
        """Close the application's own, as each server does at the end (PEP 3333)."""
        with self._step():
            close_parts(self._parts)

    @contextmanager
    def _step(self) -> Iterator[None]:
        with serving(self._token):
            if self._left is not None:
                go_on_for(self._left)
            try:
                yield
            finally:
                self._left = expected()


def _is_file(parts: object, environ: Environ) -> bool:
    """Whether an answer is a file that the server may send by itself, faster: no step of it is the application's."""
    wrapper = environ.get("wsgi.file_wrapper")
    if not isinstance(wrapper, type) or not isinstance(parts, wrapper):
        return False
    file = getattr(parts, "filelike", getattr(parts, "file", None))
    return isinstance(getattr(file, "raw", file), io.FileIO)


def close_parts(parts: object) -> None:
    """Close an answer that can be."""
    close = getattr(parts, "close", None)
    if close is not None:
        close()


def _check(over: Over) -> None:
    if why := over():
        raise TaskIsOver(why)
