"""A Kubernetes API server as far as a SPIRE server's `k8s_psat` asks one: reviews of tokens, a pod, and a node; over TLS."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harness.tlsplace import TlsPlace

AUDIENCE = "spire-server"
ADMIN = "reviewer-token"  # what the SPIRE server shows
NODE, NODE_UID = "node-1", "0b9eb4a1-6a0b-4f0e-8f0e-6f3a8f6f7d01"
NAMESPACE, ACCOUNT, POD = "sojourn", "sojourn-agent", "sojourn-agent-x2k9p"
_MAGIC = b"k8s\0"  # before Kubernetes' protobuf
_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


class KubeApi:
    """Knows one pod on one node. `tokens`: those that are good, each with its service account, as NAMESPACE:NAME.
    `reviewed`: the tokens that it was asked about. Use as a context manager.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tls = TlsPlace(folder / "kubeapi")
        self.tokens: dict[str, str] = {}
        self.reviewed: list[str] = []
        self.raw: tuple[int, bytes] | None = None  # what it answers to everything
        self._certificates = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls.chain, self.tls.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "KubeApi":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def demand_client_certificate(self) -> None:
        """Take a certificate of its own authority in the place of the token, from the next connection on."""
        self._context.load_verify_locations(self.tls.ca)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._certificates = True

    def knows(self, shown: str | None) -> bool:
        """Whether who shows this may ask: whose certificate was demanded has shown it already."""
        return self._certificates or shown == f"Bearer {ADMIN}"

    def kubeconfig(self) -> Path:
        """By which a SPIRE server finds it."""
        file = self.folder / "kubeconfig"
        address = f"https://127.0.0.1:{self._server.server_address[1]}"
        named = {
            "clusters": {"cluster": {"server": address, "certificate-authority": str(self.tls.ca)}},
            "users": {"user": {"token": ADMIN}},
            "contexts": {"context": {"cluster": "x", "user": "x"}},
        }
        document = {name: [{"name": "x", **each}] for name, each in named.items()}
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **document}))
        return file

    def plugin(self, cluster: str) -> str:
        """The SPIRE server's plugin, which lets in the pods of one service account."""
        said = f'service_account_allow_list = ["{NAMESPACE}:{ACCOUNT}"]\nkube_config_file = "{self.kubeconfig()}"'
        return f'NodeAttestor "k8s_psat" {{ plugin_data {{ clusters = {{ "{cluster}" = {{\n{said}\n}} }} }} }}'

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if (method, path) == ("POST", _REVIEWS):
            status = self._verdict(*_review(body))
            return 201, {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}
        if (method, path) == ("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{POD}"):
            names = {"name": POD, "namespace": NAMESPACE, "uid": "pod-uid"}
            placed = {"spec": {"nodeName": NODE}, "status": {"hostIP": "10.0.0.7"}}
            return 200, {"kind": "Pod", "apiVersion": "v1", "metadata": names, **placed}
        if (method, path) == ("GET", f"/api/v1/nodes/{NODE}"):
            return 200, {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE, "uid": NODE_UID}}
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def _verdict(self, token: str, audiences: list[str]) -> dict[str, Any]:
        self.reviewed.append(token)
        account = self.tokens.get(token)
        if account is None or AUDIENCE not in audiences:
            return {"user": {}, "error": "[invalid bearer token]"}  # as an API server has it, which says no otherwise
        extra = {"pod-name": [POD], "pod-uid": ["pod-uid"], "node-name": [NODE]}
        return {
            "authenticated": True,
            "audiences": [AUDIENCE],
            "user": {
                "username": f"system:serviceaccount:{account}",
                "extra": {f"authentication.kubernetes.io/{name}": value for name, value in extra.items()},
            },
        }


def _review(body: bytes) -> tuple[str, list[str]]:
    """Token and audiences of a TokenReview in JSON, or in Kubernetes' protobuf: an envelope whose second field has the
    object, whose second field is the specification.
    """
    if body.startswith(b"{"):
        told = json.loads(body)["spec"]
        return told["token"], told.get("audiences", [])
    assert body.startswith(_MAGIC), body[:40]
    spec = _fields(_fields(_fields(body.removeprefix(_MAGIC))[2][0])[2][0])
    return spec[1][0].decode(), [each.decode() for each in spec.get(2, [])]


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The values of a protobuf message's fields with a length, by their numbers."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        value, at = _number(message, at)
        if tag & 7 == 2:
            found.setdefault(tag >> 3, []).append(message[at : at + value])
            at += value
        else:
            assert tag & 7 == 0, tag
    return found


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    found = shift = 0
    while True:
        byte = message[at]
        found |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return found, at


def _handler(api: KubeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            known = api.knows(self.headers.get("authorization"))
            status, answer = api.answer(self.command, self.path, body) if known else (401, {})
            status, content = api.raw or (status, json.dumps(answer).encode())
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
