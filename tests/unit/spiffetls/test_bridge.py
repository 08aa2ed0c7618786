"""The private socket behind which an agent on another machine lies."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest
from sojourn.spiffetls.bridge import Bridge


@pytest.fixture
def near() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        yield connection


@pytest.mark.parametrize("turns", range(8))
async def test_closing_while_somebody_comes_in(near: socket.socket, turns: int) -> None:
    """However far the loop has come with taking a connection in, it is over once the bridge is closed."""
    bridge = Bridge("127.0.0.1:1", ssl.create_default_context())
    await bridge.open()
    near.connect(bridge.path)
    for _ in range(turns):
        await asyncio.sleep(0)
    await bridge.close()
    near.settimeout(0)
    with contextlib.suppress(ConnectionResetError):  # the listener was closed with the connection in its queue
        assert b"" == near.recv(1)
