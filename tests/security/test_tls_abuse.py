"""Abuse of TLS at the listeners on TCP by whoever reaches them, and by those that the agent asks: what it may cost the others."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.keyupdates import KeyUpdates
from harness.tlsplace import TlsPlace
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.guardedhttp import GuardedHttp
from sojourn.providers.provider import ProviderTable


def length(connected: socket.socket, least: int = 1 << 30) -> int:
    """How much comes, until it is `least` or the agent has closed the connection."""
    came = 0
    with contextlib.suppress(ConnectionError):
        while came < least and (block := connected.recv(65_536)):
            came += len(block)
    return came


class Hostile:
    """A server of an outside party's: it shakes hands, and then sends what it is told to."""

    def __init__(self, place: TlsPlace, says: Callable[[KeyUpdates], bytes]) -> None:
        self._place, self._says = place, says
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Hostile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), self._listener.accept()[0] as connected:
            connected.settimeout(15)
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self._place.chain, self._place.key)
            connected.sendall(self._says(KeyUpdates(tls, connected, server=True)))
            length(connected)


class TestProviders:
    @pytest.mark.parametrize(
        "says",
        [
            lambda tls: tls.content(b"HTTP/1.1 200 OK\r\n")[:-1] + b"x",
            lambda tls: b"\x17\x03\x03\x00\x40" + bytes(64),
            lambda tls: b"HTTP/1.1 200 OK\r\n\r\n",
        ],
        ids=["forged", "zeros", "no TLS"],
    )
    async def test_broken_tls(self, tmp_path: Path, says: Callable[[KeyUpdates], bytes]) -> None:
        """A provider that goes on in no TLS that is any is one that broke off."""
        place = TlsPlace(tmp_path)
        made = GuardedHttp(ProviderTable(kind="x", private_networks=["127.0.0.0/8"], ca=place.ca, timeout="5s"))
        with Hostile(place, says) as server, pytest.raises(ProviderUnavailable, match="broke off") as refused:
            await made.get(server.url, step="s")
        await made.close()
        assert refused.value.sent
