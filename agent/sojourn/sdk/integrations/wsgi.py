"""WSGI middleware: no request without a live task whose token allows its action. For Flask, Django and their kin."""

import io
import ssl
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from sojourn.errors import InvalidInput, SojournError, TooLarge
from sojourn.limits import GUARDED_CONTENT_MAX_BYTES
from sojourn.sdk.guard.challenges import Refusal
from sojourn.sdk.guard.guard import HttpRequest
from sojourn.sdk.guard.lazy import UNREADY, Verdict
from sojourn.sdk.guard.person_check import REFUSED, Taking
from sojourn.sdk.guard.public_routes import PublicRoutes
from sojourn.sdk.guard.routes import Actions
from sojourn.sdk.guard.sync import SyncGuard
from sojourn.sdk.integrations.own_routes import OwnRoutes
from sojourn.sdk.integrations.wsgi_streams import App, Environ, StartResponse, answer_for, answer_while_live, refuse
from sojourn.tasktoken.tokens import TaskToken

ENVIRON_KEY: Final = "sojourn.task"
_MOUNTING: Final = ("HTTP_SCRIPT_NAME", "HTTP_PATH_INFO")  # headers that gunicorn takes a part of the path from
_UNESCAPED: Final = "!$&'()*+,;=:@/~"  # what clients leave as it is in a path (RFC 3986, 3.3)


