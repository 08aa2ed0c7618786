"""The listener for outside parties, to those who mean it no good: nothing else is there, and others are served."""

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from harness.agent import AgentProcess
from harness.looking import until
from harness.taskagent import inner_failures
from harness.trusting import BUNDLE, DISCOVERY, KEYS, trust_agent, visitor
from harness.webclients import context
from sojourn.limits import (
    HTTP_REQUEST_SECONDS,
    TRUST_CONNECTIONS,
    TRUST_CONNECTIONS_PER_ADDRESS,
    TRUST_REQUESTS_PER_SECOND,
)

pytestmark = pytest.mark.full

ELSEWHERE = "127.0.0.2"
PATHS = (DISCOVERY, KEYS, BUNDLE)


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with trust_agent() as running:
        yield running
        assert [] == inner_failures(running)
        assert not [line for line in running.log_lines() if line["event"] in {"remote_handshake_failed"}]


@contextlib.contextmanager
def connected(agent: AgentProcess, source: str = "127.0.0.1", seconds: float = 15) -> Iterator[ssl.SSLSocket]:
    host, port = agent.trust.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=seconds, source_address=(source, 0)) as plain,
        context(None).wrap_socket(plain) as wrapped,
    ):
        yield wrapped


def said(agent: AgentProcess, request: bytes) -> bytes:
    """All that comes back for raw bytes, until the agent closes or has said what it says."""
    with connected(agent) as wrapped:
        wrapped.sendall(request)
        heard = b""
        with contextlib.suppress(OSError):
            while block := wrapped.recv(65_536):
                heard += block
    return heard


def statuses(heard: bytes) -> list[int]:
    return [int(part.split(b" ", 1)[0]) for part in heard.split(b"HTTP/1.1 ")[1:]]


def served(agent: AgentProcess, source: str = ELSEWHERE) -> bool:
    """Whether a visitor from elsewhere gets a document."""
    with visitor(agent, source) as client:
        return 200 == client.get(KEYS).status_code


def tolerant(agent: AgentProcess, source: str) -> bool:
    try:
        return served(agent, source)
    except httpx.TransportError:
        return False


