"""The WSGI middleware: which path counts, and how content and certificates come through servers of several kinds."""

import io
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes import services
from fakes.ca import FakeCa
from fakes.guarded import AUDIENCE, Credentials, agent_at, token
from sojourn.limits import GUARDED_CONTENT_MAX_BYTES
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi
from sojourn.tasktoken import request_digest
from sojourn.tasktoken.sender_constraint import thumbprint_of

ACTIONS = {
    "GET /tickets/{ticket}": "ticket:read",
    "GET /tickets/{ticket}/delete": "ticket:delete",
    "POST /tickets/{ticket}": "ticket:read",
    "GET /a b/{ticket}": "ticket:read",
}


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("agent") / "agent.sock"
    with agent_at(path):
        yield path


@pytest.fixture(scope="module")
def app(socket: Path) -> Iterator[TaskTokenWsgi]:
    def inner(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        length = environ.get("CONTENT_LENGTH")
        content = environ["wsgi.input"].read(int(length) if length else -1)
        return [environ["sojourn.task"].actor.path.encode(), b" ", content]

    made = TaskTokenWsgi(inner, actions=ACTIONS, audience=AUDIENCE, socket=str(socket))
    yield made
    made.close()


def ask(app: Any, path: str, text: str | None = None, *, method: str = "GET", **more: Any) -> tuple[int, bytes]:
    """Status and body; names of the environment in lower case."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(more.pop("content", b"")),
    }
    if text is not None:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {text}"
    environ.update({name.upper() if "." not in name else name: value for name, value in more.items()})
    seen: list[str] = []
    body = b"".join(app(environ, lambda status, _: seen.append(status)))
    return int(seen[0][:3]), body


def all_actions() -> str:
    return token(actions=("ticket:read", "ticket:delete"), params={})


class TestPaths:
    @pytest.mark.parametrize("name", ["request_uri", "raw_uri"])
    def test_as_it_was_sent(self, app: TaskTokenWsgi, name: str) -> None:
        """Where a server tells the path as it was sent, that counts, with what the application reads in it."""
        assert 200 == ask(app, "/tickets/42", token(), **{name: "/tickets/42?x=1"})[0]
        assert 200 == ask(app, "/tickets/42", token(), **{name: "http://tickets.example.org/tickets/42"})[0]
        assert 200 == ask(app, "/tickets/4 2", token(params={"ticket": "4 2"}), **{name: "/tickets/4%202"})[0]

    @pytest.mark.parametrize("sent", ["/tickets/42%2Fdelete", "/tickets/42%2fdelete", "/tickets/42%252Fdelete"])
    def test_an_escaped_slash(self, app: TaskTokenWsgi, sent: str) -> None:
        """What is one segment as it was sent is never two for the application, whatever its token allows."""
        assert 400 == ask(app, "/tickets/42/delete", all_actions(), request_uri=sent)[0]

    def test_an_escaped_slash_behind_a_server_that_decodes(self, app: TaskTokenWsgi) -> None:
        """Where a server tells the decoded path alone the action is that which the application will do."""
        assert 403 == ask(app, "/tickets/42/delete", token())[0]
        assert 200 == ask(app, "/tickets/42/delete", all_actions())[0]

    @pytest.mark.parametrize("sent", ["/tickets/43", "/tickets/42/", "//tickets/42", "/tickets/x/../42", "*", ""])
    def test_two_paths(self, app: TaskTokenWsgi, sent: str) -> None:
        """A path that a server has rewritten is refused: which action it is depends on whom one asks."""
        expected = 200 if not sent else 400
        assert expected == ask(app, "/tickets/42", token(), request_uri=sent)[0]

    def test_below_a_mount(self, app: TaskTokenWsgi) -> None:
        """Routes have the whole path, with what an application is mounted at."""
        assert 200 == ask(app, "/42", token(), script_name="/tickets", request_uri="/tickets/42")[0]
        assert 403 == ask(app, "/tickets/42", token(), script_name="/app", request_uri="/app/tickets/42")[0]

    @pytest.mark.parametrize("header", ["http_script_name", "http_path_info"])
    def test_a_mount_that_the_client_names(self, app: TaskTokenWsgi, header: str) -> None:
        """A request that tells the server itself what its application is mounted at is refused: gunicorn believes it."""
        mounted = {"script_name": "/tickets", "request_uri": "/tickets/42", header: "/tickets"}
        assert 400 == ask(app, "/42", token(), **mounted)[0]

    def test_escaped_again(self, app: TaskTokenWsgi) -> None:
        """A decoded path is escaped as clients escape it, so that routes with spaces and tickets with any letter match."""
        assert 200 == ask(app, "/a b/42", token())[0]
        path = "/tickets/ü".encode().decode("latin-1")
        assert 200 == ask(app, path, token(params={"ticket": "ü"}))[0]


class TestContent:
    TARGET = "/tickets/42"

    def one(self, content: bytes) -> str:
        return token(digest=request_digest.of_http("POST", self.TARGET, content))

    def test_is_there_for_the_application(self, app: TaskTokenWsgi) -> None:
        """What was read to be judged is read again by the application."""
        given = ask(app, self.TARGET, self.one(b"abc"), method="POST", content=b"abc", content_length="3")
        assert (200, b"/agent/triage abc") == given

    def test_in_chunks(self, app: TaskTokenWsgi) -> None:
        """Content without a length is read to its end, where the server says where that is; else it is refused."""
        more: dict[str, Any] = {"method": "POST", "content": b"abc", "http_transfer_encoding": "chunked"}
        assert 200 == ask(app, self.TARGET, self.one(b"abc"), **more, **{"wsgi.input_terminated": True})[0]
        assert 400 == ask(app, self.TARGET, self.one(b"abc"), **more)[0]

    @pytest.mark.parametrize("length", ["-1", "3 ", "x", "0x3", "٣"])
    def test_a_length_that_is_none(self, app: TaskTokenWsgi, length: str) -> None:
        """A length that is no number is refused."""
        assert 400 == ask(app, self.TARGET, self.one(b"abc"), method="POST", content_length=length)[0]

    def test_cut_short(self, app: TaskTokenWsgi) -> None:
        """Content that ends before its length is refused."""
        assert 400 == ask(app, self.TARGET, self.one(b"abc"), method="POST", content=b"ab", content_length="3")[0]

    def test_that_a_server_cannot_read(self, app: TaskTokenWsgi) -> None:
        """Content of which a server raises what is its own, as of a chunk without a size, is the client's fault."""

        class Broken(io.BytesIO):
            def read(self, *_: Any) -> bytes:
                raise RuntimeError("a chunk has no size")

        more: dict[str, Any] = {"wsgi.input_terminated": True, "wsgi.input": Broken()}
        assert 400 == ask(app, self.TARGET, self.one(b"abc"), method="POST", **more)[0]

    def test_of_a_refused_head(self, app: TaskTokenWsgi) -> None:
        """A refused HEAD has the headers of the refusal, and no content."""
        assert (401, b"") == ask(app, self.TARGET, method="HEAD")

    @pytest.mark.parametrize("told", [True, False])
    def test_too_large(self, app: TaskTokenWsgi, told: bool) -> None:
        """Content over the limit is refused, by its length or when it has come."""
        content = b"x" * (GUARDED_CONTENT_MAX_BYTES + 1)
        more = {"content_length": str(len(content))} if told else {"wsgi.input_terminated": True}
        assert 413 == ask(app, self.TARGET, self.one(content), method="POST", content=content, **more)[0]

    def test_not_read_for_nothing(self, app: TaskTokenWsgi) -> None:
        """For a token that is for more than one request the content is the application's alone."""

        class Untouched(io.BytesIO):
            read_by: threading.Thread | None = None

            def read(self, size: int | None = -1, /) -> bytes:
                self.read_by = threading.current_thread()
                return super().read(size)

        stream = Untouched(b"abc")
        ask(app, self.TARGET, token(), method="POST", content_length="3", **{"wsgi.input": stream})
        assert threading.current_thread() is stream.read_by

    def test_read_by_its_own_thread(self, app: TaskTokenWsgi) -> None:
        """Content is read by the thread that serves the request: a slow client keeps no other's waiting."""
        waits, comes = threading.Event(), threading.Event()

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                waits.set()
                assert comes.wait(20)
                return super().read(size)

        more: dict[str, Any] = {"method": "POST", "content_length": "3", "wsgi.input": Slow(b"abc")}
        found: list[tuple[int, bytes]] = []
        slow = threading.Thread(target=lambda: found.append(ask(app, self.TARGET, self.one(b"abc"), **more)))
        slow.start()
        try:
            assert waits.wait(20)
            assert 200 == ask(app, self.TARGET, token())[0]
        finally:
            comes.set()
            slow.join()
        assert [200] == [status for status, _ in found]


def test_a_certificate(app: TaskTokenWsgi, ca: FakeCa) -> None:
    """A token that is bound to a certificate is good with that, where the server tells it, and with no header."""
    der = ca.svid("/agent/triage").chain[0].public_bytes(Encoding.DER)
    text = token(x5t=thumbprint_of(der))
    leaf = ssl.DER_cert_to_PEM_cert(der)
    assert 200 == ask(app, "/tickets/42", text, ssl_client_cert=leaf)[0]
    assert 401 == ask(app, "/tickets/42", text)[0]
    assert 401 == ask(app, "/tickets/42", text, http_ssl_client_cert=leaf, http_x_ssl_client_cert=leaf)[0]


FORKS = """
import io, os, sys
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi

def inner(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

socket, audience, good, bad = sys.argv[1:]
app = TaskTokenWsgi(inner, actions={"GET /tickets/{ticket}": "ticket:read"}, audience=audience, socket=socket)

def ask(token):
    seen = []
    app({"REQUEST_METHOD": "GET", "PATH_INFO": "/tickets/42", "HTTP_AUTHORIZATION": f"Bearer {token}"},
        lambda status, headers: seen.append(status[:3]))
    return seen[0]

workers = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        os._exit(0 if ("200", "401") == (ask(good), ask(bad)) else 1)
    workers.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in workers))
"""


def test_forked_workers(socket: Path) -> None:
    """Workers that a server forks from the process that made the application have a guard each."""
    arguments = [str(socket), AUDIENCE, token(), token(task="gone")]
    done = subprocess.run([sys.executable, "-c", FORKS, *arguments], timeout=60, check=False, capture_output=True)
    assert (0, b"") == (done.returncode, done.stderr)


def test_no_agent(tmp_path: Path) -> None:
    """Without an agent nothing is let through: no token can be judged now, and who has none is refused."""
    app = TaskTokenWsgi(lambda *_: [b"x"], actions=ACTIONS, audience=AUDIENCE, socket=str(tmp_path / "none"))
    try:
        assert 503 == ask(app, "/tickets/42", token())[0]
        assert 401 == ask(app, "/tickets/42")[0]
    finally:
        app.close()


def test_metadata(app: TaskTokenWsgi) -> None:
    """What RFC 9728 asks for is there without a token."""
    status, body = ask(app, "/.well-known/oauth-protected-resource")
    assert 200 == status
    assert b'"resource": "https://tickets.example.org"' in body


def test_over_the_wire(socket: Path) -> None:
    """On a real server, duplicated headers are seen for what they are, and a query is part of the one request."""
    with services.wsgi_service(socket) as service:
        text = token(digest=request_digest.of_http("POST", "/tickets/42?a=1&a=%32", b"hello"))
        assert 200 == service.ask("POST", "/tickets/42?a=1&a=%32", Credentials.bearer(text)).status
        assert 403 == service.ask("POST", "/tickets/42?a=1&a=2", Credentials.bearer(text)).status


def test_public(socket: Path) -> None:
    """A public route is served without a token, and without a token of an outer guard; its neighbours are not."""

    def inner(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [str("sojourn.task" in environ).encode()]

    app = TaskTokenWsgi(inner, actions=ACTIONS, audience=AUDIENCE, socket=str(socket), public=["GET /health"])
    try:
        assert (200, b"False") == ask(app, "/health", **{"sojourn.task": "another's"})
        assert 401 == ask(app, "/tickets/42")[0]
        assert 401 == ask(app, "/health", method="POST")[0]
    finally:
        app.close()


def test_absent_agent_is_told_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A guard that is given a socket that is not there says so in the log when it is made, with the path."""
    nowhere = str(tmp_path / "none")
    TaskTokenWsgi(lambda *_: [b"x"], actions=ACTIONS, audience=AUDIENCE, socket=nowhere).close()
    told = [each for each in caplog.records if each.name == "sojourn.guard"]
    assert ["WARNING"] == [each.levelname for each in told]
    assert nowhere in told[0].getMessage()
