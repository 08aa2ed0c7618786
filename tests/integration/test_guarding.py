"""Services in real frameworks, guarded in one line, with a real agent behind them."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.looking import until
from harness.taskagent import PLACE_A, TICKETS, TRIAGE, inner_failures, make_agent, revoke_all, write_type
from sojourn import Client, SyncClient, TaskTokenMiddleware, TaskVerifier
from sojourn.errors import InvalidToken
from sojourn.errors.oauth import WrongParams
from sojourn.jose.jws import parse_unverified
from sojourn.tasktoken import request_digest
from sojourn.tasktoken.sender_constraint import Proven

pytest.importorskip("starlette")
pytest.importorskip("httpx2")
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

ACTIONS = {
    "GET /tickets/{ticket}": "ticket:read",
    "GET /tickets/{ticket}/stream": "ticket:read",
    "POST /tickets/{ticket}/upload": "ticket:read",
    "GET /tickets/{ticket}/live": "ticket:read",
    "GET /inner/tickets/{ticket}": "ticket:read",
    "POST /tickets/{ticket}/close": "ticket:close",
}
ALL = '@id("all") permit (principal, action, resource);'
THRIFTY = f"""
allowed_workloads = ["{TRIAGE}"]
max_reported_calls = 3
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]
"""
PARTS = [b"a" * 70_000, b"b" * 70_000, b"c"]


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    made = make_agent()
    write_type(made.folder / "types", "thrifty", THRIFTY, ALL)
    with made as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running
        revoke_all(running)
        assert [] == inner_failures(running)


@pytest.fixture(scope="module")
def client(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as opened:
        yield opened


class Steps:
    """What an application did beside its answers."""

    def __init__(self) -> None:
        self.done: list[str] = []


def guarded(app: Any, agent: AgentProcess) -> TaskTokenMiddleware:
    return TaskTokenMiddleware(app, actions=ACTIONS, audience=TICKETS, socket=agent.socket)


def starlette_app(agent: AgentProcess, steps: Steps) -> Any:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.websockets import WebSocket

    async def read(request: Request) -> Response:
        said = f"{request.scope['sojourn.task'].spiffe_id} {request.path_params['ticket']}"
        return PlainTextResponse(said, background=BackgroundTask(steps.done.append, "background"))

    async def parts() -> AsyncIterator[bytes]:
        for part in PARTS:
            yield part

    async def stream(_request: Request) -> Response:
        return StreamingResponse(parts())

    async def upload(request: Request) -> Response:
        return PlainTextResponse(str(sum([len(part) async for part in request.stream()])))

    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.scope["sojourn.task"].spiffe_id) + await websocket.receive_text())
        await websocket.close()

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        steps.done.append("startup")
        yield
        steps.done.append("shutdown")

    routes = [
        Route("/tickets/{ticket}", read),
        Route("/tickets/{ticket}/stream", stream),
        Route("/tickets/{ticket}/upload", upload, methods=["POST"]),
        Route("/tickets/{ticket}/close", read, methods=["POST"]),
        WebSocketRoute("/tickets/{ticket}/live", live),
        Mount("/inner", Starlette(routes=[Route("/tickets/{ticket}", read)])),
    ]
    options = {"actions": ACTIONS, "audience": TICKETS, "socket": agent.socket}
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(TaskTokenMiddleware, **options)])


def fastapi_app(agent: AgentProcess, steps: Steps) -> Any:
    fastapi = pytest.importorskip("fastapi")
    from fastapi.responses import PlainTextResponse, StreamingResponse

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        steps.done.append("startup")
        yield
        steps.done.append("shutdown")

    app, inner = fastapi.FastAPI(lifespan=lifespan), fastapi.FastAPI()

    def said(request: Any, ticket: str) -> PlainTextResponse:
        return PlainTextResponse(f"{request.scope['sojourn.task'].spiffe_id} {ticket}")

    async def read(request: fastapi.Request, ticket: str, background: fastapi.BackgroundTasks) -> PlainTextResponse:
        background.add_task(steps.done.append, "background")
        return said(request, ticket)

    async def stream(ticket: str) -> StreamingResponse:
        del ticket
        return StreamingResponse(iter(PARTS))

    async def upload(ticket: str, request: fastapi.Request) -> PlainTextResponse:
        del ticket
        return PlainTextResponse(str(len(await request.body())))

    async def live(websocket: fastapi.WebSocket, ticket: str) -> None:
        del ticket
        await websocket.accept()
        await websocket.send_text(str(websocket.scope["sojourn.task"].spiffe_id) + await websocket.receive_text())
        await websocket.close()

    app.get("/tickets/{ticket}")(read)
    app.get("/tickets/{ticket}/stream")(stream)
    app.post("/tickets/{ticket}/upload")(upload)
    app.post("/tickets/{ticket}/close")(read)
    app.websocket("/tickets/{ticket}/live")(live)
    inner.get("/tickets/{ticket}")(read)
    app.mount("/inner", inner)
    app.add_middleware(TaskTokenMiddleware, actions=ACTIONS, audience=TICKETS, socket=agent.socket)
    return app


def litestar_app(agent: AgentProcess, steps: Steps) -> Any:
    litestar = pytest.importorskip("litestar")
    from litestar.background_tasks import BackgroundTask
    from litestar.params import FromPath
    from litestar.response import Response, Stream

    async def noted() -> None:
        steps.done.append("background")

    async def read(request: litestar.Request, ticket: FromPath[str]) -> Response[str]:  # type: ignore[name-defined,type-arg]
        said = f"{request.scope['sojourn.task'].spiffe_id} {ticket}"  # type: ignore[typeddict-item]
        return Response(said, media_type="text/plain", status_code=200, background=BackgroundTask(noted))

    async def stream(ticket: FromPath[str]) -> Stream:
        del ticket
        return Stream(iter(PARTS))

    async def upload(ticket: FromPath[str], request: litestar.Request) -> Response[str]:  # type: ignore[name-defined,type-arg]
        del ticket
        return Response(str(len(await request.body())), media_type="text/plain", status_code=200)

    async def live(socket: litestar.WebSocket, ticket: FromPath[str]) -> None:  # type: ignore[name-defined,type-arg]
        del ticket
        await socket.accept()
        text = await socket.receive_text()
        await socket.send_text(str(socket.scope["sojourn.task"].spiffe_id) + text)  # type: ignore[typeddict-item]
        await socket.close()

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        steps.done.append("startup")
        yield
        steps.done.append("shutdown")

    handlers = [
        litestar.get(["/tickets/{ticket:str}", "/inner/tickets/{ticket:str}"])(read),
        litestar.get("/tickets/{ticket:str}/stream")(stream),
        litestar.post("/tickets/{ticket:str}/upload")(upload),
        litestar.post("/tickets/{ticket:str}/close")(read),
        litestar.websocket("/tickets/{ticket:str}/live")(live),
    ]
    # Litestar's own middleware does not see the lifespan: so the guard stands around the application.
    return guarded(litestar.Litestar(handlers, lifespan=[lifespan], openapi_config=None), agent)


MAKERS = {"starlette": starlette_app, "fastapi": fastapi_app, "litestar": litestar_app}


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture(params=sorted(MAKERS))
def http(request: pytest.FixtureRequest, agent: AgentProcess, steps: Steps) -> Iterator[TestClient]:
    with TestClient(MAKERS[request.param](agent, steps), base_url=TICKETS) as opened:
        yield opened


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class TestFrameworks:
    def test_requests(self, client: SyncClient, http: TestClient, steps: Steps) -> None:
        """A request is let through with a token for its action and parameters, and is refused without, or over."""
        with client.task("triage-ticket", params={"ticket": "42"}) as task:
            headers = bearer(task.token().token)
            answer = http.get("/tickets/42", headers=headers)
            assert (200, f"{TRIAGE} 42") == (answer.status_code, answer.text)
            answer = http.get("/inner/tickets/42", headers=headers)
            assert (200, f"{TRIAGE} 42") == (answer.status_code, answer.text)
            assert 403 == http.get("/tickets/43", headers=headers).status_code
            assert 403 == http.post("/tickets/42/close", headers=headers).status_code
            assert 401 == http.get("/tickets/42").status_code
        until(lambda: http.get("/tickets/42", headers=headers).status_code == 401, "the token to be over")
        assert "over" in http.get("/tickets/42", headers=headers).json()["error_description"]
        until(lambda: "background" in steps.done, "what the application does behind")

    def test_streams(self, client: SyncClient, http: TestClient) -> None:
        """Content is streamed both ways as if nobody stood between, whether it was read first or not."""
        with client.task("triage-ticket", params={"ticket": "42"}) as task:
            headers = bearer(task.token().token)
            with http.stream("GET", "/tickets/42/stream", headers=headers) as answer:
                assert (200, b"".join(PARTS)) == (answer.status_code, answer.read())
            whole = b"".join(PARTS)
            answer = http.post("/tickets/42/upload", headers=headers, content=iter(PARTS))
            assert (200, str(len(whole))) == (answer.status_code, answer.text)
            digest = request_digest.of_http("POST", "/tickets/42/upload?a=b%20c", whole)
            headers = bearer(task.token(params_digest=digest).token)
            url = "/tickets/42/upload?a=b%20c"
            answer = http.post(url, headers=headers, content=iter(PARTS))
            assert (200, str(len(whole))) == (answer.status_code, answer.text)
            assert 403 == http.post(url, headers=headers, content=iter(PARTS[1:])).status_code
            assert 413 == http.post(url, headers=headers, content=b"x" * 2_000_000).status_code

    def test_websockets(self, client: SyncClient, http: TestClient) -> None:
        """A WebSocket is opened with a token for it, and not without."""
        with client.task("triage-ticket", params={"ticket": "42"}) as task:
            headers = bearer(task.token().token)
            with http.websocket_connect("/tickets/42/live", headers=headers) as socket:
                socket.send_text("!")
                assert f"{TRIAGE}!" == socket.receive_text()
            for path, given in (("/tickets/42/live", {}), ("/tickets/43/live", headers)):
                with pytest.raises(WebSocketDisconnect), http.websocket_connect(path, headers=given):
                    pass

    def test_lifespan(self, agent: AgentProcess, steps: Steps) -> None:
        """The application's own lifespan runs, once, from start to end."""
        for make in MAKERS.values():
            steps.done.clear()
            with TestClient(make(agent, steps), base_url=TICKETS):
                assert ["startup"] == steps.done
            assert ["startup", "shutdown"] == steps.done


