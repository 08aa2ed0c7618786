"""connection.py: one connection of HTTP/1.1, with limits, on a real socket."""

import asyncio
import contextlib
import logging
import socket
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import structlog
from sojourn.endpoints.http1 import connection
from sojourn.endpoints.http1.connection import Conversations
from sojourn.endpoints.http1.scope import HELD, SENDER
from sojourn.http2.limits import FIELD_HELD_BYTES, METADATA_MAX_BYTES
from sojourn.limits import (
    CALLS_PER_TURN,
    HTTP_BODY_MAX_BYTES,
    HTTP_HEAD_FIELDS,
    HTTP_PIPELINE,
    HTTP_READ_BYTES,
    REFUSALS_LOGGED_PER_SECOND,
    REQUESTS_HELD_BYTES,
)
from sojourn.oauth.client_auth import ClientSender
from sojourn.quota.rate import Rate
from sojourn.quota.turns import Turns
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

GET = b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n"
DEADLINE_SECONDS = 20  # so that a hung test says where


class Site:
    """What answers on a socket, and those who ask."""

    def __init__(self, path):
        self.path = path
        self.asked = 0
        self.held = []
        self.hold = asyncio.Event()
        self.hold.set()
        routes = [Route("/who", self.who, methods=["GET", "POST"])]
        self.app = Starlette(routes=routes)
        self.conversations = Conversations(self.app, Turns())
        self.sender = ClientSender(address="192.0.2.7")

    async def who(self, request: Request) -> Response:
        self.asked += 1
        self.held.append(request.scope[HELD])
        await request.body()
        await self.hold.wait()
        return PlainTextResponse(request.scope[SENDER].address)

    @asynccontextmanager
    async def running(self):
        make = lambda: self.conversations.make(self.sender)  # noqa: E731
        listening = await asyncio.get_running_loop().create_unix_server(make, str(self.path))
        async with listening:
            yield self
            self.conversations.close()

    async def send(self, *pieces, answers=1):
        """What is answered to these bytes: so many answers, or all until the connection ends if that is None.

        An event among them is waited for.
        """
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                for piece in pieces:
                    if isinstance(piece, asyncio.Event):
                        await piece.wait()
                        continue
                    writer.write(piece)
                    await asyncio.sleep(0.01)
                if answers is None:
                    try:
                        return await reader.read()
                    except ConnectionError:
                        return b""
                got = b""
                while got.count(b"192.0.2.7") < answers:
                    read = await reader.read(1 << 16)
                    if not read:
                        return got
                    got += read
                return got
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def site(tmp_path):
    async with Site(tmp_path / "s.sock").running() as site:
        yield site


class TestAnswers:
    async def test_who_asks(self, site):
        """A request is answered, knows its sender, and the answer does not say what serves it."""
        head, _, body = (await site.send(GET)).partition(b"\r\n\r\n")
        assert (b"HTTP/1.1 200 OK", b"192.0.2.7") == (head.split(b"\r\n")[0], body)
        assert not [line for line in head.lower().split(b"\r\n") if line.startswith((b"server", b"date"))]

    async def test_one_after_the_other(self, site):
        """A connection is good for many requests, in whatever pieces they come, and a few sent ahead."""
        got = await site.send(*(bytes((byte,)) for byte in GET), GET, GET * HTTP_PIPELINE, answers=2 + HTTP_PIPELINE)
        assert 2 + HTTP_PIPELINE == got.count(b"200 OK") == site.asked

    async def test_a_body(self, site):
        """A body may be as large as it is read, with a head before it, again and again on one connection."""
        size = HTTP_BODY_MAX_BYTES
        post = b"POST /who HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
        assert 3 == (await site.send(post, post, post, answers=3)).count(b"200 OK")


