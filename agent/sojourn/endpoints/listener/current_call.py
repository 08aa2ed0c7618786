"""Whose call a thread is at, told from outside while it stands still: nobody pays for it until then."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import FrameType
from typing import Final

from starlette.requests import Request

from sojourn.attestation.peer import Peer, connected_by
from sojourn.endpoints.grpc.calls import Call
from sojourn.endpoints.http1.scope import SENDER
from sojourn.http2.connection import Connection
from sojourn.http2.stream import Stream

_STANDARD: Final = 2  # the last of the descriptors for input, output and errors, which are nobody's call
_LOOPS: Final = ("asyncio.", "uvloop")  # who calls the callbacks

Asker = Mapping[str, int | str]  # names as in the log: uid, pid, spiffe_id, method, path; none: nobody who is known


def at_of(frame: FrameType | None) -> tuple[str, Asker]:
    """The function of ours that a thread is in, innermost, and whose call that is; '' if the loop itself is at work."""
    frames = list(_within(frame))
    ours = next((each for each in frames if _module(each).startswith("sojourn")), None)
    if ours is None:
        return "", {}
    at = f"{_module(ours)}.{ours.f_code.co_qualname}"
    for each in frames:
        if _module(each).startswith("sojourn."):  # of others nobody knows what looking at their variables does
            for value in list(each.f_locals.values()):
                if asker := _asker(value):
                    return at, asker
    return at, {}


def peer_of(thread: int) -> Asker:
    """Who is at the other end of the Unix socket that a thread waits in the kernel for, by the thread's number there.

    Nobody, if it waits for no such thing, or this agent may not see it, as it may not unless it is root's.
    """
    try:
        with open(f"/proc/self/task/{thread}/syscall", encoding="ascii") as file:
            words = file.read().split()
        number = int(words[1], 16)  # most calls have first what they are for, and a few have other small numbers there
        descriptor = os.dup(number) if number > _STANDARD else -1
    except (OSError, ValueError, IndexError, OverflowError):  # running, in no call, or in one for no descriptor
        return {}
    if descriptor < 0:
        return {}
    with suppress(OSError), socket.socket(fileno=descriptor) as connection:
        descriptor = -1
        if connection.family == socket.AF_UNIX:
            pid, uid, _ = connected_by(connection)
            return {"uid": uid, "pid": pid} if pid > 0 else {}
    if descriptor >= 0:  # it was no socket
        os.close(descriptor)
    return {}


def _within(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of one callback, from the innermost on."""
    while frame is not None and not _module(frame).startswith(_LOOPS):
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _asker(value: object) -> Asker:
    match value:
        case Call():
            return {**value.visitor.details, "method": value.method}
        case Stream():
            return {**value.visitor.details, "method": value.head.path}
        case Request():
            sender = value.scope.get(SENDER)
            return {} if sender is None else {**sender.details, "path": value.scope["path"]}
        case Connection():
            return value.visitor.details
        case Peer():
            return value.details
    return {}