class TaskTokenWsgi:
    """Guards a WSGI application. The TaskToken of a request that passes is in `environ["sojourn.task"]`.

    `actions` says which action a request is (see `action_finder`), by its whole path; a request that is none is
    answered 403. A route that the application has as well is for that one alone, as under TaskTokenMiddleware. Each
    process has a guard of its own, from its first request on, so that a server may fork after this was made.
    `base_url`, `metadata` and `person` are the Guard's. One that is `strict` answers nothing but 503 where it would
    refuse tasks whose parameters its routes have no place for; `start` tells that before there is a request.

    An application routes by the decoded path, the guard by the path as it was sent. So a path with an escaped slash,
    and one that a server has rewritten, is answered 400, as is a request with a header SCRIPT_NAME. Where a server
    tells the decoded path alone, the guard escapes it again: an escaped slash is a slash to it then, as it is to the
    application.

    An answer in parts ends once the task of its token has. What the application asks of its own tasks, while it is
    called and while its answer is read, is for the person of the token (`sojourn.acting_for`).
    """

    def __init__(
        self,
        app: App,
        *,
        actions: Actions,
        audience: str,
        socket: str | None = None,
        base_url: str | None = None,
        metadata: bool = True,
        public: Iterable[str] = (),
        strict: bool = False,
        person: Taking = REFUSED,
    ) -> None:
        """`public` are the routes that need no token (see PublicRoutes)."""
        self.app = app
        self._public = PublicRoutes(public, actions)
        self._own = OwnRoutes(app, actions, self._public.routes)
        self._guard = SyncGuard(
            actions,
            audience=audience,
            socket=socket,
            base_url=base_url,
            metadata=metadata,
            strict=strict,
            person=person,
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ.pop(ENVIRON_KEY, None)
        self._own.tell_once(_mounted(environ))
        verdict = self._judge(environ)
        if verdict is None:
            return answer_for(None, self.app, environ, start_response)
        if not isinstance(verdict, TaskToken):
            return refuse(verdict, environ, start_response)
        environ[ENVIRON_KEY] = verdict
        alive = partial(answer_while_live, self.app, over=partial(self._guard.over, verdict))
        return answer_for(verdict, alive, environ, start_response)

    def start(self) -> None:
        """Begin before the first request, as in a worker that was forked. Raise what keeps the guard from that."""
        self._own.tell_once("")
        self._guard.start()

    def close(self) -> None:
        """Let go of the connection to the agent. Reports that wait are sent first."""
        self._guard.close()

    def _judge(self, environ: Environ) -> Verdict | None:
        """None: it needs no token."""
        try:
            request = replace(_request(environ), destination=self._own.destination(environ, _mounted(environ)))
        except InvalidInput as error:
            return Refusal(400, "invalid_request", error.public)
        names = [name for name, _ in request.headers]
        if self._public.has(request.method, request.path, names, request.destination):
            return None
        try:
            return self._guard.check(request, lambda: _whole_content(environ))
        except SojournError:  # there is no socket to go by
            return UNREADY


def _request(environ: Environ) -> HttpRequest:
    # What a client sends as a header is in HTTP_…, so that no other name is of its making.
    headers = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    headers += [("content-type", environ["CONTENT_TYPE"])] if environ.get("CONTENT_TYPE") else []
    pem = environ.get("SSL_CLIENT_CERT")
    return HttpRequest(
        environ["REQUEST_METHOD"],
        _path(environ),
        environ.get("QUERY_STRING", ""),
        headers,
        ssl.PEM_cert_to_DER_cert(pem) if pem else None,
    )


def _mounted(environ: Environ) -> str:
    """Where the application is mounted, decoded, without a slash at the end."""
    mounted: str = environ.get("SCRIPT_NAME", "")
    return mounted.encode("latin-1").decode("utf-8", "replace").rstrip("/")


def _path(environ: Environ) -> str:
    """The path as it was sent. Raise InvalidInput where the application would read another in it."""
    if any(name in environ for name in _MOUNTING):
        raise InvalidInput("who sends a request does not say where the application is mounted")
    decoded = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    sent: str = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
    if not sent:
        return quote(decoded, safe=_UNESCAPED)
    path = sent.partition("#")[0].partition("?")[0]
    if not path.startswith("/"):
        path = urlsplit(path).path  # of a request to a proxy (RFC 9112, 3.2.2)
    if not path.isascii():
        raise InvalidInput("path has bytes that are not ASCII: they are escaped, as UTF-8")
    if "%2f" in path.lower() or unquote_to_bytes(path.encode("latin-1")) != decoded:
        raise InvalidInput("path has an escaped slash, or is another one for the server than for the application")
    return path


def _whole_content(environ: Environ) -> bytes:
    """As `_content`, whatever a server raises of content that is not as HTTP has it, or breaks off."""
    try:
        return _content(environ)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput("content cannot be read: it is not as HTTP has it, or broke off") from error


def _content(environ: Environ) -> bytes:
    """Read the content, and put it back for the application. Raise TooLarge, or InvalidInput."""
    length = environ.get("CONTENT_LENGTH") or ""
    whole = bool(environ.get("wsgi.input_terminated"))  # the server ends the stream where the request does
    if not length and "HTTP_TRANSFER_ENCODING" in environ and not whole:
        raise InvalidInput("content has no length, and this server does not say where it ends")
    if length and not (length.isascii() and length.isdecimal()):
        raise InvalidInput("content has a length that is none")
    expected = int(length[:20]) if length else None
    if (expected or 0) > GUARDED_CONTENT_MAX_BYTES:
        raise _too_large()
    content = b""
    if expected is not None:
        content = environ["wsgi.input"].read(expected)
        if len(content) != expected:
            raise InvalidInput("content ended early")
    elif whole:
        content = _read_all(environ["wsgi.input"])
    environ["wsgi.input"] = io.BytesIO(content)
    environ["CONTENT_LENGTH"] = str(len(content))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return content


def _read_all(stream: Any) -> bytes:
    found = bytearray()
    while part := stream.read(GUARDED_CONTENT_MAX_BYTES + 1 - len(found)):
        found += part
        if len(found) > GUARDED_CONTENT_MAX_BYTES:
            raise _too_large()
    return bytes(found)


def _too_large() -> TooLarge:
    return TooLarge(f"content of a request that is compared has at most {GUARDED_CONTENT_MAX_BYTES} bytes")
