"""A server in the place of a Vault, that tells what it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Upstream(ThreadingHTTPServer):
    """Tells what it was sent. A path that ends with `token` is answered with the token, `cut` with half an answer, and
    `together` once as many as `meet` waits for are there at a time.
    """

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.meet = threading.Barrier(1)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers, content))
        if "together" in self.path:
            self.server.meet.wait(20)
        sent = headers.get("x-vault-token", "")
        told = {"data": {"id": sent if "token" in self.path else "x", "used": sent.rpartition("-")[2]}}
        body = json.dumps(told).encode()
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + (5 if "cut" in self.path else 0)))
        self.end_headers()
        for at in range(0, len(body), 7):  # in pieces, so that the token is cut through
            self.wfile.write(body[at : at + 7])
            self.wfile.flush()
        self.close_connection = "cut" in self.path

    do_GET = do_POST = do_PUT = do_DELETE = do_LIST = do_PATCH = answer

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(upstream: Upstream) -> Iterator[Upstream]:
    thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield upstream
    finally:
        upstream.shutdown()
        thread.join()
        upstream.server_close()
