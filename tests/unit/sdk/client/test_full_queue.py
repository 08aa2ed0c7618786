"""What the SDK does where more connections wait for the agent than there is room for: it waits for its turn."""

import asyncio
import contextlib
import socket as sockets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fakes.fake_agent import ScriptedAgent
from fakes.task_messages import BEGUN, ended
from harness.looking import WAIT_SECONDS, until
from sojourn._pb import workload_pb2
from sojourn.errors import Unavailable, Unreachable
from sojourn.net.sockets import connect_within
from sojourn.sdk.client import connection as connections
from sojourn.sdk.client import health_probe
from sojourn.sdk.client.client import Client


class Line:
    """A socket with room for one connection, which is taken, before an agent that is at another one."""

    def __init__(self, path: Path, agent: Path) -> None:
        self.path, self._agent = str(path), agent
        self.listener = sockets.socket(sockets.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(0)
        self._first = sockets.socket(sockets.AF_UNIX)
        self._first.connect(self.path)
        self.looked = asyncio.Event()  # whether somebody has found that there is no room
        self._passing: set[asyncio.Task[None] | None] = set()

    async def serve(self) -> None:
        """Once somebody has found no room, take who waits, and pass on what is said."""
        await self.looked.wait()
        self.listener.setblocking(False)
        self._first.close()
        async with await asyncio.start_unix_server(self._pass_on, sock=self.listener) as server:
            await server.serve_forever()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._passing.add(asyncio.current_task())
        there, back = await asyncio.open_unix_connection(self._agent)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    async def close(self) -> None:
        """Return when whoever called has closed."""
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(*self._passing)
        self._first.close()
        self.listener.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
async def line(
    agent: ScriptedAgent, socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Line]:
    made = Line(tmp_path / "line.sock", socket)
    look = connections.listened_on

    def found(path: str) -> bool:
        made.looked.set()
        return look(path)

    monkeypatch.setattr(connections, "listened_on", found)
    serving = asyncio.create_task(made.serve())
    yield made
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await made.close()


async def test_a_call(line: Line, agent: ScriptedAgent) -> None:
    """A call with one answer waits until there is room."""
    agent.push("FetchJWTBundles", workload_pb2.JWTBundlesResponse(bundles={"spiffe://example.org": b'{"keys": []}'}))
    async with Client(line.path, deadline_seconds=WAIT_SECONDS) as client:
        assert 1 == len(await client.fetch_jwt_bundles())
    assert line.looked.is_set()


async def test_a_task(line: Line, agent: ScriptedAgent) -> None:
    """A task is begun once there is room, and once."""
    agent.answers["complete"] = ended("completed")
    agent.push("RunTask", BEGUN)
    async with Client(line.path, deadline_seconds=WAIT_SECONDS) as client, client.task("report"):
        pass
    assert ["RunTask"] == [method for method, _ in agent.requests]


async def test_no_room_in_time(line: Line) -> None:
    """Where there is no room until the deadline, that is said."""
    line.looked = asyncio.Event()  # which nobody hears of
    async with Client(line.path, deadline_seconds=0.3) as client:
        with pytest.raises((Unreachable, Unavailable), match="is there, but nothing answered in time"):
            await client.fetch_jwt_svid("them")


async def test_an_agent_that_takes_and_closes(tmp_path: Path) -> None:
    """Whoever had room, and was closed, as one whom the agent may not look at, is told so at once, and not at its deadline."""
    path = str(tmp_path / "closing.sock")

    def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(close, path), Client(path, deadline_seconds=2 * WAIT_SECONDS) as client:
        async with asyncio.timeout(WAIT_SECONDS):
            with pytest.raises(Unreachable, match="is there, but nothing answered in time"):
                await client.fetch_jwt_svid("them")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[sockets.socket]:
    """A listener that has no room."""
    with sockets.socket(sockets.AF_UNIX) as made, sockets.socket(sockets.AF_UNIX) as first:
        made.bind(str(tmp_path / "full.sock"))
        made.listen(0)
        first.connect(made.getsockname())
        yield made


def test_a_connect_waits(full: sockets.socket) -> None:
    """A connect waits for room, which comes while it waits, and its socket has the timeout then."""
    with sockets.socket(sockets.AF_UNIX) as late:
        waiting = threading.Thread(target=connect_within, args=(late, full.getsockname(), WAIT_SECONDS))
        waiting.start()
        try:
            until(lambda: _waits_in_connect(waiting))
        finally:
            full.accept()[0].close()
            waiting.join(WAIT_SECONDS)
        assert not waiting.is_alive()
        assert (full.getsockname(), WAIT_SECONDS) == (late.getpeername(), late.gettimeout())


def _waits_in_connect(thread: threading.Thread) -> bool:
    where = Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()
    return where in {"unix_wait_for_peer", "0"}  # 0: it is not told


def test_a_health_check_says_so(full: sockets.socket) -> None:
    """Where there is no room in time, a health check says that somebody is there, and does not answer."""
    with pytest.raises(Unreachable, match="is there, but nothing answered in time"):
        health_probe.ask(full.getsockname(), [""], 0.2)
