"""A receiver of the journal's records on loopback: it keeps what is posted to it, and answers as it is told to.

Run as a program, `python -m harness.sinkplace PORT FILE`, it appends each post to a file and answers once that is on
disk, until it is killed; what a kill has left of a line it takes away as it begins.
"""

import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.httpserver import HttpServer

Answer = int | tuple[int, Mapping[str, str]] | tuple[int, Mapping[str, str], bytes]
SECONDS = 60.0


class _Post(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: "SinkPlace"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        said = self.owner.take({name.lower(): value for name, value in self.headers.items()}, body, peer)
        status, headers, content = (*said, b"")[:3] if isinstance(said, tuple) else (said, {}, b"")
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


class SinkPlace:
    """The receiver within the test's process. Use as a context manager. `answer`: what it says to a post."""

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.answer: Callable[[bytes], Answer] = lambda _body: 204
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.peers: list[Any] = []  # the clients' certificates, of each post
        self.taken: list[dict[str, Any]] = []  # lines of posts that were answered with 2xx
        self._lock = threading.Lock()
        self._server = HttpServer(("127.0.0.1", port), type("Handler", (_Post,), {"owner": self}))
        self._server.context = context
        self.port = int(self._server.server_address[1])
        self.url = f"{'http' if context is None else 'https'}://localhost:{self.port}/in?key=s3cret"

    def __enter__(self) -> "SinkPlace":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()

    def take(self, headers: dict[str, str], body: bytes, peer: Any) -> Answer:
        with self._lock:
            self.posts.append((headers, body))
            self.peers.append(peer)
        said = self.answer(body)
        if 200 <= (said[0] if isinstance(said, tuple) else said) < 300:
            with self._lock:
                self.taken += map(json.loads, body.splitlines())
        return said

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Lines that were taken: records, or notices of a kind."""
        with self._lock:
            return [each for each in self.taken if each.get("kind", "record") == kind]

    @property
    def seqs(self) -> list[int]:
        return [each["seq"] for each in self.of("record")]


class SinkProgram:
    """The receiver as a process, which may be killed and started again on the same file. Use as a context manager."""

    def __init__(self, port: int, file: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.port = port
        self.file = file
        self._argv = [sys.executable, "-m", "harness.sinkplace", str(port), str(file)]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "SinkProgram":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(self._argv, cwd=Path(__file__).parents[1])

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
            self.process = None

    def records(self) -> list[dict[str, Any]]:
        """Whole lines of the file that are records."""
        text = self.file.read_bytes() if self.file.exists() else b""
        found = map(json.loads, text[: text.rfind(b"\n") + 1].splitlines())
        return [each for each in found if "kind" not in each]


def main(port: int, path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    content = path.read_bytes()
    os.ftruncate(descriptor, content.rfind(b"\n") + 1)
    lock = threading.Lock()

    def take(body: bytes) -> int:
        with lock:
            os.write(descriptor, body)
            os.fsync(descriptor)
        return 204

    ends = time.monotonic() + 20
    while True:
        try:
            place = SinkPlace(port=port)
            break
        except OSError:  # the one before may be going just now
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
    place.answer = take
    place.take = lambda _headers, body, _peer: take(body)  # type: ignore[method-assign]  # nothing is kept in memory
    with place:
        signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