class TestLimits:
    async def test_a_head_without_end(self, site):
        """A head that does not end is cut off, and asks for nothing."""
        got = await site.send(b"GET /who HTTP/1.1\r\nx: ", b"a" * METADATA_MAX_BYTES, answers=None)
        assert (True, 0) == (got.startswith(b"HTTP/1.1 431 "), site.asked)

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"x: \r\n" * (HTTP_HEAD_FIELDS - 1), b"200"),
            (b"x: \r\n" * HTTP_HEAD_FIELDS, b"431"),
            (b"x: " + b"a" * (METADATA_MAX_BYTES - 200) + b"\r\n", b"200"),
            (b"".join(b"x: " + b"a" * 1_000 + b"\r\n" for _ in range(17)), b"431"),
        ],
        ids=["fields", "one field more", "bytes", "more bytes"],
    )
    async def test_a_head_has_a_size(self, site, head, status):
        """A head has a hundred fields and 16 KiB at most, and who sends more is told so."""
        got = await site.send(GET[:-2] + head + b"\r\n", answers=1 if status == b"200" else None)
        assert status == got.split()[1]
        assert got.count(b"100 fields and 16384 bytes at most") == (status == b"431")

    async def test_nothing_is_said_ahead_of_an_answer(self, site):
        """Where a request before it waits for its answer, a head that is too large ends the connection unanswered."""
        site.hold.clear()
        over = b"GET /who HTTP/1.1\r\n" + b"x: \r\n" * (HTTP_HEAD_FIELDS + 1)
        assert b"" == await site.send(GET, over, answers=None)

    async def test_trailers(self, site):
        """Trailers count as fields of the head, also those of a request that is answered before they come."""
        head = b"POST /away HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
        for number, answered in ((98, True), (99, False)):
            reader, writer = await asyncio.open_unix_connection(str(site.path))
            async with asyncio.timeout(DEADLINE_SECONDS):
                writer.write(head)
                got = await reader.readuntil(b"Not Found")
                writer.write(b"0\r\n" + b"x: \r\n" * number + b"\r\n" + GET)
                writer.write_eof()
                got += await reader.read()
            writer.close()
            assert (True, answered) == (got.startswith(b"HTTP/1.1 404 "), b" 200 OK" in got)

    async def test_heads_are_held(self, site):
        """Heads count as held, each field with what it takes, until the answers are given or the connection ends."""
        held = site.conversations.held
        site.hold.clear()
        fields = b"x: \r\n" * 50
        asking = asyncio.ensure_future(site.send(GET[:-2] + fields + b"\r\n" + GET[:-2] + fields, answers=1))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while held[site.sender.who] < 101 * FIELD_HELD_BYTES:
                await asyncio.sleep(0.01)
            held[site.sender.who] += REQUESTS_HELD_BYTES
            assert b"" == await site.send(GET, answers=None)
            held[site.sender.who] -= REQUESTS_HELD_BYTES
            site.hold.set()
            await asking
            while held:
                await asyncio.sleep(0.01)

    @pytest.mark.parametrize("before", [(), (GET,)], ids=["the first", "a later one"])
    async def test_a_head_as_long_as_may_be(self, site, before):
        """A head may be as long as that, and is waited for; the next byte of it ends the connection."""
        site.conversations.request_seconds = DEADLINE_SECONDS * 2
        begun = b"GET /who HTTP/1.1\r\nx: "
        head = begun + b"a" * (METADATA_MAX_BYTES - len(begun))
        more = asyncio.Event()
        sending = asyncio.ensure_future(site.send(*before, head, more, b"a", answers=None))
        await asyncio.sleep(0.1)
        assert not sending.done()
        more.set()
        assert len(before) == (await sending).count(b"200 OK") == site.asked

    async def test_a_head_sent_ahead(self, site):
        """A head without end that comes in one piece with a whole request before it is cut off as any other."""
        site.conversations.request_seconds = DEADLINE_SECONDS * 2
        most = METADATA_MAX_BYTES + HTTP_READ_BYTES
        await site.send(GET + b"GET /who HTTP/1.1\r\nx: " + b"a" * most, answers=None)
        assert site.asked <= 1

    async def test_idle(self, tmp_path, monkeypatch):
        """A connection on which nothing more is asked ends after a while."""
        monkeypatch.setattr(connection, "HTTP_KEEP_ALIVE_SECONDS", 0.05)
        async with Site(tmp_path / "idle.sock").running() as site:
            assert b"192.0.2.7" in await site.send(GET, answers=None)

    async def test_nothing_in_between(self, site):
        """What is asked goes to the application as it is: no header of a proxy is believed; and no logger is touched."""
        logger = logging.getLogger("uvicorn")
        before = list(logger.handlers)
        config = Conversations(site.app, Turns()).config
        assert (site.app, None) == (config.loaded_app, config.ws_protocol_class)
        assert before == logger.handlers

    async def test_its_sender_s(self, site):
        """What a request holds is counted in one place for all requests, up to a limit for each sender."""
        await site.send(GET)
        [held] = site.held
        assert site.conversations.held is held
        assert [True, False] == [held.hold("x", REQUESTS_HELD_BYTES), held.hold("x", 1)]

    async def test_log(self, site, caplog):
        """Requests, and what is malformed, are logged by us, and not by what reads them as well."""
        with caplog.at_level(logging.INFO), structlog.testing.capture_logs():
            await site.send(GET)
            await site.send(b"nonsense\r\n\r\n", answers=None)
        assert [] == [each for each in caplog.records if each.name.startswith("uvicorn")]

    async def test_too_many_ahead(self, site):
        """More requests sent ahead than a limit end the connection, before all of them are kept."""
        site.hold.clear()
        assert b"" == await site.send(GET, GET * (HTTP_PIPELINE + 2), answers=None)
        site.hold.set()

    async def test_as_many_ahead_as_may_be(self, site):
        """As many requests as that may be sent ahead of the one that is being answered, and all are answered."""
        site.hold.clear()
        sending = asyncio.ensure_future(site.send(GET * (HTTP_PIPELINE + 2), answers=HTTP_PIPELINE + 2))
        await asyncio.sleep(0.1)
        assert not sending.done()
        site.hold.set()
        assert HTTP_PIPELINE + 2 == (await sending).count(b"200 OK")

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"GET /who HTTP/1.1\r\nhost",
            b"POST /who HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc",
            GET + b"G",
        ],
        ids=["nothing", "half-a-head", "half-a-body", "half-of-the-second"],
    )
    async def test_what_does_not_come(self, site, sent):
        """A request that does not arrive whole in time ends the connection."""
        site.conversations.request_seconds = 0.1
        got = await site.send(sent, answers=None)
        assert sent.startswith(GET) == (b"192.0.2.7" in got)

    async def test_what_takes_long_to_answer(self, site):
        """A request that has arrived whole is answered however long that takes."""
        site.conversations.request_seconds = 0.05
        site.hold.clear()
        asking = asyncio.ensure_future(site.send(GET))
        await asyncio.sleep(0.2)
        site.hold.set()
        assert b"192.0.2.7" in await asking


