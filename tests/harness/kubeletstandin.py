"""A kubelet as a real one answered (recorded by kuberecord.py), over TLS, that also answers as no kubelet would.

Pods and containers of the recording stand for processes of a test: see `listing`.
"""

import contextlib
import datetime as dt
import json
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harness.kuberecord import FOLDER
from harness.kubernetesfiles import TOKEN, USELESS_TOKEN
from harness.tlsplace import TlsPlace

_UNAUTHORIZED, _FORBIDDEN = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("unauthorized", "forbidden")
)


def listing() -> dict[str, Any]:
    """The recorded list, to be changed at will."""
    pods: dict[str, Any] = json.loads((FOLDER / "pods.json").read_text())
    return pods


def renewed() -> dict[str, Any]:
    """The recorded list with pods of its own: their cgroups, which their uids name, are not those of another test."""
    pods = listing()
    for pod in pods["items"]:
        fresh = uuid.uuid4()
        dashed = "-" in pod["metadata"]["uid"]  # a static pod's is without
        pod["metadata"]["uid"] = str(fresh) if dashed else fresh.hex
    return pods


def pod_of(pods: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A pod of a list."""
    (found,) = (each for each in pods["items"] if each["metadata"]["name"] == name)
    return found  # type: ignore[no-any-return]


def status_of(pods: Mapping[str, Any], name: str, container: str) -> dict[str, Any]:
    """What a list says of a container, of whichever kind."""
    status = pod_of(pods, name)["status"]
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    (found,) = (each for kind in kinds for each in status.get(kind, ()) if each["name"] == container)
    return found  # type: ignore[no-any-return]


def listed(pods: Mapping[str, Any], name: str, container: str, container_id: str) -> None:
    """Have a container of a list be the one of 64 hex digits."""
    status_of(pods, name, container)["containerID"] = f"containerd://{container_id}"


class Kubelet:
    """Serves on a port of its own until it is closed; one who shows `token`, or a client certificate, is answered.

    `pods`: what it lists. `answer`: bytes that it answers instead, with `status`. `delay`: seconds before its answer.
    `gate`: it answers no sooner than this is set. `short`: it ends in the middle of its answer. `asked`: how often it
    was, and `at_once`: how many requests it had at the most.
    """

    def __init__(
        self,
        folder: Path,
        *,
        plain: bool = False,
        port: int = 0,
        ends_in: dt.timedelta = dt.timedelta(days=1),
    ) -> None:
        self.tls = TlsPlace(folder / "kubelet", name="node1", ends_in=ends_in)
        self.clients = TlsPlace(folder / "clients", name="sojourn", common_name="sojourn")
        self.token = TOKEN
        self.pods: Mapping[str, Any] = renewed()
        self.answer: bytes | None = None
        self.status = 200
        self.location = ""  # where it says that the list is instead
        self.delay = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.short = False
        self.asked = 0
        self.at_once = 0
        self.shown: list[str] = []
        self._now = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closing = False
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = False  # so that `close` waits for them
        if not plain:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls.chain, self.tls.key)
            context.load_verify_locations(self.clients.ca)
            context.verify_mode = ssl.CERT_OPTIONAL
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def settings(self, folder: Path, **more: Any) -> dict[str, Any]:
        """`[attestors.k8s]` of an agent that trusts it, and shows a token that is in `folder`."""
        token = folder / "token"
        if not token.exists():
            token.write_text(TOKEN)
        paths = {"kubelet_ca_path": str(self.tls.ca), "token_path": str(token)}
        return {"kubelet_secure_port": self.port, "node_name": "node1", **paths, **more}

    def toml(self, folder: Path, **more: Any) -> str:
        """The same as text."""
        settings = self.settings(folder, **more)
        return "\n".join(["[attestors.k8s]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())])

    def close(self) -> None:
        """Hang up, and leave no connection and no thread behind."""
        self.gate.set()
        self._server.shutdown()
        with self._lock:
            self._closing = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "Kubelet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        """While a client is."""
        with self._lock:
            if self._closing:
                raise ConnectionAbortedError
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def reply(self, header: str, certificate: object) -> tuple[int, bytes]:
        """What it answers to who shows this."""
        with self._lock:
            self.asked += 1
            self.shown.append(header)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        try:
            pods, answer = json.dumps(self.pods).encode(), self.answer
            self.gate.wait(30)
            time.sleep(self.delay)
        finally:
            with self._lock:
                self._now -= 1
        if header == f"Bearer {USELESS_TOKEN}":
            return _FORBIDDEN["status"], _FORBIDDEN["body"].encode()
        if header != f"Bearer {self.token}" and not certificate and isinstance(self._server.socket, ssl.SSLSocket):
            return _UNAUTHORIZED["status"], _UNAUTHORIZED["body"].encode()
        return self.status, pods if answer is None else answer


def _handler(kubelet: Kubelet) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        disable_nagle_algorithm = True  # as servers have it: else the body waits 40 ms behind the head

        def do_GET(self) -> None:
            certificate = getattr(self.connection, "getpeercert", lambda: None)()
            status, body = (404, b"404 page not found")
            if self.path == "/pods":
                status, body = kubelet.reply(self.headers.get("authorization", ""), certificate)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if kubelet.location:
                self.send_header("Location", kubelet.location)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if kubelet.short else body)
            self.close_connection = self.close_connection or kubelet.short

        def handle(self) -> None:
            try:
                with kubelet.connected(self.connection):
                    super().handle()
            except (OSError, ValueError):  # hung up
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
