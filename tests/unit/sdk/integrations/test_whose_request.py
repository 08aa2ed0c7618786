"""What each kind of guard lets in is of the person of its token, for as long as it is served, and of nobody else."""

import asyncio
import http.client
import random
import socket as sockets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server
from wsgiref.util import FileWrapper

import pytest
from fakes import services
from fakes.guarded import AUDIENCE, Credentials, agent_at, token
from mcp.client import Client
from mcp.server import MCPServer
from sojourn.sdk.guard.serving_token import serving_token
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
from sojourn.sdk.integrations.mcp_messages import AUTHORIZATION_KEY
from sojourn.sdk.integrations.mcp_server import McpStdioGuard
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi
from sojourn.sdk.task import acting
from sojourn.tasktoken.person_claims import NOBODY, PersonClaims

uvicorn: Any = pytest.importorskip("uvicorn")

CORP = "https://kc.example.org"
ACTIONS = {"GET /tickets/{ticket}": "ticket:read"}
PUBLIC = ["GET /open"]
REQUESTS = 1000


def of(name: str) -> str:
    """The token of a request: somebody's, or a workload's alone ('')."""
    return token(person=PersonClaims(CORP, name) if name else None)


def named(name: str) -> str:
    return f"{CORP}|{name}" if name else NOBODY


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("agent") / "agent.sock"
    with agent_at(path):
        yield path


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Says whom it acts for: as it is called, in a task and a thread of its own, and when it goes on."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    seen = [acting.expected()]
    await asyncio.sleep(random.random() / 500)
    seen.append(await asyncio.create_task(asyncio.to_thread(acting.expected)))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-first", seen[0].encode())]})
    seen.append(acting.expected())
    await send({"type": "http.response.body", "body": ",".join({*seen}).encode()})


@pytest.fixture(scope="module")
def asgi(agent: Path) -> Iterator[int]:
    guarded = TaskTokenMiddleware(
        asgi_app, actions=ACTIONS, audience=AUDIENCE, socket=str(agent), public=PUBLIC, person="optional"
    )

    async def begun_for_somebody(scope: Any, receive: Any, send: Any) -> None:
        """As where a server begins a request in a context that is somebody's."""
        with acting.acting_for("corp|mallory"):
            await guarded(scope, receive, send)

    with services.serving_asgi(begun_for_somebody, uvicorn) as port:
        yield port


def wsgi_app(_environ: Any, start_response: Any) -> Iterator[bytes]:
    """Says whom it acts for when it is called, with each part, and at its end."""
    first = acting.expected()
    start_response("200 OK", [])

    def parts() -> Iterator[bytes]:
        try:
            for each in (first, acting.expected()):
                yield each.encode() + b","
            yield acting.expected().encode()
        finally:
            closed.append(acting.expected())

    return parts()


closed: list[str] = []


@pytest.fixture(scope="module")
def wsgi(agent: Path) -> Iterator[TaskTokenWsgi]:
    made = TaskTokenWsgi(
        wsgi_app, actions=ACTIONS, audience=AUDIENCE, socket=str(agent), public=PUBLIC, person="optional"
    )
    yield made
    made.close()


@contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: http.client.HTTPConnection, path: str, text: str = "") -> str:
    connection.request("GET", path, headers={"authorization": f"Bearer {text}"} if text else {})
    answer = connection.getresponse()
    said = answer.read().decode()
    assert 200 == answer.status, said
    return said


