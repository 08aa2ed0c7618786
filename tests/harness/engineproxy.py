"""Stands between an attestor and a container engine: counts what is asked, and answers wrongly if a test says so."""

import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.engines import UnixConnection

Fault = Callable[[socket.socket, bytes], None]  # given the connection and the engine's true answer, as sent on the wire


class EngineProxy:
    """Listens at `path` for the engine at `engine`, or for none. Use as a context manager.

    `change` is given each document, with the path asked for, and returns what is answered in its place; `fault`
    answers in its own way. A test sets them as it likes.
    """

    def __init__(self, path: Path, engine: Path | None, owner: int = 0) -> None:
        self.path = path
        self.asked: list[str] = []
        self.answered: list[tuple[str, Any]] = []  # path and document, of those that were changed
        self.change: Callable[[str, Any], Any] | None = None
        self.fault: Fault | None = None
        self._engine = engine
        self._owner = owner
        self._held: list[socket.socket] = []

    def __enter__(self) -> "EngineProxy":
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        if os.geteuid() == 0:
            os.chown(self.path, self._owner, self._owner)
        self._listener.listen(512)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        self.let_go()

    def hold(self, connection: socket.socket) -> None:
        """Keep a connection open, and say nothing (more) on it."""
        self._held.append(connection.dup())

    def let_go(self) -> None:
        """Hang up on those that are held."""
        while self._held:
            self._held.pop().close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                block = connection.recv(65_536)
                if not block:
                    return
                head += block
            path = head.split()[1].decode()
            self.asked.append(path)
            answer = self._answer(path)
            if self.fault is not None:
                self.fault(connection, answer)
            else:
                connection.sendall(answer)

    def _answer(self, path: str) -> bytes:
        if self._engine is None:
            return on_the_wire(404, b'{"message":"no such container"}')
        upstream = UnixConnection(str(self._engine))
        try:
            upstream.request("GET", path)
            answer = upstream.getresponse()
            status, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            upstream.close()
        if self.change is not None and status == 200:
            document = self.change(path, json.loads(body))
            self.answered.append((path, document))
            body = json.dumps(document).encode()
        return on_the_wire(status, body)


def on_the_wire(status: int, body: bytes) -> bytes:
    """A whole answer with this status and body."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