class TestMalformed:
    async def test_is_told(self, site):
        """What is no HTTP is answered with 400 and the end, and logged with who sent it."""
        with structlog.testing.capture_logs() as logs:
            got = await site.send(b"nonsense\r\n\r\n", answers=None)
        assert got.startswith(b"HTTP/1.1 400 ")
        [found] = [each for each in logs if each["event"] == "http_malformed"]
        assert (site.sender.who, "192.0.2.7") == (found["who"], found["address"])

    @pytest.mark.parametrize(
        ("line", "hosts", "status"),
        [
            (b"HTTP/1.1", 1, b"200"),
            (b"HTTP/1.0", 1, b"200"),
            (b"HTTP/1.0", 0, b"200"),
            (b"HTTP/1.1", 0, b"400"),
            (b"HTTP/1.1", 2, b"400"),
            (b"HTTP/1.0", 2, b"400"),
            (b"HTTP/0.9", 1, b"400"),
            (b"HTTP/2.0", 1, b"400"),
            (b"HTTP/3.0", 1, b"400"),
        ],
    )
    async def test_versions_and_hosts(self, site, line, hosts, status):
        """A request of another version than 1.0 and 1.1 is none, nor one that names several hosts, or, in 1.1, none."""
        asked = b"GET /who %s\r\n%sconnection: close\r\n\r\n" % (line, b"host: x\r\n" * hosts)
        async with site.running():
            got = await site.send(asked, answers=None)
        assert (b"HTTP/1.1 " + status, int(status == b"200")) == (got[:12], site.asked)

    async def test_fills_no_log(self, site):
        """It is logged up to a limit for each second and sender, on however many connections."""
        site.conversations.logged = Rate(REFUSALS_LOGGED_PER_SECOND, lambda: 7.0)
        with structlog.testing.capture_logs() as logs:
            for _ in range(REFUSALS_LOGGED_PER_SECOND + 5):
                await site.send(b"nonsense\r\n\r\n", answers=None)
        found = [each for each in logs if each["event"] == "http_malformed"]
        assert REFUSALS_LOGGED_PER_SECOND == len(found)
        assert site.conversations.logged.allow("somebody else")


