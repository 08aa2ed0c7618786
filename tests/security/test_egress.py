"""Attacks on the egress proxy, by the command behind it and by others on the machine."""

import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness.agent import COMMAND
from harness.looking import until
from harness.taskagent import STRANGER_UID
from harness.ticketshop import Shop, ticket_shop
from sojourn import SyncClient
from sojourn.limits import PROXY_CONNECTIONS, PROXY_HEAD_MAX_BYTES
from sojourn.sdk.egress import http1
from sojourn.sdk.egress.proxy import Egress

pytestmark = pytest.mark.full

SECONDS = 20.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with ticket_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(shop: Shop) -> Iterator[Egress]:
    with (
        SyncClient(shop.agent.socket) as client,
        client.task("read-tickets") as task,
        task.proxy(ca_file=str(shop.tls.ca)) as running,
    ):
        # What the service's guard asks of the first request is done with.
        get(running, shop, b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\n\r\n" % host(shop))
        yield running


def host(shop: Shop) -> bytes:
    return urlsplit(shop.url).netloc.encode()


def authorization(proxy: Egress) -> bytes:
    url = urlsplit(proxy.url)
    return b"Proxy-Authorization: Basic " + base64.b64encode(f"{url.username}:{url.password}".encode()) + b"\r\n"


def dial(proxy: Egress) -> socket.socket:
    url = urlsplit(proxy.url)
    return socket.create_connection((url.hostname, url.port), timeout=SECONDS)


def tunnel(proxy: Egress, shop: Shop) -> ssl.SSLSocket:
    """TLS through the proxy, as its command would have it."""
    raw = dial(proxy)
    raw.sendall(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (host(shop), host(shop), authorization(proxy)))
    assert raw.recv(4096).startswith(b"HTTP/1.1 200")
    return ssl.create_default_context(cafile=proxy.ca_file).wrap_socket(raw, server_hostname="localhost")


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while True:
        try:
            part = connection.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def get(proxy: Egress, shop: Shop, request: bytes) -> bytes:
    """Everything that is answered inside of a tunnel to these bytes; the last request must end the connection."""
    with tunnel(proxy, shop) as connection:
        connection.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return read_all(connection)


def plain(proxy: Egress, request: bytes) -> bytes:
    with dial(proxy) as connection:
        connection.sendall(request)
        return read_all(connection)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


class TestOthers:
    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"Proxy-Authorization: Basic dGFzazpndWVzcw==\r\n",
            b"Proxy-Authorization: Basic \r\n",
            b"Proxy-Authorization: Bearer x\r\n",
            b"Authorization: Basic dGFzazpndWVzcw==\r\n",
        ],
    )
    def test_without_the_secret(self, shop: Shop, proxy: Egress, header: bytes) -> None:
        """Whoever does not know the secret of the run is told 407, of every URL alike, and nothing is sent."""
        before = len(shop.seen)
        answers = {
            plain(proxy, b"%s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (line, header)).partition(b"\r\n\r\n")[2]
            for line in (b"CONNECT " + host(shop), b"CONNECT evil.example:443", b"GET http://evil.example/")
        }
        assert 1 == len(answers)
        assert "proxy_authentication_required" == json.loads(answers.pop())["error"]
        assert before == len(shop.seen)

    def test_the_secret_twice(self, proxy: Egress) -> None:
        """A request with the proxy's secret in two headers has none."""
        twice = authorization(proxy) + b"Proxy-Authorization: Basic x\r\n"
        assert 407 == status(plain(proxy, b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n%s\r\n" % twice))

    def test_only_on_loopback(self, proxy: Egress) -> None:
        """The proxy listens on the loopback address, and on no other."""
        port = f"{urlsplit(proxy.url).port:04X}"
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
        assert [f"0100007F:{port}"] == [each for each in listening if each.endswith(f":{port}")]

    @pytest.mark.root
    def test_another_user_learns_nothing(self, shop: Shop) -> None:
        """Another user can read neither the command's environment, where the secret is, nor the certificate's folder."""
        code = "import os, time; print(os.getpid(), os.environ['SSL_CERT_FILE'], flush=True); time.sleep(60)"
        arguments = ["task", "run", "--type", "read-tickets", "--proxy", "--", sys.executable, "-c", code]
        running = subprocess.Popen(
            [*COMMAND, *arguments], env=shop.agent.environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert running.stdout is not None
            pid, file = running.stdout.readline().split()
            assert b"HTTPS_PROXY=http://task:" in Path(f"/proc/{pid}/environ").read_bytes()
            for path in (f"/proc/{pid}/environ", file):
                become = ["setpriv", f"--reuid={STRANGER_UID}", "--clear-groups"]
                done = subprocess.run([*become, "cat", path], capture_output=True, text=True)
                assert 0 != done.returncode
                assert "ermission denied" in done.stderr
            lines = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{running.pid}/cmdline").read_bytes()
            assert b"task:" not in lines
        finally:
            running.terminate()
            running.wait(timeout=20)
            running.stdout.close()


class TestElsewhere:
    @pytest.mark.parametrize(
        "target",
        [
            "localhost.evil.example:{port}",
            "localhost:{port}.evil.example:443",
            "LOCALHOST:{port}",
            "localhost.:{port}",
            "127.0.0.1:{port}",
            "[::1]:{port}",
            "2130706433:{port}",
            "localhost:0{port}",
            "localhost:443",
            "localhost",
            "user@localhost:{port}",
            "localhost:{port}@evil.example:443",
            "https://localhost:{port}",
            "localhost:{port}/v1",
            "169.254.169.254:80",
            "*",
        ],
    )
    def test_look_alikes(self, shop: Shop, proxy: Egress, target: str) -> None:
        """A tunnel is opened to what the task has, as it is written there, and to nothing that is like it."""
        before = len(shop.seen)
        line = target.format(port=shop.port).encode()
        answer = plain(proxy, b"CONNECT %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (line, authorization(proxy)))
        assert 403 == status(answer)
        said = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert ("outside_task", f"https://{line.decode()}") == (said["error"], said["resource"])
        assert before == len(shop.seen)

    def test_no_name_is_looked_up(self, shop: Shop, proxy: Egress, tmp_path: Path) -> None:
        """A name that the task does not have is refused, also if it is this very machine's, and without asking for it."""
        with socket.create_server(("127.0.0.1", 0)) as inside:
            port = inside.getsockname()[1]
            for name in (b"localhost", b"127.0.0.1", socket.gethostname().encode()):
                url = b"http://%s:%d/" % (name, port)
                answer = plain(proxy, b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (url, authorization(proxy)))
                assert 403 == status(answer)
            inside.settimeout(0.2)
            with pytest.raises(TimeoutError):
                inside.accept()

    @pytest.mark.parametrize(
        "path",
        [
            *("/", "/v1x/tickets/1", "/V1/tickets/1", "/v1/../admin", "/v1/%2e%2e/admin", "/v1/..%2fadmin"),
            *("/v1/..;/admin", "/%76%31/tickets/1", "//v1/tickets/1", "/v1\\..\\admin", "*"),
            "http://localhost/v1/tickets/1",
        ],
    )
    def test_paths(self, shop: Shop, proxy: Egress, path: str) -> None:
        """Inside of a tunnel too, only what lies below the resource's path is sent on."""
        before = len(shop.seen)
        answer = get(proxy, shop, b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (path.encode(), host(shop)))
        assert status(answer) in {400, 403, 421}
        assert before == len(shop.seen)

    @pytest.mark.parametrize("name", [b"evil.example", b"localhost", b"localhost:1", b"LOCALHOST", b""])
    def test_another_host(self, shop: Shop, proxy: Egress, name: bytes) -> None:
        """Inside of a tunnel the Host is that of the tunnel."""
        before = len(shop.seen)
        answer = get(proxy, shop, b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\n\r\n" % name)
        assert 421 == status(answer)
        assert before == len(shop.seen)


SMUGGLED = b"GET /v1/tickets/666 HTTP/1.1\r\nHost: %s\r\n\r\n"


class TestSmuggling:
    @pytest.mark.parametrize(
        "headers",
        [
            b"Content-Length: 0\r\nContent-Length: 5\r\n",
            b"Content-Length: 0, 5\r\n",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"Transfer-Encoding: \x0bchunked\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 0x5\r\n",
            b"Content-Length : 5\r\n",
            b" Content-Length: 5\r\n",
            b"X: a\rContent-Length: 5\r\n",
            b"X: a\x00b\r\n",
        ],
    )
    def test_lengths(self, shop: Shop, proxy: Egress, headers: bytes) -> None:
        """A request whose length can be read in two ways is refused, and the connection ended: nothing is sent."""
        before = len(shop.seen)
        head = b"POST /v1/tickets/1/notes HTTP/1.1\r\nHost: %s\r\n" % host(shop)
        with tunnel(proxy, shop) as connection:
            connection.sendall(head + headers + b"\r\n" + b"0\r\n\r\n" + SMUGGLED % host(shop))
            answer = read_all(connection)
        assert status(answer) in {400, 421, 501}
        assert 1 == answer.count(b"\r\n\r\n")
        assert before == len(shop.seen)

    def test_framing_is_ours(self, shop: Shop, proxy: Egress) -> None:
        """A Connection header that names the length does not take the length away: the content is content to the service
        too, whatever it looks like.
        """
        content = SMUGGLED % host(shop)
        before = len(shop.seen)
        answer = get(
            proxy,
            shop,
            b"POST /v1/tickets/1/notes HTTP/1.1\r\nHost: %s\r\nX: y\r\nContent-Length: %d\r\n\r\n%s"
            % (host(shop), len(content), content),
        )
        with tunnel(proxy, shop) as connection:
            connection.sendall(
                b"POST /v1/tickets/1/notes HTTP/1.1\r\nHost: %s\r\nConnection: content-length, host, close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (host(shop), len(content), content)
            )
            second = read_all(connection)
        for each in (answer, second):
            assert 200 == status(each)
            assert len(content) == json.loads(each.partition(b"\r\n\r\n")[2])["size"]
        assert before + 2 == len(shop.seen)

    @pytest.mark.parametrize("length", [b"99999999999999999999999", b"1000"])
    def test_content_that_does_not_come(self, shop: Shop, proxy: Egress, length: bytes) -> None:
        """Of a request whose content is never sent whole, nothing reaches the service."""
        before = len(shop.seen)
        with tunnel(proxy, shop) as connection:
            head = b"POST /v1/tickets/1/notes HTTP/1.1\r\nHost: %s\r\nContent-Length: %s\r\n\r\n"
            connection.sendall(head % (host(shop), length) + SMUGGLED % host(shop))
        get(proxy, shop, b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\n\r\n" % host(shop))
        assert before + 1 == len(shop.seen)

    def test_headers_of_one_connection(self, shop: Shop, proxy: Egress) -> None:
        """What is of one connection alone, and the secret of the run, go no further; so does what asks to be trusted."""
        with tunnel(proxy, shop) as connection:
            connection.sendall(
                b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-Kept: 1\r\n"
                b"Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: websocket\r\nProxy-Connection: x\r\n%s"
                b"Authorization: Bearer mine\r\nDPoP: mine\r\nauthorization: Bearer other\r\n\r\n"
                % (host(shop), authorization(proxy))
            )
            note = json.loads(read_all(connection).partition(b"\r\n\r\n")[2])
        hop = {"x-hop", "keep-alive", "te", "upgrade", "proxy-connection", "proxy-authorization", "transfer-encoding"}
        assert set() == hop & set(note["headers"])
        assert "x-kept" in note["headers"]
        assert (1, 1) == (note["headers"].count("authorization"), note["headers"].count("dpop"))

    @pytest.mark.parametrize("text", [b"a\r\nAuthorization: Bearer mine", b"a\nX: y", b"a\rX: y"])
    def test_injected_headers(self, shop: Shop, proxy: Egress, text: bytes) -> None:
        """A header in which another one hides is two, and the one is ours, or it is none."""
        before = len(shop.seen)
        get(proxy, shop, b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\nX-Text: %s\r\n\r\n" % (host(shop), text))
        for headers in shop.seen[before:]:
            assert "mine" not in " ".join(value for _, value in headers)
            assert 1 == sum(name == "authorization" for name, _ in headers)

    def test_injected_action(self, shop: Shop, proxy: Egress) -> None:
        """What the command says of its action is looked for among the task's, and goes nowhere else."""
        before = len(shop.seen)
        line = b'Sojourn-Action: ticket:read", "ticket:delete\r\n'
        answer = get(proxy, shop, b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (host(shop), line))
        assert 403 == status(answer)
        assert before == len(shop.seen)

    @pytest.mark.parametrize("method", [b"TRACE", b"trace", b"TRACK", b"CONNECT"])
    def test_a_request_that_is_answered_with_itself(self, shop: Shop, proxy: Egress, method: bytes) -> None:
        """A method by which a service hands a request back, token and all, is not sent."""
        before = len(shop.seen)
        answer = get(proxy, shop, b"%s /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\n\r\n" % (method, host(shop)))
        assert status(answer) in {400, 403}
        assert before == len(shop.seen)

    def test_bytes_before_the_tunnel(self, shop: Shop, proxy: Egress) -> None:
        """What is sent before the tunnel is open, in clear, is not taken for what comes out of it."""
        before = len(shop.seen)
        early = SMUGGLED % host(shop)
        with dial(proxy) as connection:
            connection.sendall(
                b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s" % (host(shop), host(shop), authorization(proxy), early)
            )
            assert 400 == status(read_all(connection))
        assert before == len(shop.seen)

    def test_pipelined(self, shop: Shop, proxy: Egress) -> None:
        """Requests that are sent ahead are answered one after the other, each with its own."""
        one = b"GET /v1/tickets/%d HTTP/1.1\r\nHost: %s\r\n\r\n"
        with tunnel(proxy, shop) as connection:
            connection.sendall(b"".join(one % (number, host(shop)) for number in range(1, 4)))
            answers = b""
            while answers.count(b'"target"') < 3:
                part = connection.recv(65536)
                assert part
                answers += part
        assert [b"/v1/tickets/1", b"/v1/tickets/2", b"/v1/tickets/3"] == [
            each.partition(b'"target": "')[2].partition(b'"')[0] for each in answers.split(b"HTTP/1.1 200 OK")[1:]
        ]


class TestExhaustion:
    def test_large_head(self, shop: Shop, proxy: Egress) -> None:
        """A head that does not end is refused at its limit."""
        before = len(shop.seen)
        head = b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\nX: " % host(shop)
        with tunnel(proxy, shop) as connection:
            connection.sendall(head + b"x" * (PROXY_HEAD_MAX_BYTES + 65536))
            assert status(read_all(connection)) in {400, 431}
        assert before == len(shop.seen)

    def test_slow_head(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A head that comes by drops is waited for only so long, and meanwhile others are served."""
        monkeypatch.setattr(http1, "PROXY_HEAD_SECONDS", 1.0)
        with (
            SyncClient(shop.agent.socket) as client,
            client.task("read-tickets") as task,
            task.proxy(ca_file=str(shop.tls.ca)) as running,
            dial(running) as connection,
        ):
            began = time.monotonic()
            connection.sendall(b"GET http://")
            get(running, shop, b"GET /v1/tickets/1 HTTP/1.1\r\nHost: %s\r\n\r\n" % host(shop))
            assert b"" == read_all(connection)
            assert time.monotonic() - began < SECONDS

    def test_many_connections(self, shop: Shop) -> None:
        """Connections beyond the limit are closed; when the others go there is room again."""
        with (
            SyncClient(shop.agent.socket) as client,
            client.task("read-tickets") as task,
            task.proxy(ca_file=str(shop.tls.ca)) as running,
        ):
            held = [opened(running, shop) for _ in range(PROXY_CONNECTIONS)]
            try:
                with pytest.raises(ConnectionError):
                    opened(running, shop)
            finally:
                for each in held:
                    each.close()
            until(lambda: is_served(running, shop), "there is room again")

    def test_many_connections_of_others(self, shop: Shop) -> None:
        """Who does not know the secret takes no connection from the command, however many he holds."""
        with (
            SyncClient(shop.agent.socket) as client,
            client.task("read-tickets") as task,
            task.proxy(ca_file=str(shop.tls.ca)) as running,
        ):
            held = [dial(running) for _ in range(PROXY_CONNECTIONS + 20)]
            try:
                for each in held:
                    with contextlib.suppress(ConnectionError):
                        each.sendall(b"GET http://")
                assert is_served(running, shop)
                assert is_served(running, shop)
            finally:
                for each in held:
                    each.close()

    def test_reader_that_does_not_read(self, shop: Shop, proxy: Egress) -> None:
        """An answer that nobody reads is not taken into memory: the service is held back."""
        with tunnel(proxy, shop) as connection:
            connection.sendall(b"GET /v1/big?parts=3000 HTTP/1.1\r\nHost: %s\r\n\r\n" % host(shop))
            connection.recv(1024)
            before = memory()
            time.sleep(2)
            assert memory() - before < 64 * 1024 * 1024  # of 190 MiB

    def test_gone(self, shop: Shop, proxy: Egress) -> None:
        """A command that goes away while its answer is under way leaves nothing open at the service."""
        with tunnel(proxy, shop) as connection:
            connection.sendall(b"GET /v1/big?parts=3000&pause=0.2 HTTP/1.1\r\nHost: %s\r\n\r\n" % host(shop))
            connection.recv(1024)
            during = open_to(shop)
        until(lambda: open_to(shop) < during, "the answer is given up")


def opened(proxy: Egress, shop: Shop) -> socket.socket:
    """A tunnel, in which nothing is said yet. Raise ConnectionError if there is no room for it."""
    raw = dial(proxy)
    raw.sendall(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (host(shop), host(shop), authorization(proxy)))
    if not raw.recv(4096).startswith(b"HTTP/1.1 200"):
        raw.close()
        raise ConnectionError("the proxy has closed the connection")
    return raw


def is_served(proxy: Egress, shop: Shop) -> bool:
    try:
        opened(proxy, shop).close()
    except ConnectionError:
        return False
    return True


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_to(shop: Shop) -> int:
    """Connections of this process to the service."""
    port = f":{shop.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[2].endswith(port) and fields[3] == "01" for fields in lines)
