"""Flask under gunicorn's gevent, whose threads are greenlets of one real thread, and what eventlet's users are told."""

import http.client
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

# Programs of these tests import them, and not this process: eventlet warns at each of its forks then.
if not all(map(find_spec, ("flask", "gunicorn", "gevent", "eventlet"))):
    pytest.skip("needs flask, gunicorn, gevent and eventlet", allow_module_level=True)

from fakes.ca import FakeCa
from fakes.fake_agent import x509_response
from fakes.guarded import AUDIENCE, agent_at, token

ENDS_WITHIN_SECONDS = 30
SERVICE = f"""
import asyncio

from flask import Flask, request
from sojourn.web import TaskTokenWsgi

app = Flask(__name__)
app.wsgi_app = TaskTokenWsgi(
    app.wsgi_app,
    actions={{"POST /tickets/{{ticket}}": "ticket:read"}},
    public=["GET /loop"],
    audience="{AUDIENCE}",
    socket="agent.sock",
)


@app.post("/tickets/<ticket>")
def close(ticket):
    return ticket + " " + request.get_data(as_text=True)


@app.get("/loop")
def loop():
    async def here():
        await asyncio.sleep(0.01)
        return "a loop of its own"

    return asyncio.run(here())
"""


@contextmanager
def gunicorn(folder: Path, *options: str) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Of that folder's service. Gives the port, which takes connections at once, and the server."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        served = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-b", f"fd://{listening.fileno()}", *options, "service:app"],
            cwd=folder,
            pass_fds=[listening.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield listening.getsockname()[1], served
        finally:
            served.kill()
            served.communicate()


def ask(port: int, method: str, path: str, text: str = "", content: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, content, {"Authorization": f"Bearer {text}"} if text else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "service.py").write_text(SERVICE)
    with agent_at(tmp_path / "agent.sock"):
        yield tmp_path


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["loaded in the worker", "preloaded"])
def test_a_guard_under_gevent_judges_many_requests_at_once_and_its_worker_ends_when_told(
    folder: Path, options: tuple[str, ...]
) -> None:
    """None waits for another, though all come before the guard has begun; the service may run a loop of its own."""
    with gunicorn(folder, "-k", "gevent", *options) as (port, served), ThreadPoolExecutor(21) as at_once:
        own = [at_once.submit(ask, port, "POST", "/tickets/42", token(), f"note {n}") for n in range(10)]
        others = [at_once.submit(ask, port, "POST", "/tickets/43", token()) for _ in range(10)]
        loop = at_once.submit(ask, port, "GET", "/loop")
        assert [asked.result() for asked in own] == [(200, f"42 note {n}") for n in range(10)]
        assert {asked.result()[0] for asked in others} == {403}
        assert loop.result() == (200, "a loop of its own")
        served.send_signal(signal.SIGTERM)
        _, said = served.communicate(timeout=ENDS_WITHIN_SECONDS)
    assert served.returncode == 0
    assert "Traceback" not in said
    assert "SIGKILL" not in said


def test_a_client_under_gevent_is_answered_while_other_greenlets_run(tmp_path: Path) -> None:
    """A client in a process whose threads are greenlets is answered, and the others run while it waits."""
    program = """
        from gevent import monkey; monkey.patch_all()
        import gevent, sojourn

        turns = []

        def other():
            while True:
                turns.append(1)
                gevent.sleep(0)

        gevent.spawn(other)
        with sojourn.SyncClient(socket="agent.sock") as client:
            print(client.fetch_x509_svids().default.spiffe_id, len(turns) > 1)
    """
    ca = FakeCa.make()
    svid = ca.svid()
    with agent_at(tmp_path / "agent.sock") as agent:
        agent.push("FetchX509SVID", x509_response(ca, svid))
        done = run(program, tmp_path)
    assert (done.stdout.split(), done.stderr) == ([str(svid.spiffe_id), "True"], "")


@pytest.mark.parametrize(
    "made", ['TaskTokenWsgi(print, actions={}, audience="https://a.example.org")', "SyncClient().__enter__()"]
)
def test_eventlet_is_refused_at_the_start_with_what_to_use_instead(tmp_path: Path, made: str) -> None:
    """Where eventlet has replaced the threads, a guard and a client raise InvalidInput when they are made."""
    program = f"""
        import eventlet; eventlet.monkey_patch()
        from sojourn import SyncClient
        from sojourn.errors import InvalidInput
        from sojourn.web import TaskTokenWsgi

        try:
            {made}
        except InvalidInput as error:
            print(error)
    """
    assert "gthread" in run(program, tmp_path).stdout


def run(program: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