class TestClose:
    async def test_idle_ones_end(self, site):
        """At the end idle connections close, and one that is being answered closes after that."""
        idle, writer = await asyncio.open_unix_connection(str(site.path))
        site.hold.clear()
        asking = asyncio.ensure_future(site.send(GET, answers=None))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not site.asked:
                await asyncio.sleep(0.01)
            site.conversations.close()
            assert b"" == await idle.read()
            assert not asking.done()
            site.hold.set()
            assert b"192.0.2.7" in await asking
        writer.close()


@asynccontextmanager
async def crowd(site, number):
    """So many connections of the site's sender, which the site has accepted."""
    made = []
    try:
        for _ in range(number):
            made.append(socket.socket(socket.AF_UNIX))
            made[-1].connect(str(site.path))
            made[-1].setblocking(False)
            await asyncio.sleep(0.001)
        yield made
    finally:
        for each in made:
            each.close()
        await asyncio.sleep(0.05)


async def answer_of(connection):
    """What comes on a connection until the answer is whole."""
    got = b""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not got.endswith((b"192.0.2.7", b"203.0.113.1")):
            read = await asyncio.get_running_loop().sock_recv(connection, 1 << 16)
            assert read
            got += read
    return got


class TestTurns:
    async def test_of_who_waits_nothing_more_is_read(self, site):
        """While a connection waits for its turn what it sends stays with the kernel, and is read afterwards."""
        async with crowd(site, 80) as connections:
            for each in connections:
                each.send(GET)
            while not (waiting := [each for each in site.conversations.state.connections if each._came]):
                await asyncio.sleep(0)
            assert not any(each.transport.is_reading() for each in waiting)
            for each in connections:
                await answer_of(each)
            assert all(each.transport.is_reading() for each in site.conversations.state.connections)

    async def test_of_many_connections(self, site):
        """Of one sender's requests, on however many connections, a few are begun in each round of the event loop, and all
        are answered.
        """
        loop, rounds, watching = asyncio.get_running_loop(), [0], True

        def look():
            rounds.append(site.asked)
            if watching:
                loop.call_soon(look)

        async with crowd(site, 80) as connections:
            for each in connections:
                each.send(GET)
            look()
            for each in connections:
                await answer_of(each)
            watching = False
        assert 80 == site.asked
        assert CALLS_PER_TURN >= max(after - before for before, after in pairwise(rounds))

    async def test_another_sender(self, site):
        """Whoever else asks waits for none of a sender's many requests."""
        async with crowd(site, 80) as connections:
            site.sender = ClientSender(address="203.0.113.1")
            async with crowd(site, 1) as [other]:
                for each in (*connections, other):
                    each.send(GET)
                await answer_of(other)
                assert site.asked < 70
                for each in connections:
                    await answer_of(each)

    async def test_long_content(self, site):
        """Content that comes in many pieces while others of the sender's have their turns arrives whole."""
        post, body = b"POST /who HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n", b"x" * 60_000
        pieces = [post, *(body[at : at + 3000] for at in range(0, 60_000, 3000))]
        got = await asyncio.gather(*(site.send(*pieces) for _ in range(20)))
        assert {b"HTTP/1.1 200 OK"} == {each.split(b"\r\n")[0] for each in got}

    async def test_gone_meanwhile(self, site):
        """Connections that end while they wait for their turn hold up none of the others."""
        async with crowd(site, 80) as connections:
            for each in connections:
                each.send(GET)
        assert b"192.0.2.7" in await site.send(GET)
