"""localfetching.py: JSON from a Unix socket, whoever listens there. The sockets are real."""

import asyncio
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from harness.engineproxy import EngineProxy, on_the_wire
from harness.looking import OpenFiles
from sojourn.errors import AttestationFailed
from sojourn.limits import USER_SOCKETS_AT_ONCE
from sojourn.net.sockets import take_no_descriptors
from sojourn_attestors.asking.fetching import Late, NotThere, Unwell
from sojourn_attestors.asking.localfetching import LocalJsonClient, SocketFinder

LIMIT = 100_000


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    return tmp_path / "s"


def client(path, pool, owner=None):
    owner = os.geteuid() if owner is None else owner
    return LocalJsonClient("the engine", str(path), owner, SocketFinder(pool), answer_max_bytes=LIMIT)


def serving(*blocks, pause=0.0):
    """A server that answers each connection with these blocks, and hangs up."""
    server = EngineProxy(Path("s"), None)

    def answer(connection, _):
        for block in blocks:
            connection.sendall(block)
            time.sleep(pause)

    server.fault = answer
    return server


class TestAnswers:
    async def test_a_document(self, path, pool):
        """An answer is read whole, whether its length is told, or it comes in chunks, or ends as the other hangs up."""
        body = json.dumps({"a": [1]}).encode()
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        until_the_end = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
        for wire in (on_the_wire(200, body), chunked, until_the_end, b"HTTP/1.1 100 Continue\r\n\r\n" + chunked):
            with serving(wire):
                assert {"a": [1]} == await client(path, pool).get("/x", 5)

    @pytest.mark.parametrize(
        ("blocks", "kind", "said"),
        [
            ((on_the_wire(404, b"{}"),), NotThere, "knows nothing"),
            ((on_the_wire(500, b"{}"),), Unwell, "500"),
            ((on_the_wire(403, b"{}"),), AttestationFailed, "403"),
            ((on_the_wire(301, b"{}"),), AttestationFailed, "301"),
            ((on_the_wire(200, b"{"),), AttestationFailed, "not JSON"),
            ((on_the_wire(200, b"[" * 90_000),), AttestationFailed, "not JSON"),
            ((on_the_wire(200, b"\xff"),), AttestationFailed, "not JSON"),
            ((on_the_wire(200, b"x" * (LIMIT + 1)),), AttestationFailed, "more than"),
            ((b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LIMIT,), Unwell, "does not speak HTTP"),
            ((b"HTTP/1.1 100 Continue\r\n\r\n" * LIMIT,), AttestationFailed, "more than"),
            ((on_the_wire(200, b"{}")[:-1],), Unwell, "hung up"),
            ((b"",), Unwell, "hung up"),
            ((b"SSH-2.0-x\r\n",), Unwell, "does not speak HTTP"),
            ((b"\0" * 1_000,), Unwell, "does not speak HTTP"),
        ],
    )
    async def test_wrong(self, path, pool, blocks, kind, said):
        """Whatever else comes is an error that says so."""
        with serving(*blocks), pytest.raises(kind, match=said):
            await client(path, pool).get("/x", 5)

    async def test_slow(self, path, pool):
        """A byte now and then keeps nobody past the deadline."""
        with serving(*([b"H"] * 100), pause=0.02), pytest.raises(Late, match=r"0\.1 s"):
            await client(path, pool).get("/x", 0.1)


class TestDescriptors:
    async def test_none_is_taken(self, path, pool):
        """A server that sends descriptors along, which whoever reads would have to close, is refused by the kernel; and
        one that sends none is heard.
        """
        refused = []

        def answer(connection, _):
            try:
                socket.send_fds(connection, [on_the_wire(200, b"{}")], [0])
            except PermissionError:
                refused.append(True)
                connection.sendall(on_the_wire(200, b'{"a": 1}'))

        server = EngineProxy(Path("s"), None)
        server.fault = answer
        with socket.socket(socket.AF_UNIX) as probe:
            knows = take_no_descriptors(probe)
        with server:
            assert ({"a": 1} if knows else {}) == await client(path, pool).get("/x", 5)
        assert [True] * knows == refused


