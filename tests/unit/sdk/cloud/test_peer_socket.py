"""Whose socket it is."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.taskagent import STRANGER_UID
from sojourn.sdk.cloud import peer_socket

DIAL = "exec 3<>/dev/tcp/127.0.0.1/$0; read line"


@contextmanager
def connected(family: socket.AddressFamily, address: str) -> Iterator[socket.socket]:
    """The server's end of a connection to the IPv4 loopback address."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(family) as client:
        client.connect((address, listening.getsockname()[1]))
        accepted, _ = listening.accept()
        with accepted:
            yield accepted


class TestTcp:
    @pytest.mark.parametrize(
        ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")]
    )
    async def test_own(self, family: socket.AddressFamily, address: str) -> None:
        """A socket of this user is found, also one of IPv6 that speaks IPv4, as those of Java are."""
        with connected(family, address) as accepted:
            assert os.geteuid() == await peer_socket.uid_of_tcp(accepted)

    async def test_gone(self) -> None:
        """A socket that is closed by now belongs to nobody."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            accepted, peer = listening.accept()
            with accepted:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # gone at once
                client.close()
                assert -1 == await peer_socket.uid_of_tcp(_Remembered(peer, listening.getsockname()))

    async def test_closed(self) -> None:
        """A socket that is closed and waits for its other end is nobody's, though the kernel calls it root's."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
            with accepted:
                client.close()
                await asyncio.sleep(0.2)
                assert -1 == await peer_socket.uid_of_tcp(accepted)

    async def test_not_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the kernel's table cannot be read, nothing is known."""
        monkeypatch.setattr(peer_socket, "_TABLES", ("/nowhere/tcp", "/nowhere/tcp6"))
        with connected(socket.AF_INET, "127.0.0.1") as accepted:
            assert await peer_socket.uid_of_tcp(accepted) is None

    @pytest.mark.root
    async def test_anothers(self) -> None:
        """Another user's socket is found to be that one's."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = str(listening.getsockname()[1])
            command = ["setpriv", f"--reuid={STRANGER_UID}", "--clear-groups", "bash", "-c", DIAL, port]
            with subprocess.Popen(command, stdin=subprocess.PIPE) as stranger:
                accepted, _ = listening.accept()
                with accepted:
                    assert STRANGER_UID == await peer_socket.uid_of_tcp(accepted)
                assert stranger.stdin is not None
                stranger.stdin.close()
                stranger.wait(timeout=20)


class _Remembered:
    """The ends of a connection that is not there any more."""

    def __init__(self, peer: tuple[str, int], own: tuple[str, int]) -> None:
        self.getpeername = lambda: peer
        self.getsockname = lambda: own


def test_unix() -> None:
    """The kernel says who connected a Unix socket."""
    one, other = socket.socketpair()
    with one, other:
        assert os.geteuid() == peer_socket.uid_of_unix(one)