class TestNothingElse:
    @pytest.mark.parametrize(
        "target",
        ["/token", "/introspect", "/revoke", "/status/1", "/.well-known/oauth-authorization-server", "/events", "/",
         "*", "/keys/", "//keys", "/./keys", "/../keys", "/x/../keys", "/%6beys", "/keys%2f", "/keys%00", "/keys;a",
         "/KEYS", "/bundle.json", "/bundle/..", "/metrics", "/sojourn.v1.Tasks/BeginTask", "/keys\t", "/keys#x"],
    )  # fmt: skip
    @pytest.mark.parametrize("method", ["GET", "POST", "CONNECT"])
    def test_paths(self, agent: AgentProcess, target: str, method: str) -> None:
        """No spelling of a path leads anywhere: it is not found, or no request at all."""
        request = f"{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        found = statuses(said(agent, request.encode()))
        ordinary = target == "/keys#x" and method == "GET"  # a fragment, which is not a part of what is asked for
        assert set(found) <= ({200, 400} if ordinary else {400, 404, 405})

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
    @pytest.mark.parametrize("path", PATHS)
    def test_methods(self, agent: AgentProcess, path: str, method: str) -> None:
        """Documents are read, and nothing else is done with them."""
        with visitor(agent) as client:
            answer = client.request(method, path)
        assert (405, "GET, HEAD", b"") == (answer.status_code, answer.headers["allow"], answer.content)

    @pytest.mark.parametrize(
        "header",
        ["x-original-url: /token", "x-rewrite-url: /token", "x-http-method-override: DELETE", "x-forwarded-host: evil",
         "forwarded: host=evil", "range: bytes=0-3", "accept-encoding: gzip", "if-none-match: " + "a," * 2000],
    )  # fmt: skip
    def test_headers(self, agent: AgentProcess, header: str) -> None:
        """No header changes what is answered: whoever keeps the answer for others keeps the right one."""
        plain, changed = (
            said(agent, f"GET {DISCOVERY} HTTP/1.1\r\nhost: x\r\n{more}connection: close\r\n\r\n".encode())
            for more in ("", header + "\r\n")
        )
        assert ([200], plain) == (statuses(changed), changed)

    @pytest.mark.parametrize(
        "request_",
        [
            "POST /keys HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /token",
            "GET /keys HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nGET / ",
            "GET /keys HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n",
        ],
    )
    def test_smuggling(self, agent: AgentProcess, request_: str) -> None:
        """A request of which two readers could make two things is refused, or answered once, and ends there."""
        found = statuses(said(agent, request_.encode()))
        assert len(found) <= 2
        assert set(found) <= {400, 404, 405}, found

    def test_no_http2(self, agent: AgentProcess) -> None:
        """HTTP/2, and so gRPC, is not spoken."""
        assert b"HTTP/2" not in said(agent, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert served(agent)

    def test_no_certificate_is_asked_for(self, agent: AgentProcess) -> None:
        """Whoever comes is asked for no certificate, and if one is shown it counts for nothing."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", agent.trust],
            input="", capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert "No client certificate CA names sent" in done.stdout
        assert "Client Certificate Types" not in done.stdout

    @pytest.mark.parametrize(
        ("flags", "agreed"),
        [
            (["-tls1_3"], True),
            (["-tls1_2"], True),
            (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], True),
            (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], False),
            (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"], False),
            (["-tls1_2", "-cipher", "AES128-GCM-SHA256:AES128-SHA:@SECLEVEL=0"], False),
            (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], False),
        ],
    )
    def test_tls(self, agent: AgentProcess, flags: list[str], agreed: bool) -> None:
        """TLS is 1.2 or 1.3, with forward secrecy and authenticated encryption, however Python was built."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", agent.trust, *flags],
            input="", capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert agreed == ("Cipher is (NONE)" not in done.stdout and "Cipher is " in done.stdout), done.stdout

    def test_what_is_told_is_public(self, agent: AgentProcess) -> None:
        """No document has a private member of a key."""
        with visitor(agent) as client:
            for path in PATHS:
                keys = client.get(path).json().get("keys", [])
                assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & {name for key in keys for name in key}


