"""Mutual TLS with the PyPI library `spiffe-tls`: a server that echoes, and a client that has one line echoed."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from common import emit, emit_error
from cryptography import x509
from OpenSSL import SSL, crypto
from spiffe import SpiffeId, X509Source
from spiffetls import create_ssl_context
from spiffetls import dial as connect
from spiffetls.errors import TLSConnectionError
from spiffetls.tlsconfig.authorize import authorize_id

logging.getLogger("spiffe").setLevel(
    logging.CRITICAL
)  # at a rotation it tries to change each context that was ever made


class Authorized:
    """The library's check of the peer's SPIFFE ID. It keeps the ID that it refused, which the library does not tell."""

    def __init__(self, peer: SpiffeId) -> None:
        self._check: Callable[[crypto.X509], bool] = authorize_id(peer)
        self.refused: str | None = None

    def __call__(self, certificate: crypto.X509) -> bool:
        if self._check(certificate):
            return True
        self.refused, _ = peer_of(certificate)
        return False

    def explain(self, error: Exception) -> str:
        return f"{error!r}: refused {self.refused}" if self.refused else repr(error)


def serve(source: X509Source, address: str, peer: SpiffeId) -> None:
    """Echo until SIGTERM or SIGINT. A peer that fails the handshake is reported and does not stop the server."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    host, port = address.rsplit(":", 1)
    listener = socket.create_server((host, int(port)))
    emit("listening", addr="{}:{}".format(*listener.getsockname()))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_echo, args=(source, connection, Authorized(peer)), daemon=True).start()


def _echo(source: X509Source, accepted: socket.socket, authorized: Authorized) -> None:
    # A context for each connection. The library's `listen` has one for all, which it cannot change at a rotation:
    # the pyOpenSSL that it asks for refuses to change a context in use.
    connection = SSL.Connection(create_ssl_context(SSL.TLS_SERVER_METHOD, source, authorized), accepted)
    connection.set_accept_state()
    try:
        connection.do_handshake()
    except SSL.Error as error:
        emit("error", message=f"handshake: {authorized.explain(error)}")
        connection.close()
        return
    try:
        spiffe_id, serial = peer_of(connection.get_peer_certificate())
        emit("peer", spiffe_id=spiffe_id, serial=serial)
        while data := connection.recv(4096):
            connection.sendall(data)
    except SSL.ZeroReturnError:
        connection.shutdown()
    except SSL.Error as error:
        emit_error(error)
    finally:
        connection.close()


def dial(source: X509Source, address: str, peer: SpiffeId, times: int, every: float, timeout: float) -> None:
    def out_of_time(*_: object) -> None:
        raise TimeoutError(f"no echo within {timeout:g}s")

    signal.signal(signal.SIGALRM, out_of_time)
    for n in range(1, times + 1):
        if n > 1:
            time.sleep(every)
        line = f"line {n} of process {os.getpid()}\n".encode()
        authorized = Authorized(peer)
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            serial = _dial(source, address, authorized, line)
        except (TLSConnectionError, SSL.Error) as error:
            raise ConnectionError(f"connection {n}: {authorized.explain(error)}") from error
        signal.setitimer(signal.ITIMER_REAL, 0)
        emit("dialled", n=n, peer_serial=serial)


def _dial(source: X509Source, address: str, authorized: Authorized, line: bytes) -> str:
    """Make one connection, have one line echoed and return the peer's serial.

    In TLS 1.3 only the read tells that the server accepted our certificate.
    """
    connection = connect(address, source, authorize_fn=authorized)
    try:
        connection.sendall(line)
        echo = b""
        while not echo.endswith(b"\n"):
            echo += connection.recv(4096)
        if echo != line:
            raise ConnectionError(f"sent {line!r}, got {echo!r}")
        _, serial = peer_of(connection.get_peer_certificate())
        connection.shutdown()
        return serial
    finally:
        connection.close()


def peer_of(certificate: crypto.X509 | None) -> tuple[str, str]:
    if certificate is None:
        raise ConnectionError("the peer showed no certificate")
    leaf = certificate.to_cryptography()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    [spiffe_id] = names.get_values_for_type(x509.UniformResourceIdentifier)
    return spiffe_id, format(leaf.serial_number, "x")
