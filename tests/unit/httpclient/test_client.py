"""client.py, wire.py and tcp.py: why there is no answer is told by one word. Real sockets, and real TLS."""

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness.authserver import AuthServer, huge, raw, redirect, slow, status
from harness.tlsplace import TlsPlace
from sojourn.httpclient.client import AnswerLimits, HttpClient
from sojourn.httpclient.faults import HttpFault, Why
from sojourn.httpclient.lookups import Lookups
from sojourn.httpclient.pool import Pool
from sojourn.httpclient.tcp import TcpTransport
from sojourn.httpclient.wire import WireLimits
from sojourn.net.tls_contexts import web_context
from sojourn.net.urls import Url, parse_url

BODY = 1_000
SWITCH = b"HTTP/1.1 101 \r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
NONE: Mapping[str, str] = {}


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer() as server:
        yield server


def client(ca: Path | None = None, *, may: bool = True, wire: int = 10 * BODY, **more: Any) -> HttpClient:
    transport = TcpTransport(Lookups(2), lambda _: may, WireLimits(100, wire))
    return HttpClient(Pool(web_context(ca), transport), AnswerLimits(BODY, **more))


async def fault(made: HttpClient, url: str | Url, headers: Mapping[str, str] = NONE, **more: Any) -> HttpFault:
    with pytest.raises(HttpFault) as caught:
        await made.ask("GET", parse_url(url) if isinstance(url, str) else url, headers, **more)
    await made.close()
    return caught.value


class TestAnswers:
    async def test_one(self, server: AuthServer) -> None:
        """An answer has its status, its headers by lower-case names, and its body; a status of failure is an answer."""
        server.always["token"] = status(503, b"no")
        made = client()
        answer = await made.ask("POST", parse_url(server.token_endpoint), {"X-Y": "z"}, b"a=b")
        await made.close()
        assert (503, b"no", "2") == (answer.status, answer.body, answer.headers["content-length"])
        assert "z" == server.calls("token")[0].headers["x-y"]

    @pytest.mark.parametrize(
        ("deed", "why"),
        [
            (status(200, b"x" * (BODY + 1)), Why.TOO_LARGE),
            (huge(), Why.TOO_LARGE),
            (redirect("https://elsewhere.example/"), Why.REDIRECT),
            (raw(b""), Why.NOT_HTTP),
            (raw(b"SSH-2.0-x\r\n"), Why.NOT_HTTP),
            (raw(b"HTTP/1.1 102 \r\n\r\n" * BODY), Why.ENDLESS),
            (raw(SWITCH), Why.NOT_HTTP),
            (raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 11 + b"\r\n"), Why.HEADERS),
            (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 600 + b"\r\n\r\n"), Why.HEADERS),
            (raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"), Why.ENCODED),
        ],
    )
    async def test_none(self, server: AuthServer, deed: Any, why: Why) -> None:
        """What is no answer of a bounded size, or leads elsewhere, is told apart; the request may have been heard."""
        server.always["token"] = deed
        found = await fault(client(headers=10, header_bytes=500), server.token_endpoint)
        assert (why, True) == (found.why, found.sent)
        assert ("https://elsewhere.example/" if why is Why.REDIRECT else "") == found.reason

    async def test_switching(self, server: AuthServer) -> None:
        """A server that takes up an offer to speak something else gives no answer."""
        server.always["token"] = raw(SWITCH)
        found = await fault(client(), server.token_endpoint, {"upgrade": "x", "connection": "upgrade"})
        assert (Why.SWITCHING, 101) == (found.why, found.status)

    async def test_late(self, server: AuthServer) -> None:
        """A request has a deadline for all of it, and it is known that it was sent."""
        server.always["token"] = slow(60)
        found = await fault(client(), server.token_endpoint, seconds=0.3)
        assert (Why.LATE, True, 0) == (found.why, found.sent, found.status)


class TestConnections:
    async def test_nobody_listens(self) -> None:
        """Where nobody listens the system's number says so, and nothing was sent."""
        with AuthServer() as gone:
            pass
        found = await fault(client(), gone.token_endpoint)
        assert (Why.UNREACHABLE, errno.ECONNREFUSED, False) == (found.why, found.errno, found.sent)

    async def test_names_and_addresses(self, server: AuthServer) -> None:
        """A name without an address is told from one whose addresses may not be connected to, which are told."""
        assert Why.NO_ADDRESS is (await fault(client(), "https://nowhere.invalid/")).why
        found = await fault(client(may=False), server.token_endpoint)
        assert (Why.ADDRESS, ["127.0.0.1"]) == (found.why, [str(each) for each in found.addresses])
        assert [] == server.calls("token")

    async def test_a_certificate(self, server: AuthServer, tmp_path: Path) -> None:
        """A certificate that is not good is told from a server that speaks no TLS at all."""
        place, other = TlsPlace(tmp_path / "place"), TlsPlace(tmp_path / "other")
        with AuthServer(tls=place) as secure:
            found = await fault(client(other.ca), secure.token_endpoint)
            assert (Why.CERTIFICATE, False) == (found.why, found.sent)
            assert "certificate" in found.reason
        assert Why.TLS is (await fault(client(place.ca), Url("https", "127.0.0.1", server.port, "/"))).why

    async def test_whose_certificate(self, tmp_path: Path) -> None:
        """The certificate may have to be of another name than the URL's host."""
        place = TlsPlace(tmp_path, name="kubelet.example")
        with AuthServer(tls=place, host="kubelet.example") as secure:
            url, made = Url("https", "127.0.0.1", secure.port, "/"), client(place.ca)
            assert 404 == (await made.ask("GET", url, {}, server_name="kubelet.example")).status
            assert Why.CERTIFICATE is (await fault(client(place.ca), url, server_name="other.example")).why
            await made.close()
