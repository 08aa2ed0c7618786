"""A small image registry (OCI Distribution 1.1: push and pull) on the loopback, so that repository digests are real."""

import hashlib
import itertools
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PLACE = re.compile(
    r"/v2/(?P<name>.+)/(?P<kind>blobs/uploads|blobs|manifests)/(?P<what>[^/?]*)(\?digest=(?P<digest>.+))?"
)


class Registry:
    """Use as a context manager. `address`: HOST:PORT, with which an image's name begins."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # name, tag or digest -> media type, content
        self.uploads: dict[str, bytearray] = {}
        self.numbers = itertools.count()

    def __enter__(self) -> "Registry":
        handler = type("Handler", (_Handler,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path == "/v2/":
            self._answer(200, b"{}")
            return
        place = _PLACE.fullmatch(self.path.replace("%3A", ":"))
        assert place is not None, self.path
        if place["kind"] == "blobs" and place["what"] in self.registry.blobs:
            content = self.registry.blobs[place["what"]]
            self._answer(200, content, {"Docker-Content-Digest": place["what"]})
        elif place["kind"] == "manifests" and (place["name"], place["what"]) in self.registry.manifests:
            kind, content = self.registry.manifests[place["name"], place["what"]]
            self._answer(200, content, {"Content-Type": kind, "Docker-Content-Digest": _digest(content)})
        else:
            self._answer(404, b'{"errors":[{"code":"NOT_FOUND"}]}')

    def do_POST(self) -> None:
        self._body()
        upload = str(next(self.registry.numbers))
        self.registry.uploads[upload] = bytearray()
        name = self.path.removeprefix("/v2/").partition("/blobs/")[0]
        self._answer(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": "0-0"})

    def do_PATCH(self) -> None:
        upload = self.path.rpartition("/")[2]
        self.registry.uploads[upload] += self._body()
        end = len(self.registry.uploads[upload]) - 1
        self._answer(202, b"", {"Location": self.path, "Range": f"0-{max(end, 0)}"})

    def do_PUT(self) -> None:
        body = self._body()
        place = _PLACE.fullmatch(self.path.replace("%3A", ":"))
        assert place is not None, self.path
        if place["kind"] == "manifests":
            stored = (self.headers["Content-Type"], body)
            self.registry.manifests[place["name"], place["what"]] = stored
            self.registry.manifests[place["name"], _digest(body)] = stored
            self._answer(201, b"", {"Docker-Content-Digest": _digest(body)})
            return
        content = bytes(self.registry.uploads.pop(place["what"]) + body)
        assert place["digest"] == _digest(content)
        self.registry.blobs[_digest(content)] = content
        self._answer(201, b"", {"Docker-Content-Digest": _digest(content)})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
