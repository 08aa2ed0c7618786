"""The key process as a service of its own: it listens on a Unix socket, and has a user whom nobody else is.

Agents of one user may ask it. What they ask is as over the key process's other channel (messages.py), but that where
the keys are, and what is built at the most, is what this service was configured with: an agent changes none of it. When
the place of the keys fails the process ends, after it has said so: its supervisor starts another, which begins with
nothing.
"""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog

from sojourn.authority.token import messages
from sojourn.authority.token.messages import frame_of
from sojourn.authority.token.pin import PinRecord, TriedPin
from sojourn.authority.token.settings import TokenSettings
from sojourn.errors import FailedPrecondition, PinRefused
from sojourn.keyprocess import opening
from sojourn.keyprocess.host import Host
from sojourn.keyprocess.opening import Found, Opened
from sojourn.limits import KEY_SERVICE_CONNECTIONS
from sojourn.net.sockets import take_no_descriptors

log = structlog.get_logger()
_READ_BYTES: Final = 65_536
_BUILT: Final = {"create": "key", "make": "root", "sign": "intermediate", "list": "list", "test": "test"}


class KeyService:
    """Answers agents by the keys of one place."""

    def __init__(
        self,
        settings: TokenSettings,
        record: PinRecord,
        allowed: int,
        *,
        end: Callable[[], None] = lambda: os._exit(1),  # whatever threads a vendor's library has do not keep it
    ) -> None:
        """`settings`: what this service was configured with. `allowed`: the uid of who may ask, beside root."""
        self._settings = settings
        self._record = record
        self._allowed = {0, allowed}
        self._end = end
        self._opened: Opened | None = None
        self._turn = threading.Lock()
        self._room = threading.BoundedSemaphore(KEY_SERVICE_CONNECTIONS)

    def serve(self, listening: socket.socket) -> None:
        """Answer whoever connects, until the socket is closed."""
        take_no_descriptors(listening)
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            with connection:
                pid, uid, _ = messages.peer_of(connection)
                if uid not in self._allowed:
                    log.warning("keys_refused", uid=uid, pid=pid, reason="it is another user than the agent's")
                    return
                with suppress(ConnectionError):
                    self._answer(connection, {"uid": uid, "pid": pid})
        finally:
            self._room.release()

    def _answer(self, connection: socket.socket, by: Mapping[str, int]) -> None:
        host, frames = Host(self._find), messages.Frames()
        try:
            while data := connection.recv(_READ_BYTES):
                for message in frames.feed(data):
                    with self._turn:
                        answer = host.answer(message)
                    connection.sendall(frame_of(answer))  # whoever does not read holds up nobody else
                    self._tell(message.get("do"), answer, by)
        except ValueError as error:
            log.warning("keys_refused", reason=f"it sent what is no question: {error}", **by)

    def _find(self, asked: Mapping[str, Any]) -> Found:
        """What answers an agent. Raise FailedPrecondition if it is another one's, and what finding raises."""
        theirs = TokenSettings.of({name: value for name, value in asked.items() if name != "tried"})
        ours = self._settings
        if (theirs.trust_domain, theirs.node) != (ours.trust_domain, ours.node):
            raise FailedPrecondition(
                f"this key process is of node {ours.node!r} of trust domain {ours.trust_domain.name!r}, and not of node"
                f" {theirs.node!r} of {theirs.trust_domain.name!r}"
            )
        if (opened := self._opened) is not None:
            return Found(None, lambda _: opened)
        label = ours.place.label
        try:
            place = opening.found(ours, self._record.of(label))
        except PinRefused as error:
            self._record.note_refused(TriedPin(label), error)
            raise
        return Found(None, partial(self._finish, place))

    def _finish(self, place: Found, login: str) -> Opened:
        """Open the place. What is tried there is on disk before. Raise what that does."""
        if self._opened is None:
            if place.pin is not None:
                self._record.note_tried(place.pin)
            try:
                self._opened = place.finish(login)
            except PinRefused as error:
                if place.pin is not None:
                    self._record.note_refused(place.pin, error)
                raise
            self._record.clear()
        return self._opened

    def _tell(self, do: object, answer: Mapping[str, Any], by: Mapping[str, int]) -> None:
        """Log what was done, and end if the keys are away."""
        if answer.get("failed") == messages.TOKEN_AWAY:
            log.error(
                "keys_unavailable", reason=answer["said"], code="keys_unavailable", token=self._settings.place.label
            )
            self._end()
        elif "ok" in answer and isinstance(do, str) and do in _BUILT:
            log.info("root_key_used", what=_BUILT[do], **by)
        elif "failed" in answer:
            log.warning("keys_refused", reason=answer["said"], **by)
