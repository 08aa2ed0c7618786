"""Puts one kind of request on an HTTP/1.1 server, over so many kept connections: one request after another on each.

It parses no more of an answer than it must, so that what is measured is the server.
"""

import selectors
import socket
import ssl
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any
from urllib.parse import urlsplit

from figures import percentile

TIMEOUT = 30.0


@dataclass
class Load:
    """`bodies` are sent in turn, the last again and again if there are more requests; `want` is in each good answer."""

    url: str
    bodies: list[str]
    connections: int
    seconds: float
    want: str
    socket: str = ""
    roots: str = ""
    pair: str = ""
    once: bool = False  # each body once: done when there are no more
    headers: list[str] = field(default_factory=list)
    method: str = "POST"
    target: str = ""  # of the request line, if it is not the URL's path


class Connection:
    def __init__(self, load: Load, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(load.url)
        if load.socket:
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(TIMEOUT)
            made.connect(load.socket)
        else:
            made = socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = made if context is None else context.wrap_socket(made, server_hostname=parts.hostname)
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.sent_at = perf_counter()
        self.socket.sendall(request)

    def answer(self) -> bytes:
        """Read a whole answer: it has begun to come."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        lower = head.lower()
        if b"\r\ncontent-length:" in lower:
            length = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            while len(body) < length:
                body += self._more()
        else:  # chunked
            while not body.endswith(b"0\r\n\r\n"):
                body += self._more()
        return head + b"\r\n\r\n" + body

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection")
        return data


def request_of(load: Load, body: str) -> bytes:
    parts = urlsplit(load.url)
    lines = [f"{load.method} {load.target or parts.path} HTTP/1.1", f"Host: {parts.netloc}", *load.headers]
    if load.method == "POST":
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def run(load: Load) -> dict[str, Any]:
    context = None
    if load.roots:
        context = ssl.create_default_context(cafile=load.roots)
        if load.pair:
            context.load_cert_chain(load.pair)
    waiting = selectors.EpollSelector()
    connections = [Connection(load, context) for _ in range(load.connections)]
    requests = [request_of(load, body) for body in load.bodies]
    want, number, took, refused, refusal = load.want.encode(), 0, [], 0, ""
    began, cpu = perf_counter(), process_time()
    ends = began + load.seconds

    def next_request() -> bytes | None:
        nonlocal number
        if perf_counter() >= ends or (load.once and number >= len(requests)):
            return None
        number += 1
        return requests[min(number, len(requests)) - 1]

    open_ = 0
    for each in connections:
        waiting.register(each.socket, selectors.EVENT_READ, each)
        if (request := next_request()) is not None:
            each.send(request)
            open_ += 1
    while open_:
        ready = waiting.select(TIMEOUT)
        if not ready:
            raise TimeoutError("the server did not answer")
        for key, _ in ready:
            each = key.data
            answer = each.answer()
            took.append(perf_counter() - each.sent_at)
            if want not in answer:
                refused += 1
                refusal = refusal or answer.decode("latin-1")[-300:]
            if (request := next_request()) is None:
                open_ -= 1
            else:
                each.send(request)
    passed = perf_counter() - began
    for each in connections:
        each.socket.close()
    return {
        "rate": len(took) / passed,
        "p50": percentile(took, 50) * 1000,
        "p99": percentile(took, 99) * 1000,
        "number": len(took),
        "refused": refused,
        "refusal": refusal,
        "client_cpu": (process_time() - cpu) / len(took),
    }