def test_mounted(client: SyncClient, agent: AgentProcess) -> None:
    """A guarded application that is mounted in an open one is guarded, though it is told of no lifespan."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Mount, Route

    async def read(request: Request) -> Response:
        return PlainTextResponse(request.path_params["ticket"])

    async def health(_request: Request) -> Response:
        return PlainTextResponse("well")

    inner = Starlette(routes=[Route("/tickets/{ticket}", read), Route("/health", health)])
    mounted = TaskTokenMiddleware(
        inner,
        actions={"GET /api/tickets/{ticket}": "ticket:read"},
        public=["GET /api/health"],
        audience=TICKETS,
        socket=agent.socket,
    )
    outer = Starlette(routes=[Route("/", health), Mount("/api", mounted)])
    with TestClient(outer, base_url=TICKETS) as http, client.task("triage-ticket", params={"ticket": "42"}) as task:
        headers = bearer(task.token().token)
        assert [200, 200] == [http.get(path).status_code for path in ("/", "/api/health")]
        assert 401 == http.get("/api/tickets/42").status_code
        answer = http.get("/api/tickets/42", headers=headers)
        assert (200, "42") == (answer.status_code, answer.text)
        assert 403 == http.get("/api/tickets/43", headers=headers).status_code
        assert http.portal is not None
        http.portal.call(mounted.close)


def test_a_budget_of_calls(client: SyncClient, agent: AgentProcess, steps: Steps) -> None:
    """Calls that were let through are reported, and with the one beyond its budget the task ends, by itself."""
    with TestClient(starlette_app(agent, steps), base_url=TICKETS) as http, client.task("thrifty") as task:
        headers = bearer(task.token().token)
        for _ in range(3):
            assert 200 == http.get("/tickets/1", headers=headers).status_code
        assert (
            200 == http.get("/tickets/1", headers=headers).status_code
        )  # before it is known that this is one too many
        until(lambda: http.get("/tickets/1", headers=headers).status_code == 401, "the budget to be spent")
        task.wait_ended()


async def test_once_across_validators(agent: AgentProcess) -> None:
    """Of fifty who use a token of class high at once, at two verifiers, one may; over a restart of both nobody."""
    digest = request_digest.of_http("DELETE", "/docs/1", b"")
    async with Client(agent.socket) as client, client.task("careful") as task:
        token = (await task.token(PLACE_A, ["doc:destroy"], bound="agent", params_digest=digest)).token
        proven = Proven(jkt=parse_unverified(token).unverified_claims["cnf"]["jkt"])
        async with TaskVerifier(client, PLACE_A) as one, TaskVerifier(client, PLACE_A) as two:
            for verifier in (one, two):
                await verifier.feed.wait_ready(20)
            with pytest.raises(InvalidToken, match="without a DPoP proof"):
                await one.verify(token, "doc:destroy", params_digest=digest)
            with pytest.raises(WrongParams):
                await one.verify(token, "doc:destroy", proven=proven)

            async def use(verifier: TaskVerifier) -> str:
                try:
                    await verifier.verify(token, "doc:destroy", proven=proven, params_digest=digest)
                except InvalidToken as error:
                    return error.reason_code
                return ""

            found = await asyncio.gather(*(use(each) for each in [one, two] * 25))
            assert ["", *["used"] * 49] == sorted(found)
        async with TaskVerifier(client, PLACE_A) as anew:
            await anew.feed.wait_ready(20)
            assert "used" == await use(anew)
