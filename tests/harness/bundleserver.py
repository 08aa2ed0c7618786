"""A bundle endpoint of a partner's: real TLS on the loopback address, which shows and answers what a test says."""

import contextlib
import json
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from fakes.ca import FakeCa
from sojourn.jose.jws import PublicKey, SigningKey
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.context import load_pem

ENDPOINT = "/endpoint"


class Partner:
    """A trust domain: its authorities, the newest last, one JWT key, and what it says of its bundle."""

    def __init__(self, name: str = "partner.org", *, hint: int = 0, sequence: int = 1) -> None:
        self.name = name
        self.authorities = [FakeCa.make(name)]
        self.hint, self.sequence = hint, sequence
        private = ec.generate_private_key(ec.SECP256R1())
        self.jwt_key = SigningKey.from_private("jwt-1", private)
        self._public = PublicKey.from_key("jwt-1", private.public_key())

    @property
    def endpoint_id(self) -> str:
        return f"spiffe://{self.name}{ENDPOINT}"

    @property
    def bundle(self) -> Bundle:
        return Bundle(
            TrustDomain(self.name),
            tuple(each.root for each in self.authorities),
            {"jwt-1": self._public},
            self.sequence,
            self.hint,
        )

    def svid(self, path: str = ENDPOINT, **more: Any) -> X509Svid:
        """An X.509-SVID by its newest authority."""
        return self.authorities[-1].svid(path, **more)

    def rotate(self) -> None:
        """Have another authority, beside those that there are."""
        self.authorities.append(FakeCa.make(self.name))
        self.sequence += 1

    def document(self) -> bytes:
        return json.dumps(self.bundle.document()).encode()


class BundleServer:
    """Use as a context manager. What it shows and answers may be changed at any time.

    `raw`: all bytes of the answer, if they are to be no good HTTP; `held`: no answer comes until it is set.
    """

    def __init__(self, shown: X509Svid | bytes, body: bytes = b"") -> None:
        """`shown`: an X.509-SVID, or a chain and its key in PEM."""
        self.show(shown)
        self.body = body
        self.status = "200 OK"
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self.raw: bytes | None = None
        self.held: threading.Event | None = None
        self.tls = ssl.TLSVersion.TLSv1_3  # at most
        self.asked = 0
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._over = threading.Event()

    def show(self, shown: X509Svid | bytes) -> None:
        self.pem = shown if isinstance(shown, bytes) else shown.chain_pem + shown.key_pem

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/bundle"

    def __enter__(self) -> "BundleServer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.held is not None:
            self.held.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            if self.tls < ssl.TLSVersion.TLSv1_2:
                context.set_ciphers("ALL:@SECLEVEL=0")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what is old is told to be
                    context.minimum_version = context.maximum_version = self.tls
            load_pem(context, self.pem)
            connection.settimeout(20)
            with context.wrap_socket(connection, server_side=True) as secured:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    block = secured.recv(65_536)
                    if not block:
                        return
                    asked += block
                self.asked += 1
                self.requests.append(asked)
                if self.held is not None:
                    self.held.wait(20)
                for part in self._answer():
                    secured.sendall(part)
                with contextlib.suppress(OSError):
                    secured.unwrap()

    def _answer(self) -> Iterator[bytes]:
        if self.raw is not None:
            yield self.raw
            return
        headers = {**self.headers, "Content-Length": str(len(self.body)), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield f"HTTP/1.1 {self.status}\r\n{lines}\r\n".encode()
        yield self.body
