"""What goes on after its token was judged, over WSGI: an answer in parts ends when the token's task is over."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

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
        close = getattr(self._parts, "close", None)
        if close is not None:
            close()


def _check(over: Over) -> None:
    if why := over():
        raise TaskIsOver(why)
