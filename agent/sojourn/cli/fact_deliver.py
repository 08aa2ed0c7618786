"""`sojourn fact deliver`: hands a signed event to the agent, for transmitters that reach a machine in other ways."""

import http.client
import json
import socket as sockets
from typing import Annotated

import typer

from sojourn.cli.given_files import read_start
from sojourn.cli.options import Output, OutputOption, SocketOption
from sojourn.cli.output import emit
from sojourn.errors import InvalidEvent, InvalidInput, LimitExceeded, SojournError, Unavailable, Unreachable
from sojourn.limits import TOKEN_MAX_BYTES
from sojourn.sdk.client.agent_socket import connect

_SECONDS = 30.0
_ANSWER_MAX = 64 * 1024


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn fact`."""
    app.command()(deliver)


def deliver(
    file: Annotated[str, typer.Argument(help="A file with one signed event, or - to read it from standard input.")],
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Hand a signed event (a security event token, RFC 8417) to the agent. Exit status 0 if it was taken."""
    from sojourn.config.paths import public_socket

    event = read_start(file, TOKEN_MAX_BYTES + 2).strip()
    status, answer = _post(public_socket(socket), event)
    if status != http.client.ACCEPTED:
        raise _refusal(status, answer)
    emit(output, {"accepted": True}, ["accepted; what it changed stands in the journal: `sojourn audit tail`"])


def _post(path: str, event: bytes) -> tuple[int, bytes]:
    connection = _UnixConnection(path)
    try:
        connection.request("POST", "/events", body=event, headers={"Content-Type": "application/secevent+jwt"})
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER_MAX)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or "it did not answer"
        raise Unreachable(f"the agent at {path!r} cannot be reached: {why}") from error
    finally:
        connection.close()


def _refusal(status: int, answer: bytes) -> SojournError:
    if status == http.client.NOT_FOUND:
        error: SojournError = InvalidInput(
            "this agent hears no issuer: name one under [[signals]] in its configuration"
        )
        error.remote_code = error.code
        return error
    try:
        said = json.loads(answer)
        code, sentence = str(said["err"]), str(said["description"])
    except (ValueError, KeyError, TypeError, RecursionError):
        code, sentence = "internal", f"the agent answered with status {status}"
    kinds: dict[int, type[SojournError]] = {429: LimitExceeded, 503: Unavailable}
    error = kinds.get(status, InvalidEvent)(sentence)
    error.remote_code = code
    return error


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        connect(self.sock, self._path, _SECONDS)
