"""The bench's HTTP load client: it does all steps of a call, counts what was refused apart, and says why it gave up."""

import http.server
import json
import threading
from urllib.parse import parse_qs

import pytest
from beside import Subject
from httpload import Step, Work, http_load

pytestmark = pytest.mark.go
SUBJECT = Subject("X", {})


class Service(http.server.BaseHTTPRequestHandler):
    """/first gives a token, /second takes it; /refuse does not."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append((self.path, form))
        refused = self.path == "/refuse" or (self.path == "/second" and form["token"] != ["abc"])
        content = json.dumps({"error": "no"} if refused else {"access_token": "abc"}, separators=(",", ":")).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def work(service, *steps, before=()):
    return {"X": Work(f"http://127.0.0.1:{service.server_address[1]}", steps, before)}


FIRST = Step.form("/first", {"a": "1"})
SECOND = Step.form("/second", {"token": "{token}"})


@pytest.mark.forked
def test_steps(service):
    """Each call does its steps in turn, with the token of the one before; connections are kept from turn to turn."""
    with http_load(work(service, FIRST, SECOND), 2) as load:
        runs = [load(SUBJECT, 0.2), load(SUBJECT, 0.2)]
    assert all(run.calls and not run.failed for run in runs)
    assert all(0 < run.p50_ms <= run.p99_ms for run in runs)
    assert sum(2 * run.calls for run in runs) == len(service.asked)


def test_before(service):
    """What comes before is done once, and its token is that of all calls."""
    with http_load(work(service, SECOND, before=[FIRST]), 2) as load:
        run = load(SUBJECT, 0.2)
    assert 1 == sum(path == "/first" for path, _ in service.asked)
    assert (run.calls, {}) == (len(service.asked) - 1, run.failed)


def test_refused(service):
    """What is refused is no call that was answered: it is counted by what was said."""
    with http_load(work(service, Step.form("/refuse", {})), 1) as load:
        run = load(SUBJECT, 0.1)
    assert 0 == run.calls
    assert ['400 {"error":"no"}'] == list(run.failed)
    assert len(service.asked) == sum(run.failed.values())


def test_nobody_answers(tmp_path):
    """A load that cannot begin is no figure."""
    works = {"X": Work("http://localhost", [FIRST], socket=str(tmp_path / "no.sock"))}
    with http_load(works, 1) as load, pytest.raises(RuntimeError, match="no such file"):
        load(SUBJECT, 0.1)