class TestWhoListens:
    async def test_nobody(self, path, pool):
        """Where there is no socket, or nobody listens at it, the error says which."""
        with pytest.raises(Unwell, match="no socket"):
            await client(path, pool).get("/x", 1)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind("s")
        with pytest.raises(Unwell, match="nobody listens"):
            await client(path, pool).get("/x", 1)

    async def test_no_socket(self, path, pool):
        """A file or a FIFO in its place is not opened."""
        for make in (path.touch, lambda: os.mkfifo(path)):
            make()
            with pytest.raises(AttestationFailed, match="is not a socket"):
                await client(path, pool).get("/x", 1)
            path.unlink()

    @pytest.mark.root
    async def test_of_another_user(self, path, pool):
        """The socket has to be the user's own, by a link too, and so has the process that listens."""
        with serving(on_the_wire(200, b"{}")):
            with pytest.raises(AttestationFailed, match="belongs to user 0"):
                await client(path, pool, owner=4711).get("/x", 1)
            os.symlink("s", "link")
            with pytest.raises(AttestationFailed, match="belongs to user 0"):
                await client(path.parent / "link", pool, owner=4711).get("/x", 1)
            os.chown(path, 4711, 4711)
            with pytest.raises(AttestationFailed, match="listens user 0"):
                await client(path, pool, owner=4711).get("/x", 1)

    @pytest.mark.timing
    async def test_a_full_line(self, path, pool):
        """Where nobody takes connections any more, the deadline holds, and the agent does other things meanwhile."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s")
            listener.listen(0)
            turns = 0

            async def other():
                nonlocal turns
                while True:
                    await asyncio.sleep(0.01)
                    turns += 1

            busy = asyncio.create_task(other())
            before = os.times()
            asked = [client(path, pool).get("/x", 0.5) for _ in range(5)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            spent = sum(os.times()[:2]) - sum(before[:2])
            busy.cancel()
            assert [Late] * 5 == [type(each) for each in results]
            assert turns > 5
            assert spent < 0.4  # it does not spin

    async def test_nothing_is_left_open(self, path, pool):
        """Whatever goes wrong, and also if the asker gives up."""
        before = OpenFiles()
        with serving(b"H", pause=0.05):
            for seconds in (0.0, 0.001, 0.01, 0.03, 1.0):
                with pytest.raises(AttestationFailed):
                    await client(path, pool).get("/x", seconds)
        await asyncio.to_thread(before.await_closed)


class TestFolders:
    async def test_that_never_answer(self, pool, monkeypatch):
        """Folders of users that never answer take a few threads, and root's engine is found all the same."""
        go_on = threading.Event()
        finder = SocketFinder(pool)

        def blocking(path, owner):
            if owner:
                go_on.wait(20)
            return os.open("/", os.O_PATH)

        monkeypatch.setattr("sojourn_attestors.asking.localfetching.open_socket", blocking)
        before = OpenFiles()
        waiting = [asyncio.ensure_future(finder.find("/x", uid)) for uid in range(1, USER_SOCKETS_AT_ONCE + 1)]
        await asyncio.sleep(0)
        for uid in (1, USER_SOCKETS_AT_ONCE + 1):
            with pytest.raises(Unwell, match="do not answer"):
                await finder.find("/x", uid)
        os.close(await finder.find("/x", 0))
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(Unwell):  # the thread is still in there
            await finder.find("/x", 1)
        go_on.set()
        while True:
            try:
                os.close(await finder.find("/x", 1))
            except Unwell:
                await asyncio.sleep(0.01)
            else:
                break
        pool.shutdown()
        assert [] == before.opened_since()