class TestAsgi:
    @pytest.mark.full
    def test_two_people_interleaved(self, asgi: int) -> None:
        """A thousand requests of two people, on connections that both use, are each of whom their token says."""
        texts = {name: of(name) for name in ("alice", "bob")}

        def some(seed: int) -> int:
            whose = random.Random(seed)
            mixed = 0
            with connected(asgi) as connection:
                for _ in range(REQUESTS // 8):
                    name = whose.choice(["alice", "bob"])
                    mixed += named(name) != ask(connection, "/tickets/42", texts[name])
            return mixed

        with ThreadPoolExecutor(8) as threads:
            assert 0 == sum(threads.map(some, range(8)))

    def test_nobody_after_somebody(self, asgi: int) -> None:
        """On the same connection a workload's request and one that needs no token are of nobody, though alice's was
        before and the request began in a context that is somebody's.
        """
        with connected(asgi) as connection:
            for _ in range(3):
                assert named("alice") == ask(connection, "/tickets/42", of("alice"))
                assert NOBODY == ask(connection, "/tickets/42", of(""))
                assert NOBODY == ask(connection, "/open")

    def test_requests_sent_at_once(self, asgi: int) -> None:
        """Requests that wait behind alice's on one connection, which the server begins where hers ends, are their own."""
        names = ["alice", "bob", "", "bob", "alice", ""]
        head = "GET /tickets/42 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n{}\r\n"
        sent = [
            head.format(of(name), "Connection: close\r\n" * (at == len(names) - 1)) for at, name in enumerate(names)
        ]
        with sockets.create_connection(("127.0.0.1", asgi), timeout=30) as connection:
            connection.sendall("".join(sent).encode())
            answers = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        firsts = [line.partition(":")[2].strip() for line in answers.split("\r\n") if line.startswith("x-first")]
        assert [named(name) for name in names] == firsts


class TestWsgi:
    def test_two_people_in_threads(self, wsgi: TaskTokenWsgi) -> None:
        """A thousand requests of two people in eight threads are each of whom their token says, to the last part of
        the answer, and when it is closed; the threads are of nobody afterwards.
        """
        texts = {name: of(name) for name in ("alice", "bob")}
        closed.clear()

        def some(seed: int) -> int:
            whose = random.Random(seed)
            mixed = 0
            for _ in range(REQUESTS // 8):
                name = whose.choice(["alice", "bob"])
                mixed += {named(name)} != {*self.parts(wsgi, texts[name])} or acting.expected() != ""
            return mixed

        with ThreadPoolExecutor(8) as threads:
            assert 0 == sum(threads.map(some, range(8)))
        assert (REQUESTS, {named("alice"), named("bob")}) == (len(closed), {*closed})

    def test_answers_read_by_turns(self, wsgi: TaskTokenWsgi) -> None:
        """Where one thread reads two answers by turns, each part is of its own person."""
        reading = {name: iter(self.call(wsgi, of(name))) for name in ("alice", "bob")}
        for _ in range(3):
            for name, parts in reading.items():
                assert named(name) == next(parts).decode().rstrip(",")
                assert "" == acting.expected()

    def test_nobody(self, wsgi: TaskTokenWsgi) -> None:
        """A workload's request, and the call of a public route to the last part of its answer, are of nobody, whoever
        the thread is of.
        """
        with acting.acting_for("corp|mallory"):
            for text, path in ((of(""), "/tickets/42"), ("", "/open")):
                closed.clear()
                assert {NOBODY} == {*self.parts(wsgi, text, path), *closed}
            assert "corp|mallory" == acting.expected()

    def test_a_block_over_several_parts(self, agent: Path) -> None:
        """What an answer that is made in parts does within a block of its own is for whom the block says, in each part
        and when it is closed within; after the block it is for the request's person again. The thread is not.
        """

        def answer(_environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield acting.expected().encode()
            with acting.acting_for("corp|carol"):
                yield acting.expected().encode()
                with acting.acting_for_nobody():
                    yield acting.expected().encode()
                yield acting.expected().encode()
            yield acting.expected().encode()
            try:
                with acting.acting_for("corp|dave"):
                    yield acting.expected().encode()
                    yield b"never read"
            finally:
                closed.append(acting.expected())

        guarded = TaskTokenWsgi(answer, actions=ACTIONS, audience=AUDIENCE, socket=str(agent), person="optional")
        seen = {name: [] for name in ("alice", "bob")}
        try:
            reading = {name: self.call(guarded, of(name)) for name in seen}
            steps = {name: iter(parts) for name, parts in reading.items()}
            for _ in range(6):
                for name, whose in seen.items():
                    whose.append(next(steps[name]).decode())
                    assert "" == acting.expected()
            closed.clear()
            for name, parts in reading.items():
                del steps[name]
                parts.close()
        finally:
            guarded.close()
        for name, whose in seen.items():
            assert [named(name), "corp|carol", NOBODY, "corp|carol", named(name), "corp|dave"] == whose
        assert [named("alice"), named("bob")] == closed
        assert "" == acting.expected()

    def test_a_file(self, agent: Path, tmp_path: Path) -> None:
        """A file that the server may send by itself on a public route is left to it; what reads as one by the
        application's own code is not.
        """
        (tmp_path / "file").write_bytes(b"content")

        class Made:
            def read(self, _size: int) -> bytes:
                return acting.expected().encode()

        def answer(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            return FileWrapper((tmp_path / "file").open("rb") if environ["QUERY_STRING"] == "" else Made())

        guarded = TaskTokenWsgi(answer, actions=ACTIONS, audience=AUDIENCE, socket=str(agent), public=PUBLIC)
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/open", "wsgi.file_wrapper": FileWrapper}
        try:
            served = guarded({**environ, "QUERY_STRING": ""}, lambda *_: None)
            assert isinstance(served, FileWrapper)
            assert b"content" == b"".join(served)
            served.close()
            made = guarded({**environ, "QUERY_STRING": "made"}, lambda *_: None)
            assert NOBODY.encode() == next(iter(made))
        finally:
            guarded.close()

    def call(self, app: Any, text: str, path: str = "/tickets/42") -> Any:
        environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
        environ |= {"HTTP_AUTHORIZATION": f"Bearer {text}"} if text else {}
        return app(environ, lambda *_: None)

    def parts(self, app: Any, text: str, path: str = "/tickets/42") -> list[str]:
        answer = self.call(app, text, path)
        said = [part.decode().rstrip(",") for part in answer]
        answer.close()
        return said

    def test_behind_a_server(self, wsgi: TaskTokenWsgi) -> None:
        """The same through a server's own way to call, read and close."""
        server = make_server("127.0.0.1", 0, wsgi, handler_class=services._Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            for name in ("alice", "", "bob"):
                with connected(server.server_port) as connection:
                    assert {named(name)} == {*ask(connection, "/tickets/42", of(name)).split(",")}
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class TestCalls:
    @pytest.fixture(params=["grpc_service", "grpc_aio_service"])
    def calls(self, request: pytest.FixtureRequest, agent: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setattr(services, "_answer", lambda _text: services.Ticket(text=f"<{acting.expected()}>"))
        with getattr(services, request.param)(agent, person="optional") as service:
            yield service

    @pytest.mark.parametrize("method", ["Read", "Follow", "Collect", "Chat"])
    def test_grpc(self, calls: services.GrpcService, method: str) -> None:
        """A gRPC method of any kind is for the person of its call, through all messages of a stream."""

        def one(name: str) -> bool:
            outcome = calls.ask(method, [calls.message("42")], Credentials.bearer(of(name)))
            return {f"<{named(name)}>"} == {*outcome.said.split(" ")}

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(one, ["alice", "bob", "", "alice"] * 10))

    @pytest.mark.parametrize("method", ["Read", "Follow", "Collect", "Chat"])
    @pytest.mark.parametrize("kind", ["sync", "aio"])
    def test_an_open_method(self, agent: Path, monkeypatch: pytest.MonkeyPatch, kind: str, method: str) -> None:
        """A gRPC method that needs no token is for nobody, through all messages of a stream, whoever calls."""
        monkeypatch.setattr(services, "_answer", lambda _text: services.Ticket(text=f"<{acting.expected()}>"))
        serve = {"sync": services.grpc_service, "aio": services.grpc_aio_service}[kind]
        options: Any = {"actions": {}, "open_methods": [services.SERVICE + method]}
        with serve(agent, person="optional", **options) as service:
            for credentials in (Credentials(), Credentials.bearer(of("alice"))):
                outcome = service.ask(method, [service.message("42")] * 2, credentials)
                assert {f"<{NOBODY}>"} == {*outcome.said.split(" ")}

    def test_mcp(self, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tool over HTTP is for the person of the request that calls it."""
        pytest.importorskip("mcp")

        class Seen:
            spiffe_id = property(lambda _: f"<{acting.expected()}>")

        monkeypatch.setattr(services, "serving_token", Seen)
        with services.mcp_service(agent, person="optional") as service:

            def one(name: str) -> bool:
                return f"<{named(name)}> hello" == service.call(Credentials.bearer(of(name))).said

            with ThreadPoolExecutor(8) as threads:
                assert all(threads.map(one, ["alice", "bob", "", "alice"] * 10))

    async def test_mcp_over_stdio(self, agent: Path) -> None:
        """A tool over stdio is for the person of the token that its call has, call by call."""
        guard = McpStdioGuard(tools=services.MCP_TOOLS, audience=AUDIENCE, socket=str(agent), person="optional")
        server = MCPServer("tickets", middleware=[guard])

        @server.tool()
        def read_ticket(ticket: str) -> str:
            """Reads a ticket."""
            return f"{ticket} {serving_token().subject} {acting.expected()}"

        async with Client(server) as client:
            for name in ("alice", "bob"):
                meta: Any = {AUTHORIZATION_KEY: f"Bearer {of(name)}"}
                answer = await client.call_tool("read_ticket", {"ticket": "42"}, meta=meta)
                assert f"42 {name} {named(name)}" == answer.content[0].text
        await guard.close()

    async def test_mcp_greetings_over_stdio(self, agent: Path) -> None:
        """What a client says over stdio before it calls a tool is for nobody, whoever the server's context is of."""
        seen = []
        guard = McpStdioGuard(tools=services.MCP_TOOLS, audience=AUDIENCE, socket=str(agent), person="optional")

        async def told(ctx: Any, call_next: Any) -> Any:
            seen.append((ctx.method, acting.expected()))
            return await call_next(ctx)

        async def begun_for_somebody(ctx: Any, call_next: Any) -> Any:
            with acting.acting_for("corp|mallory"):
                return await call_next(ctx)

        server = MCPServer("tickets", middleware=[begun_for_somebody, guard, told])
        async with Client(server):
            pass
        await guard.close()
        assert seen
        assert {NOBODY} == {whose for _, whose in seen}