class TestOthersAreServed:
    def test_connections_of_one_address(self, agent: AgentProcess) -> None:
        """One address takes its share of the places, and no more; others find theirs."""
        with contextlib.ExitStack() as stack:
            refused = 0
            for _ in range(TRUST_CONNECTIONS_PER_ADDRESS + 20):
                try:
                    stack.enter_context(connected(agent))
                except OSError:
                    refused += 1
                time.sleep(0.03)  # not so often that they are refused for that
            assert served(agent)
            (listener,) = agent.json("status")["listeners"]
            assert listener["connections"] <= TRUST_CONNECTIONS_PER_ADDRESS
        until(lambda: agent.json("status")["listeners"][0]["connections"] == 0, "all have gone")

    def test_new_connections_of_one_address(self, agent: AgentProcess) -> None:
        """Who connects again and again keeps others from nothing, and is served again when it has come to rest."""
        host, port = agent.trust.rsplit(":", 1)

        for _ in range(300):
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host, int(port)), source_address=("127.0.0.3", 0)),
            ):
                pass
        assert served(agent)
        until(lambda: tolerant(agent, "127.0.0.3"), "it is served again")

    def test_requests_of_one_address(self, agent: AgentProcess) -> None:
        """Who asks without end is told to come back; others are answered meanwhile."""
        with visitor(agent, "127.0.0.4") as busy:
            found = [busy.get(KEYS).status_code for _ in range(3 * TRUST_REQUESTS_PER_SECOND)]
            assert {200} <= set(found) <= {200, 429}
            assert served(agent)

    def test_slow_requests(self, agent: AgentProcess) -> None:
        """Who sends a byte now and then is cut off in time, a hundred of them too; others are served meanwhile."""
        with contextlib.ExitStack() as stack:
            slow = []
            for number in range(40):
                slow.append(stack.enter_context(connected(agent, f"127.0.1.{number + 1}")))
                slow[-1].settimeout(0.05)
                slow[-1].sendall(b"GET /keys HTTP/1.1\r\nhost: x\r\nx: ")
            ends = time.monotonic() + 3 * HTTP_REQUEST_SECONDS
            while slow and time.monotonic() < ends:
                assert served(agent)
                for each in list(slow):
                    try:
                        each.sendall(b"a")
                        if each.recv(1) == b"":
                            slow.remove(each)
                    except TimeoutError:
                        continue
                    except OSError:
                        slow.remove(each)
            assert [] == slow

    def test_few_addresses(self, agent: AgentProcess) -> None:
        """Twelve addresses that hold all places with requests which never come whole keep no visitor out, from wherever."""
        with contextlib.ExitStack() as stack:
            for number in range(1, 13):
                for _ in range(TRUST_CONNECTIONS_PER_ADDRESS):
                    try:
                        slow = stack.enter_context(connected(agent, f"127.0.3.{number}"))
                        slow.sendall(b"GET /keys HTTP/1.1\r\nhost: x\r\nx: ")
                    except OSError:
                        continue  # others of them have made room for it, or it was one of too many
                if number >= 10:
                    assert served(agent, "127.0.9.9")
                    assert served(agent, f"127.0.3.{number + 100}")
            (listener,) = agent.json("status")["listeners"]
            assert listener["connections"] <= TRUST_CONNECTIONS
        until(lambda: agent.json("status")["listeners"][0]["connections"] == 0, "all have gone")

    def test_who_does_not_read(self, agent: AgentProcess) -> None:
        """Who sends requests and reads no answer takes no memory and keeps nobody waiting."""
        with connected(agent, "127.0.0.5") as deaf:
            deaf.settimeout(2)
            with contextlib.suppress(OSError):
                for _ in range(2000):
                    deaf.sendall(b"GET /bundle HTTP/1.1\r\nhost: x\r\n\r\n" * 8)
            assert served(agent)

    def test_large_requests(self, agent: AgentProcess) -> None:
        """A head or a content without end is cut off."""
        for begin, more in (
            (b"GET /keys HTTP/1.1\r\n", b"x-header: " + b"y" * 1000 + b"\r\n"),
            (b"GET /keys HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n", b"z" * 1000),
        ):
            with connected(agent, "127.0.0.6") as flood, pytest.raises(OSError):
                flood.sendall(begin + more * 100_000)
        assert served(agent)

    def test_handshakes_that_are_not_finished(self, agent: AgentProcess) -> None:
        """Connections that never speak TLS are closed in time, and keep no others out."""
        host, port = agent.trust.rsplit(":", 1)
        with contextlib.ExitStack() as stack:
            silent = []
            for _ in range(80):
                silent.append(
                    stack.enter_context(
                        socket.create_connection((host, int(port)), timeout=15, source_address=("127.0.0.7", 0))
                    )
                )
                time.sleep(0.025)
            assert served(agent)
            for each in silent:
                with contextlib.suppress(ConnectionError):
                    assert b"" == each.recv(1)

    @pytest.mark.parametrize("junk", [b"GET /keys HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 500, b"\0" * 64])
    def test_no_tls(self, agent: AgentProcess, junk: bytes) -> None:
        """What is no TLS gets no document."""
        host, port = agent.trust.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=15, source_address=("127.0.0.8", 0)) as plain:
            plain.sendall(junk)
            with contextlib.suppress(ConnectionError):
                heard = plain.recv(65_536)
                assert b"keys" not in heard
        assert served(agent)
