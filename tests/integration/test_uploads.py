"""Uploads to services as developers write them, on their servers: each ends with its task, and no part is handled after."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from harness.agent import AgentProcess
from harness.looking import WAIT_SECONDS, until
from harness.taskagent import TRIAGE, make_agent, revoke_all, write_type
from sojourn import SyncClient, TaskTokenMiddleware
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi

pytest.importorskip("fastapi")
pytest.importorskip("flask")
import fastapi
import flask
import uvicorn
from starlette.requests import Request
from werkzeug.serving import make_server

pytestmark = pytest.mark.full

SHOP = "https://uploads.example.org"  # of which no sample type has tokens
TYPE = f"""
allowed_workloads = ["{TRIAGE}"]
[[ceiling]]
resource = "{SHOP}"
actions = ["order:import"]
"""
ACTIONS = {"POST /orders": "order:import"}
Handled = list[bytes]


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    made = make_agent()
    write_type(made.folder / "types", "import", TYPE, '@id("all") permit (principal, action, resource);')
    with made as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running
        revoke_all(running)


@contextlib.contextmanager
def on_uvicorn(agent: AgentProcess, handled: Handled) -> Iterator[int]:
    """A FastAPI service that handles each part as it comes."""
    app = fastapi.FastAPI()

    async def orders(request: Request) -> dict[str, int]:
        async for part in request.stream():
            handled.extend(part.split())
        return {"parts": len(handled)}

    app.post("/orders")(orders)
    app.add_middleware(TaskTokenMiddleware, actions=ACTIONS, audience=SHOP, socket=agent.socket, wait_for_agent=30)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    serving = threading.Thread(target=server.run, args=([listener],))
    serving.start()
    try:
        until(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        serving.join(WAIT_SECONDS)
        listener.close()


@contextlib.contextmanager
def on_werkzeug(agent: AgentProcess, handled: Handled) -> Iterator[int]:
    """The same as a Flask service."""
    app = flask.Flask("uploads")

    def orders() -> dict[str, int]:
        for line in flask.request.stream:
            handled.append(line.strip())
        return {"parts": len(handled)}

    app.post("/orders")(orders)
    guard = TaskTokenWsgi(app.wsgi_app, actions=ACTIONS, audience=SHOP, socket=agent.socket)
    guard.start()
    with contextlib.closing(guard), make_server("127.0.0.1", 0, guard, threaded=True) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join(WAIT_SECONDS)


def send(upload: socket.socket, part: bytes) -> None:
    upload.sendall(b"%x\r\n%s\n\r\n" % (len(part) + 1, part))


Serve = Callable[[AgentProcess, Handled], AbstractContextManager[int]]


@pytest.mark.parametrize("serve", [on_uvicorn, on_werkzeug])
def test_an_upload_ends_with_its_task(agent: AgentProcess, serve: Serve) -> None:
    """A streamed upload is handled while its task lives, and no part of it after; the client is told why."""
    handled: Handled = []
    with (
        SyncClient(agent.socket) as client,
        serve(agent, handled) as port,
        client.task("import") as task,
        socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as upload,
    ):
        head = f"POST /orders HTTP/1.1\r\nHost: x\r\nAuthorization: {task.token(SHOP).header}\r\nTransfer-Encoding: chunked"
        upload.sendall(head.encode() + b"\r\n\r\n")
        send(upload, b"first")
        until(lambda: handled == [b"first"], "the first part is handled")
        send(upload, b"second")
        until(lambda: handled == [b"first", b"second"], "the second part is handled")
        agent.run("task", "revoke", task.id, "--reason", "stolen")
        answer, after = b"", 0
        with contextlib.suppress(ConnectionError):  # it is closed behind the answer
            while not answer:
                send(upload, b"after the end %d" % after)
                after += 1
                upload.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    answer = upload.recv(65536)
                assert after < 10 * WAIT_SECONDS
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"stolen" in answer or b"the task is over" in answer
        late = [each for each in handled if each.startswith(b"after")]
        assert len(late) < after, "parts go on to be handled"
