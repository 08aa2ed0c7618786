"""accept.py: connections are taken from the listener first, and given a transport when that is said."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sojourn.endpoints.listener import accept
from sojourn.endpoints.listener.accept import Accepting, Opening
from sojourn.limits import ACCEPTED_PER_ROUND

DEADLINE_SECONDS = 10


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
        made.bind(str(tmp_path / "s.sock"))
        made.listen(1024)
        yield made


def connect(listener: socket.socket) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(listener.getsockname())
    return connection


def kept_in(came: list[socket.socket]) -> Callable[[socket.socket], bool]:
    """Keep each connection that comes there."""

    def keep(connection: socket.socket) -> bool:
        came.append(connection)
        return True

    return keep


async def until(done) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not done():
            await asyncio.sleep(0)


class TestAccepting:
    async def test_all_that_wait(self, listener: socket.socket) -> None:
        """Each connection is given, non-blocking, and of a round of the loop no more than so many."""
        clients = [connect(listener) for _ in range(ACCEPTED_PER_ROUND + 5)]
        came, rounds = list[socket.socket](), list[int]()
        made = Accepting(listener, kept_in(came))
        while len(came) < len(clients):
            await asyncio.sleep(0)
            rounds.append(len(came))
        made.stop()
        assert {0, ACCEPTED_PER_ROUND, len(clients)} >= set(rounds)
        assert not any(each.getblocking() for each in came)
        for each in (*came, *clients):
            each.close()

    async def test_what_is_closed_at_once(self, listener: socket.socket) -> None:
        """Connections that are not kept make room for those behind them: more of them are looked at in a round."""
        clients = [connect(listener) for _ in range(ACCEPTED_PER_ROUND * 2)]
        seen, rounds = 0, set[int]()

        def came(connection: socket.socket) -> bool:
            nonlocal seen
            connection.close()
            seen += 1
            return False

        made = Accepting(listener, came)
        while seen < len(clients):
            await asyncio.sleep(0)
            rounds.add(seen)
        made.stop()
        assert {0, len(clients)} >= rounds
        for each in clients:
            each.close()

    async def test_not_without_end(self, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        """Others have their turns between connections that are not kept."""
        monkeypatch.setattr(accept, "LOOKED_AT_PER_ROUND", 3)
        clients = [connect(listener) for _ in range(5)]
        came, rounds = list[socket.socket](), set[int]()
        made = Accepting(listener, lambda connection: bool(came.append(connection)))
        while len(came) < len(clients):
            await asyncio.sleep(0)
            rounds.add(len(came))
        made.stop()
        assert {0, 3, 5} >= rounds
        for each in (*came, *clients):
            each.close()

    async def test_stop(self, listener: socket.socket) -> None:
        """Who comes after the stop is left to the kernel."""
        came = list[socket.socket]()
        made = Accepting(listener, kept_in(came))
        made.stop()
        with connect(listener):
            await asyncio.sleep(0.05)
        assert not came

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    async def test_no_room(self, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """Where the kernel has no room, those who come wait for a moment and are accepted then: the loop goes on."""
        monkeypatch.setattr(accept, "ACCEPT_PAUSE_SECONDS", 0.01)

        class Full:
            """A listener that fails for the first time."""

            failed = 0

            def fileno(self) -> int:
                return listener.fileno()

            def accept(self) -> tuple[socket.socket, object]:
                self.failed += 1
                if self.failed == 1:
                    raise OSError(number, "no room")
                return listener.accept()

        came, full = list[socket.socket](), Full()
        made = Accepting(full, kept_in(came))  # type: ignore[arg-type]  # all that is needed of one
        with connect(listener):
            await until(lambda: came)
        assert full.failed >= 2
        made.stop()
        came[0].close()

    async def test_stop_while_there_is_no_room(self, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is stopped meanwhile does not begin again."""
        monkeypatch.setattr(accept, "ACCEPT_PAUSE_SECONDS", 0.01)

        class Full:
            asked = 0

            def fileno(self) -> int:
                return listener.fileno()

            def accept(self) -> tuple[socket.socket, object]:
                self.asked += 1
                raise OSError(errno.EMFILE, "no room")

        full = Full()
        made = Accepting(full, lambda _: True)  # type: ignore[arg-type]
        with connect(listener):
            await until(lambda: full.asked)
            made.stop()
            await asyncio.sleep(0.05)
        assert 1 == full.asked

    async def test_one_that_ended_before(self, listener: socket.socket) -> None:
        """A connection that the kernel gives up is passed over, and those behind it are accepted."""

        class Hasty:
            asked = 0

            def fileno(self) -> int:
                return listener.fileno()

            def accept(self) -> tuple[socket.socket, object]:
                self.asked += 1
                if self.asked == 1:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "aborted")
                return listener.accept()

        came = list[socket.socket]()
        made = Accepting(Hasty(), kept_in(came))  # type: ignore[arg-type]
        with connect(listener):
            await until(lambda: came)
        made.stop()
        came[0].close()


class Heard(asyncio.Protocol):
    """Keeps what it is told; `breaks`: raises when it is given its transport."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.got, self.lost, self.transport, self._breaks = b"", 0, None, breaks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self._breaks:
            raise RuntimeError("it broke")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self.lost += 1


class TestOpening:
    async def test_spoken_with(self) -> None:
        """The protocol hears what is sent, answers, and is told of the end; nothing has failed then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)
        protocol, failed = Heard(), list[None]()
        Opening(ours, protocol, lambda: failed.append(None))
        theirs.send(b"hello")
        await until(lambda: protocol.got)
        assert protocol.transport is not None
        protocol.transport.write(b"well")
        assert b"well" == await asyncio.to_thread(theirs.recv, 10)
        theirs.close()
        await until(lambda: protocol.lost)
        assert (b"hello", 1, []) == (protocol.got, protocol.lost, failed)

    async def test_closed_at_once(self) -> None:
        """One that is aborted as soon as it has its transport is told of the end once, and closed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)

        class Aborting(Heard):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                transport.abort()

        protocol = Aborting()
        Opening(ours, protocol, lambda: None)
        await until(lambda: protocol.lost)
        theirs.settimeout(DEADLINE_SECONDS)
        assert b"" == await asyncio.to_thread(theirs.recv, 1)
        theirs.close()

    async def test_no_transport(self) -> None:
        """What cannot get a transport is closed, and that is said."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        failed = list[None]()
        Opening(ours, Heard(), lambda: failed.append(None))
        await until(lambda: failed)
        assert ([None], -1) == (failed, ours.fileno())
        theirs.close()
