"""unix.py: a Unix socket is its owner's, and so is who listens there. The sockets are real."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sojourn.httpclient.client import Answer, AnswerLimits, HttpClient
from sojourn.httpclient.faults import HttpFault, Why
from sojourn.httpclient.pool import Pool
from sojourn.httpclient.unix import UnixTransport, open_socket
from sojourn.httpclient.wire import WireLimits
from sojourn.net.urls import Url

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
NOBODY = 4711


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[list[bytes]]:
    """A server at `path` that answers one request of each connection; the requests that it has had."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield seen


async def ask(path: Path, owner: int, found: Path | None = None) -> Answer:
    """Ask at `path`, whose socket is taken for `owner`'s; `found`: where it was found, if that is elsewhere."""

    async def find() -> int:
        return await asyncio.to_thread(open_socket, str(found or path), os.geteuid() if found else owner)

    transport = UnixTransport(str(path), owner, find, WireLimits(100, 1_000))
    client = HttpClient(Pool(None, transport, kept=0), AnswerLimits(100))
    return await client.ask("GET", Url("http", "localhost", 80, "/x"), {}, seconds=5)


async def test_an_answer(tmp_path: Path) -> None:
    """The owner's socket is asked by the path of the URL, with localhost for its host."""
    async with serving(tmp_path / "s") as seen:
        assert b"{}" == (await ask(tmp_path / "s", os.geteuid())).body
    assert seen[0].startswith(b"GET /x HTTP/1.1\r\nhost: localhost\r\n")


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at which connections wait to be accepted."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        yield listener


async def test_another_users_socket(tmp_path: Path) -> None:
    """A socket of another user is not connected to; nor is what is no socket."""
    (tmp_path / "file").touch()
    with listening(tmp_path / "s") as listener:
        for path, owner, said in (("s", NOBODY, "belongs to user"), ("file", os.geteuid(), "is not a socket")):
            with pytest.raises(HttpFault, match=Why.OWNER) as fault:
                await ask(tmp_path / path, owner)
            assert said in fault.value.reason
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_another_user_listens(tmp_path: Path) -> None:
    """Where another user listens than the owner nothing is said to them."""
    with listening(tmp_path / "s") as listener:
        with pytest.raises(HttpFault) as fault:
            await ask(tmp_path / "s", NOBODY, found=tmp_path / "s")
        with listener.accept()[0] as connection:
            assert b"" == connection.recv(1)
    assert (Why.OWNER, False) == (fault.value.why, fault.value.sent)
    assert f"listens user {os.geteuid()}, and not {NOBODY}" in fault.value.reason


async def test_no_socket(tmp_path: Path) -> None:
    """Where there is no socket, or nobody listens, the system's number says which."""
    with listening(tmp_path / "left"):
        pass
    for path, number in (("nothing", errno.ENOENT), ("left", errno.ECONNREFUSED)):
        with pytest.raises(HttpFault) as fault:
            await ask(tmp_path / path, os.geteuid())
        assert (Why.UNREACHABLE, number) == (fault.value.why, fault.value.errno)


async def test_in_the_files_of_a_process(tmp_path: Path) -> None:
    """A user's socket is not looked for behind a link to a process's files, where its file systems are; root's may be."""
    async with serving(tmp_path / "s"):
        (tmp_path / "link").symlink_to(f"/proc/{os.getpid()}/root{tmp_path}/s")
        (tmp_path / "plain").symlink_to(tmp_path / "s")
        with pytest.raises(OSError, match="symbolic links") as caught:
            open_socket(str(tmp_path / "link"), NOBODY)
        assert errno.ELOOP == caught.value.errno
        for path, owner in (("plain", NOBODY), ("link", 0)):
            with contextlib.suppress(HttpFault):  # it is of another user
                os.close(open_socket(str(tmp_path / path), owner))
