"""unix.py: a connection is its user's from the moment on in which it is accepted, and costs what it costs in his turn."""

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.doorways import shares
from fakes.http2site import MESSAGE_MAX, PATH, answer, echo
from harness.http2 import END_HEADERS, HEADERS, RST_STREAM, Connection, call_headers, frame, message
from sojourn.attestation.peer import Peer
from sojourn.attestation.subordinate_ids import Subordinates
from sojourn.endpoints.listener import unix_listener as door_module
from sojourn.endpoints.listener.connection_limits import Admission
from sojourn.endpoints.listener.unix_listener import Door
from sojourn.errors import AttestationFailed
from sojourn.http2.server import Server
from sojourn.quota.turns import Turns

DEADLINE_SECONDS = 10


async def until(done) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not done():
            await asyncio.sleep(0.001)


class Site:
    """A door on a socket, with one method that answers with what it was asked."""

    def __init__(self, folder: Path, *, turns: Turns | None = None, places: int = 100) -> None:
        self.path = str(folder / "s.sock")
        self.admission = Admission(FakeClock(), connections=places, per_uid=places, per_uid_per_second=1_000)
        self.door = Door(self.admission, Subordinates(folder / "subuid"), turns=turns)
        self.door.server = Server({PATH: echo}, message_max=MESSAGE_MAX, **shares(self.door.turns))  # type: ignore[dict-item]

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Site"]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
            listener.bind(self.path)
            listener.listen(100)
            await self.door.open(listener)
            try:
                yield self
            finally:
                self.door.stop_accepting()
                self.door.close()
                await until(lambda: not self.door.connections)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(DEADLINE_SECONDS)
        connection.connect(self.path)
        return connection

    async def ended(self, connection: socket.socket) -> bool:
        """Whether the other side has closed it."""
        with connection:
            return await asyncio.to_thread(connection.recv, 1) == b""


async def test_served(tmp_path: Path) -> None:
    """Who comes in is served, counted while connected, and not afterwards."""

    def call(path: str) -> bytes:
        with Connection(path) as connection:
            connection.open()
            connection.call(PATH, b"hello", 1)
            return answer(connection)[0]

    async with Site(tmp_path).open() as site:
        assert message(b"hello") == await asyncio.to_thread(call, site.path)
        await until(lambda: not site.admission.open)
        with site.connect():
            await until(lambda: site.door.connections)
            assert 1 == site.admission.open


async def test_in_his_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one user's connections no more are looked at in a round of the loop than a turn has, all in the end; each has
    its place at once.
    """
    looked, rounds, watching = [0], list[int](), True
    real = Peer.of_socket

    def of_socket(connection: socket.socket, owner: int | None = None) -> Peer:
        looked[0] += 1
        return real(connection, owner)

    def look() -> None:
        rounds.append(looked[0])
        if watching:
            asyncio.get_running_loop().call_soon(look)

    monkeypatch.setattr(door_module.Peer, "of_socket", of_socket)
    async with Site(tmp_path, turns=Turns(2, 2)).open() as site:
        connections = [site.connect() for _ in range(20)]
        look()
        await until(lambda: site.admission.open == 20)
        await until(lambda: site.door.connections == 20)
        watching = False
        for each in connections:
            each.close()
    assert 2 == max(after - before for before, after in pairwise(rounds))


async def test_stopped_meanwhile(tmp_path: Path) -> None:
    """Who still waits for a turn when the door stops is closed, and takes no place any more."""
    async with Site(tmp_path, turns=Turns(1, 1)).open() as site:
        connections = [site.connect() for _ in range(5)]
        while not site.admission.open:
            await asyncio.sleep(0)
        site.door.stop_accepting()
        assert site.admission.open <= 2
        site.door.close()
        assert all([await site.ended(each) for each in connections])
        await until(lambda: not site.admission.open)


@pytest.mark.parametrize("error", [AttestationFailed("the caller has gone"), OSError("no descriptor")])
async def test_whoever_cannot_be_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A connection whose process cannot be pinned is closed, and its place is free."""

    def of_socket(*_: object) -> Any:
        raise error

    monkeypatch.setattr(door_module.Peer, "of_socket", of_socket)
    async with Site(tmp_path).open() as site:
        assert await site.ended(site.connect())
        assert (0, 0) == (site.admission.open, site.door.connections)


@pytest.mark.parametrize("where", ["of_socket", "on_exit"])
async def test_what_nobody_foresaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Whatever goes wrong while a connection is taken in, it is closed, and its place is free."""
    real = Peer.of_socket

    def fails(*_: object) -> Any:
        raise MemoryError

    def of_socket(connection: socket.socket, owner: int | None = None) -> Peer:
        peer = real(connection, owner)
        monkeypatch.setattr(type(peer.process), "on_exit", fails)
        return peer

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _said: None)
    monkeypatch.setattr(door_module.Peer, "of_socket", fails if where == "of_socket" else of_socket)
    async with Site(tmp_path).open() as site:
        assert await site.ended(site.connect())
        assert (0, 0, set()) == (site.admission.open, site.door.connections, site.door._arrivals)


async def test_no_place(tmp_path: Path) -> None:
    """Who finds no place is closed at once, before anything is asked of the process; the others stay."""
    async with Site(tmp_path, places=1).open() as site:
        with site.connect():
            await until(lambda: site.door.connections)
            assert await site.ended(site.connect())
            assert (1, 1) == (site.admission.open, site.door.connections)


async def test_another_user(tmp_path: Path) -> None:
    """Who may not use the door is closed at once."""
    site = Site(tmp_path)
    site.door = Door(site.admission, Subordinates(tmp_path / "subuid"), admit=frozenset({os.getuid() + 1}))
    async with site.open():
        assert await site.ended(site.connect())
        assert 0 == site.admission.open


async def test_aborted_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends between its connection's being accepted and opened leaves no place taken."""
    real = Peer.of_socket

    def of_socket(connection: socket.socket, owner: int | None = None) -> Peer:
        peer = real(connection, owner)
        monkeypatch.setattr(type(peer.process), "on_exit", lambda _self, call: call())
        return peer

    monkeypatch.setattr(door_module.Peer, "of_socket", of_socket)
    async with Site(tmp_path).open() as site:
        assert await site.ended(site.connect())
        await until(lambda: not site.door.connections)
        assert 0 == site.admission.open


@pytest.mark.full
async def test_nothing_for_the_collector(tmp_path: Path) -> None:
    """What a connection and its calls leave behind goes when they end: also calls that their caller gives up. A round of
    the garbage collector, in which nobody is answered, would else come for each few hundred of them.
    """

    def calls(path: str) -> None:
        with Connection(path) as connection:
            connection.open()
            connection.call(PATH, b"hello", 1)
            answer(connection)
            connection.send(
                frame(HEADERS, END_HEADERS, 3, call_headers(PATH)), frame(RST_STREAM, 0, 3, (8).to_bytes(4, "big"))
            )  # before its request has come
            connection.call(PATH, b"again", 5)
            answer(connection, 5)

    async with Site(tmp_path).open() as site:
        await asyncio.to_thread(calls, site.path)
        await until(lambda: not site.admission.open)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                await asyncio.to_thread(calls, site.path)
            await until(lambda: not site.admission.open)
            await asyncio.sleep(0.01)
            gc.collect()
            left = [each for each in gc.garbage if type(each).__module__.startswith(("sojourn", "uvloop", "_asyncio"))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert not left
