"""request_queue.py: what one caller asks for waits for what it asked before, and not what others ask for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sojourn.endpoints.http1.request_queue import Lines
from sojourn.endpoints.http1.scope import SENDER
from sojourn.errors import LimitExceeded, Unavailable
from sojourn.oauth.client_auth import ClientSender
from starlette.requests import Request


def asked(address: str, *, gone: Callable[[], bool] = lambda: False) -> Request:
    """A request from there that has arrived whole; its sender may go."""

    async def receive() -> dict[str, Any]:
        if not gone():
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": [], SENDER: ClientSender(address=address)}, receive)


async def hold(lines: Lines, address: str, begun: list[str], until: asyncio.Event) -> None:
    async with lines.one(asked(address)):
        begun.append(address)
        await until.wait()


async def test_each_has_its_own() -> None:
    """Two of one sender are answered, its third waits; another's is answered at once."""
    lines, begun, until = Lines(2, 10), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"):
            group.create_task(hold(lines, address, begun, until))
        await asyncio.sleep(0.01)
        assert ["192.0.2.1", "192.0.2.1", "192.0.2.2"] == begun
        until.set()
    assert 4 == len(begun)
    assert 0 == len(lines)


async def test_one_host_is_one_sender() -> None:
    """All addresses of one IPv6 network are one sender, and the same IPv4 address in either form is."""
    lines, until = Lines(1, 10), asyncio.Event()
    for addresses in (("2001:db8::1", "2001:db8::ffff:2"), ("192.0.2.1", "::ffff:192.0.2.1")):
        begun = list[str]()
        async with asyncio.TaskGroup() as group:
            for address in addresses:
                group.create_task(hold(lines, address, begun, until))
            await asyncio.sleep(0.01)
            assert [addresses[0]] == begun
            until.set()
        until.clear()


async def test_too_many_wait() -> None:
    """Over that a sender is told to come again; nothing of it is kept."""
    lines, begun, until = Lines(1, 1), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(hold(lines, "192.0.2.1", begun, until))
        await asyncio.sleep(0.01)
        with pytest.raises(LimitExceeded):
            await hold(lines, "192.0.2.1", begun, until)
        until.set()
    assert 0 == len(lines)


async def test_whoever_has_gone() -> None:
    """Nothing is done for a request that waited and whose sender has gone meanwhile."""
    lines, begun, until = Lines(1, 1), list[str](), asyncio.Event()

    async def wait() -> None:
        async with lines.one(asked("192.0.2.1", gone=lambda: True)):
            begun.append("gone")

    async with asyncio.TaskGroup() as group:
        group.create_task(hold(lines, "192.0.2.1", begun, until))
        await asyncio.sleep(0.01)
        waiting = group.create_task(_refused(wait()))
        await asyncio.sleep(0.01)
        until.set()
    assert waiting.result()
    assert ["192.0.2.1"] == begun


async def _refused(call: Any) -> bool:
    with pytest.raises(Unavailable):
        await call
    return True
