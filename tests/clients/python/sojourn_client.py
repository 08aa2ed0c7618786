"""`server` and `dial` once more, on Sojourn's own SDK: what the others' libraries are to meet."""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
import time

from common import add_uid, become, duration, emit, emit_error
from cryptography import x509
from sojourn import Client, SojournError, SpiffeId, X509Source, authorize_id


async def run_server(arguments: argparse.Namespace) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    async with Client() as client, X509Source(client, ready_seconds=arguments.timeout) as source:
        context = source.server_context(authorize_id(SpiffeId.parse(arguments.peer)))
        host, port = arguments.listen.rsplit(":", 1)
        listener = socket.create_server((host, int(port)))
        emit("listening", addr="{}:{}".format(*listener.getsockname()))
        while True:
            connection, _ = await asyncio.to_thread(listener.accept)
            connection.settimeout(arguments.timeout)
            threading.Thread(target=serve, args=(context, connection), daemon=True).start()


def serve(context: ssl.SSLContext, connection: socket.socket) -> None:
    """Echo one connection. A peer that fails the handshake is reported and does not stop the server."""
    with connection:
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                emit("peer", spiffe_id=str(tls.peer_spiffe_id), serial=serial_of(tls))
                while data := tls.recv(4096):
                    tls.sendall(data)
        except OSError as error:
            emit_error(error)


async def run_dial(arguments: argparse.Namespace) -> None:
    async with Client() as client, X509Source(client, ready_seconds=arguments.timeout) as source:
        context = source.client_context(authorize_id(SpiffeId.parse(arguments.peer)))
        for n in range(1, arguments.times + 1):
            if n > 1:
                await asyncio.sleep(arguments.every)
            line = f"line {n} of process {os.getpid()}\n".encode()
            serial = await asyncio.to_thread(dial, context, arguments.addr, line, arguments.timeout)
            emit("dialled", n=n, peer_serial=serial)


def dial(context: ssl.SSLContext, address: str, line: bytes, timeout: float) -> str:
    """Make one connection, have one line echoed and return the peer's serial.

    In TLS 1.3 only the read tells that the server accepted our certificate.
    """
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout) as connection, context.wrap_socket(connection) as tls:
        tls.sendall(line)
        ends = time.monotonic() + timeout
        echo = b""
        while not echo.endswith(b"\n") and time.monotonic() < ends and (data := tls.recv(4096)):
            echo += data
        if echo != line:
            raise ConnectionError(f"sent {line!r}, got {echo!r}")
        serial = serial_of(tls)
        with contextlib.suppress(OSError):
            tls.unwrap()
        return serial


def serial_of(tls: ssl.SSLSocket) -> str:
    leaf = tls.getpeercert(binary_form=True)
    assert leaf is not None
    return format(x509.load_der_x509_certificate(leaf).serial_number, "x")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-timeout", type=duration, default="10s", help="how long to wait for an answer")
    common.add_argument("-peer", required=True, help="the SPIFFE ID that the other end must have")
    add_uid(common)
    commands = parser.add_subparsers(required=True)

    server = commands.add_parser("server", parents=[common], help="echo over mutual TLS until SIGTERM")
    server.add_argument("-listen", default="127.0.0.1:0")
    server.set_defaults(run=run_server)

    dial = commands.add_parser("dial", parents=[common], help="have a line echoed over mutual TLS")
    dial.add_argument("-addr", required=True)
    dial.add_argument("-times", type=int, default=1)
    dial.add_argument("-every", type=duration, default="1s")
    dial.set_defaults(run=run_dial)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    become(arguments.uid)
    try:
        asyncio.run(arguments.run(arguments))
    except (SojournError, OSError) as error:
        emit_error(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
