"""A webhook on loopback: it keeps what is posted to it, and answers as it is told to."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from harness.authserver import Deed, Exchange
from harness.httpserver import HttpServer

SECONDS = 60.0


class _Post(Exchange):
    owner: "Webhook"  # type: ignore[assignment]  # which serves no forms

    def do_POST(self) -> None:
        self.owner.take(self, self.rfile.read(int(self.headers.get("content-length", "0"))))


class Webhook:
    """The server. Use as a context manager. `deeds`: what it does instead of taking a post, one after the other;
    `always`: what it does from then on.
    """

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.always: Deed | None = None
        self.ending = threading.Event()
        self.posts: list[dict[str, Any]] = []  # all that came
        self.taken: list[dict[str, Any]] = []  # those that were answered as taken
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._server = HttpServer(("127.0.0.1", 0), type("Handler", (_Post,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook?of=sojourn"

    def __enter__(self) -> "Webhook":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.end()

    def now(self) -> float:
        return time.time()

    def take(self, exchange: Exchange, content: bytes) -> None:
        with self._lock:
            self.posts.append(json.loads(content))
            self.headers.append({name.lower(): value for name, value in exchange.headers.items()})
            deed = self.deeds.pop(0) if self.deeds else self.always
        if deed is None or deed(exchange):
            with self._lock:
                self.taken.append(json.loads(content))
            exchange.answer(204, b"")

    def wait(self, holds: Callable[["Webhook"], Any]) -> Any:
        """What `holds` gives, once that is true."""
        deadline = time.monotonic() + SECONDS
        while not (found := holds(self)):
            assert time.monotonic() < deadline, f"came: {self.posts}"
            time.sleep(0.02)
        return found

    def ids(self, approval: str) -> list[str]:
        """The notices about a request that came, in their order, whether or not they were taken."""
        return [each["id"] for each in self.posts if each["approval"]["id"] == approval]

    def taken_of(self, approval: str) -> list[dict[str, Any]]:
        return [each for each in self.taken if each["approval"]["id"] == approval]

    def of(self, approval: str, event: str) -> list[dict[str, Any]]:
        """What was taken about a request."""
        return [each for each in self.taken if (each["approval"]["id"], each["event"]) == (approval, event)]
