"""What goes on after its token was judged, over WSGI: uploads, and answers in parts, end with their caller's task."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from sojourn.sdk.guard.challenges import GuardAnswer
from sojourn.sdk.guard.serving_token import serving
from sojourn.sdk.integrations.task_over import TaskIsOver
from sojourn.sdk.task.acting import expected, go_on_for
from sojourn.tasktoken.tokens import TaskToken

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Over = Callable[[], str]  # why the task is over, or ''
Found = TypeVar("Found", bytes, list[bytes])


def answer_while_live(app: App, environ: Environ, start_response: StartResponse, over: Over) -> Iterable[bytes]:
    """Call an application, which reads its content, and whose answer's parts are sent, while its task lives. After that
    TaskIsOver is raised.

    A server breaks the connection off then, so that its client does not take the answer for a whole one. If nothing was
    answered yet, or an error that a framework has made of it, the client is told why instead.
    """
    content = environ["wsgi.input"] = Content(environ["wsgi.input"], over)
    began = failed = False

    def started(status: str, *args: Any, **kwargs: Any) -> Callable[[bytes], object]:
        nonlocal began, failed
        failed = content.ended is not None and status.startswith("5")
        if failed:
            return len  # its own content goes nowhere
        began = True
        write = start_response(status, *args, **kwargs)

        def write_while_live(part: bytes) -> object:
            _check(over)
            return write(part)

        return write_while_live

    try:
        parts = app(environ, started)
    except TaskIsOver as error:
        if began:
            raise
        return refuse(error.refusal(), environ, start_response)
    if failed and content.ended is not None:
        close_parts(parts)
        return refuse(content.ended.refusal(), environ, start_response)
    return parts if isinstance(parts, list | tuple) and len(parts) < 2 else _Parts(parts, over)


class Content:
    """A request's content, as applications read it (PEP 3333): what comes after the task's end is nobody's."""

    def __init__(self, stream: Any, over: Over) -> None:
        self._stream = stream
        self._over = over
        self.ended: TaskIsOver | None = None  # what was raised

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, *size: int) -> bytes:
        found: bytes = self._stream.read(*size)
        return self._checked(found)

    def readline(self, *size: int) -> bytes:
        found: bytes = self._stream.readline(*size)
        return self._checked(found)

    def readlines(self, *hint: int) -> list[bytes]:
        return self._checked(self._stream.readlines(*hint))

    def __iter__(self) -> Iterator[bytes]:
        return map(self._checked, self._stream)

    def _checked(self, found: Found) -> Found:
        if found and (why := self._over()):
            self.ended = TaskIsOver(why)
            raise self.ended
        return found


def refuse(answer: GuardAnswer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer in place of the application."""
    body = answer.body()
    status = HTTPStatus(answer.status)
    start_response(f"{status.value} {status.phrase}", [*answer.headers(), ("content-length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


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
