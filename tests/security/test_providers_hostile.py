"""Providers that are slow, gone, wrong, huge or false: each is one error of ours, in time, that says nothing secret."""

import asyncio
import datetime as dt
import logging
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from fakes.mints import FakeMint, wanted
from harness.authserver import (
    AuthServer,
    Exchange,
    bomb,
    changed,
    drop,
    granted_then_drop,
    held,
    huge,
    raw,
    redirect,
    refuse,
    slow,
    status,
)
from harness.tlsplace import TlsPlace
from sojourn.limits import (
    PROVIDER_ANSWER_MAX_BYTES,
    PROVIDER_CALLS_AT_ONCE,
    PROVIDER_READ_BYTES,
    PROVIDER_WIRE_MAX_BYTES,
)
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.loader import load_providers
from sojourn.providers.provider import Provider, ProviderTable

pytestmark = pytest.mark.full

URL = "/.well-known/openid-configuration"


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer() as server:
        yield server


def http(**more: Any) -> GuardedHttp:
    return GuardedHttp(ProviderTable(kind="x", **{"plain_http": True, "timeout": "20s", **more}))


async def asked(made: GuardedHttp, server: AuthServer) -> ProviderUnavailable:
    """The error of a POST to the token endpoint."""
    with pytest.raises(ProviderUnavailable) as error:
        await made.post_form(server.token_endpoint, {"a": "b"}, step="exchange")
    assert "exchange" == error.value.step
    return error.value


def oidc(server: AuthServer, **more: Any) -> Provider:
    return load_providers({"a": {"kind": "oidc", "issuer": server.issuer, "plain_http": True, **more}})["a"]


async def exchange(made: Provider, mint: FakeMint | None = None) -> Any:
    ask = made.read_ask({}, ("a",))
    return await made.exchange(wanted(ask, "a"), mint or FakeMint())


BROKEN = [
    b"",
    b"\x00\x01\x02",
    b"SSH-2.0-OpenSSH\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    b"HTTP/1.1 99999 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % each for each in range(500)) + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
]


class TestAnswers:
    @pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
    async def test_no_http(self, server: AuthServer, content: bytes) -> None:
        """What is not HTTP, or is it in an odd way, is no answer; the request may have been heard."""
        server.always["token"] = raw(content)
        made = http()
        assert (await asked(made, server)).sent
        await made.close()

    @pytest.mark.parametrize("deed", [huge(), bomb(), status(200, b" " * (PROVIDER_ANSWER_MAX_BYTES + 1))])
    async def test_too_large(self, server: AuthServer, deed: Any) -> None:
        """An answer that is too large, told so or not, or that would unpack to it, is not read."""
        server.always["token"] = deed
        made = http()
        error = await asked(made, server)
        await made.close()
        assert error.sent

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>",
            b"",
            b"[]",
            b'"x"',
            b"{",
            b'{"access_token": "a", "access_token": "b", "token_type": "Bearer", "expires_in": 60}',
            b'{"access_token": "a", "token_type": "Bearer", "expires_in": NaN}',
            b'{"access_token": "\xff", "token_type": "Bearer", "expires_in": 60}',
            b"[" * 100_000,
            b'{"a":' * 50_000,
        ],
        ids=range(10),
    )
    async def test_wrong_json(self, server: AuthServer, body: bytes) -> None:
        """What is not one JSON object, read strictly, is no answer."""
        server.always["token"] = status(200, body)
        made = oidc(server)
        with pytest.raises(ProviderUnavailable) as error:
            await exchange(made)
        await made.close()
        assert error.value.sent

    async def test_largest(self, server: AuthServer) -> None:
        """An answer of the largest size is read."""
        server.always["token"] = status(200, b" " * PROVIDER_ANSWER_MAX_BYTES)
        made = http()
        answer = await made.post_form(server.token_endpoint, {"a": "b"}, step="s")
        await made.close()
        assert PROVIDER_ANSWER_MAX_BYTES == len(answer.body)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
PLENTY = [
    b"HTTP/1.1 102 \r\n\r\n" * 50_000 + ANSWER + b"{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n",
]


def two_answers(exchange: Exchange) -> bool:
    exchange.connection.sendall(ANSWER + b"{}" + ANSWER + b"[]")
    return False


class TestConnections:
    async def test_what_comes_behind_an_answer(self, server: AuthServer) -> None:
        """What comes behind an answer is not taken for that of the next request, which may be another task's."""
        server.always["token"] = two_answers
        made = http()
        answers = [await made.post_form(server.token_endpoint, {"a": "b"}, step="s") for _ in range(2)]
        await made.close()
        assert [b"{}", b"{}"] == [each.body for each in answers]

    @pytest.mark.parametrize("content", PLENTY, ids=["interim", "chunks"])
    async def test_small_pieces(self, server: AuthServer, content: bytes) -> None:
        """Interim answers and small chunks without end are cut off soon, and all else goes on meanwhile."""
        server.always["token"] = raw(content)
        made, turns = http(timeout="60s"), 0

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(turning())
        error = await asked(made, server)
        other.cancel()
        await made.close()
        assert error.sent
        assert turns >= PROVIDER_WIRE_MAX_BYTES // PROVIDER_READ_BYTES

    async def test_kept(self, server: AuthServer) -> None:
        """A connection on which an answer was read to its end is used again."""
        server.always["token"] = status(200, b"{}")
        made = http()
        for _ in range(2):
            await made.post_form(server.token_endpoint, {"a": "b"}, step="s")
        assert 1 == made._plain.pool.idle
        await made.close()


class TestTime:
    async def test_slow(self, server: AuthServer) -> None:
        """A provider that does not answer is given up after the table's time; that it was asked is known."""
        server.always["token"] = slow(60)
        made = http(timeout="300ms")
        error = await asked(made, server)
        await made.close()
        assert error.sent
        assert "in time" in error.public

    async def test_drop_by_drop(self, server: AuthServer) -> None:
        """A provider that sends a byte now and then is given up all the same."""
        until = threading.Event()

        def drip(exchange: Any) -> bool:
            while not until.wait(0.05):
                try:
                    exchange.connection.sendall(b"H")
                except OSError:
                    break
            exchange.close_connection = True
            return False

        server.always["token"] = drip
        made = http(timeout="500ms")
        error = await asked(made, server)
        until.set()
        await made.close()
        assert error.sent

    async def test_down(self, server: AuthServer) -> None:
        """Of a provider that is not there it is known that it was not asked."""
        with AuthServer() as gone:
            pass
        made = http()
        error = await asked(made, gone)
        await made.close()
        assert (False, "address") == (error.sent, error.at)

    async def test_dropped(self, server: AuthServer) -> None:
        """A provider that reads a request and hangs up may have heard it."""
        server.script("token", drop)
        made = http()
        assert (await asked(made, server)).sent
        await made.close()

    async def test_granted_and_dropped(self, server: AuthServer) -> None:
        """A token whose answer was lost is told as one that may be there."""
        made = oidc(server)
        server.script("token", granted_then_drop)
        with pytest.raises(ProviderUnavailable) as lost:
            await exchange(made)
        await made.close()
        assert lost.value.sent
        assert 1 == len(server.given())

    async def test_waiting_for_a_connection(self, server: AuthServer) -> None:
        """Whoever waits for one of the connections, all of which a slow provider holds, was not heard by it."""
        until = threading.Event()
        server.always["token"] = held(until)
        made, late = http(timeout="20s"), http(timeout="300ms")
        late._plain = made._plain
        asking = [
            asyncio.create_task(made.post_form(server.token_endpoint, {}, step="s"))
            for _ in range(PROVIDER_CALLS_AT_ONCE)
        ]
        ends = time.monotonic() + 15
        while len(server.calls("token")) < PROVIDER_CALLS_AT_ONCE and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        error = await asked(late, server)
        assert not error.sent
        until.set()
        await asyncio.gather(*asking)
        await made.close()

    async def test_one_slow_provider_holds_up_no_other(self, server: AuthServer) -> None:
        """Each provider has connections of its own."""
        until = threading.Event()
        server.always["token"] = held(until)
        slow_one, other = http(), http()
        asking = [asyncio.create_task(slow_one.post_form(server.token_endpoint, {}, step="s")) for _ in range(40)]
        await asyncio.sleep(0)
        assert 200 == (await other.get(server.issuer + URL, step="s")).status
        until.set()
        await asyncio.gather(*asking)
        await slow_one.close()
        await other.close()

    async def test_kept_connection(self, server: AuthServer) -> None:
        """Calls one after another share a connection, and one that was closed meanwhile is not used again."""
        made = http()
        for _ in range(3):
            await made.get(server.issuer + URL, step="s")
        assert 1 == len({call.connection for call in server.calls("metadata")})
        server.script("token", drop)
        await asked(made, server)
        await made.get(server.issuer + URL, step="s")
        await made.close()


class TestTls:
    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda folder: (TlsPlace(folder / "a"), TlsPlace(folder / "b").ca), "certificate"),
            (lambda folder: (place := TlsPlace(folder, name="other.example.org"), place.ca), "mismatch"),
            (lambda folder: (place := TlsPlace(folder, ends_in=dt.timedelta(hours=-1)), place.ca), "expired"),
        ],
        ids=["another authority", "another name", "expired"],
    )
    async def test_bad_certificate(self, tmp_path: Path, make: Any, told: str) -> None:
        """A certificate by somebody else, for somebody else, or that is over, is told, before anything was said."""
        place, ca = make(tmp_path)
        with AuthServer(tls=place) as server:
            made = http(private_networks=["127.0.0.0/8"], ca=ca)
            error = await asked(made, server)
            await made.close()
            assert [] == server.calls("token")
        assert (False, "tls") == (error.sent, error.at)
        assert told in error.public

    async def test_good(self, tmp_path: Path) -> None:
        """A certificate by the authority that the table names is good, and by no other name of the system's is it."""
        place = TlsPlace(tmp_path)
        with AuthServer(tls=place) as server:
            made = http(private_networks=["127.0.0.0/8"], ca=place.ca)
            assert 200 == (await made.get(server.issuer + URL, step="s")).status
            await made.close()
            system = http(private_networks=["127.0.0.0/8"])
            assert "tls" == (await asked(system, server)).at
            await system.close()

    async def test_old_tls(self, tmp_path: Path) -> None:
        """No provider is spoken to by a TLS before 1.2."""
        place = TlsPlace(tmp_path)
        with AuthServer(tls=place) as server:
            assert server._server.context is not None
            server._server.context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # which this is about
                server._server.context.minimum_version = ssl.TLSVersion.TLSv1
                server._server.context.maximum_version = ssl.TLSVersion.TLSv1_1
            made = http(private_networks=["127.0.0.0/8"], ca=place.ca)
            error = await asked(made, server)
            await made.close()
        assert "tls" == error.at

    async def test_weak_tls(self, tmp_path: Path) -> None:
        """No provider is spoken to with a cipher that does not authenticate what it encrypts, or without forward secrecy."""
        place = TlsPlace(tmp_path)
        for weak in ("ECDHE-ECDSA-AES128-SHA256", "kRSA"):
            with AuthServer(tls=place) as server:
                assert server._server.context is not None
                server._server.context.maximum_version = ssl.TLSVersion.TLSv1_2
                server._server.context.set_ciphers(f"{weak}:@SECLEVEL=0")
                made = http(private_networks=["127.0.0.0/8"], ca=place.ca)
                error = await asked(made, server)
                await made.close()
            assert "tls" == error.at

    async def test_plain_where_tls_is_due(self, server: AuthServer) -> None:
        """A server that speaks no TLS is not spoken to."""
        made = http(private_networks=["127.0.0.0/8"], timeout="3s")
        with pytest.raises(ProviderUnavailable) as error:
            await made.get(f"https://127.0.0.1:{server.port}/", step="s")
        await made.close()
        assert not error.value.sent


class TestClock:
    @pytest.mark.parametrize("off", [600, -600])
    async def test_ten_minutes_off(self, server: AuthServer, off: int) -> None:
        """A provider's clock never makes a token good for longer here, and if it is behind, the error says so."""
        server.clock_off = off
        made = oidc(server)
        if off > 0:
            obtained = await exchange(made)
            left = (obtained.expires_at - dt.datetime.now(dt.UTC)).total_seconds()
            assert left <= server.lifetime
        else:
            with pytest.raises(ProviderRefused, match=r"its clock is (59|60)[0-9] s behind ours"):
                await exchange(made)
        await made.close()


class TestSecrets:
    async def test_in_no_log_and_no_error(
        self, server: AuthServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        """No token, JWT-SVID or query string is in a log, an error or its repr, whatever a provider does with them."""
        caplog.set_level(logging.DEBUG)
        mint, errors = FakeMint(), []

        def echo(exchange: Any) -> bool:
            text = " ".join(server.calls("token")[-1].form.values())
            return refuse("invalid_grant", text)(exchange)

        deeds = [
            echo,
            drop,
            granted_then_drop,
            huge(),
            bomb(),
            status(500, b"SECRET-BODY"),
            redirect("https://x.example/?SECRET-QUERY"),
            changed(scope=5),
            changed(token_type="SECRET" + "x" * 300),
            changed(expires_in="SECRET-LIFE"),
            changed(access_token="SECRET token"),
            refuse("invalid_client", "SECRET" + "y" * 80),
        ]
        with structlog.testing.capture_logs() as logs:
            made = oidc(
                server, token_endpoint=f"{server.token_endpoint}?tenant=SECRET-TENANT", client_auth="jwt-spiffe"
            )
            for deed in deeds:
                server.script("token", deed)
                with pytest.raises((ProviderRefused, ProviderUnavailable)) as error:
                    await exchange(made, mint)
                errors.append(f"{error.value!r} {error.value} {error.value.detail} {error.value.hint}")
            obtained = await exchange(made, mint)
            await made.close()
        libraries = [each.getMessage() for each in caplog.records if not each.name.startswith(("httpcore", "asyncio"))]
        everything = "\n".join([*errors, repr(obtained), repr(logs), *libraries])
        for secret in (*mint.minted, *server.given(), *(each.split(".")[2] for each in mint.minted[:1])):
            assert secret not in everything
        for word in ("SECRET-BODY", "SECRET-QUERY", "SECRET-TENANT", "SECRET-LIFE", "SECRET token", "y" * 80):
            assert word not in everything

    async def test_libraries_say_nothing(self) -> None:
        """The agent logs nothing of its HTTP library below a warning, which shows headers when it is talkative."""
        from sojourn.runtime import logs

        before = logging.getLogger().handlers[:], logging.getLogger().level
        try:
            logs.configure("debug")
            assert not logging.getLogger("httpcore2.http11").isEnabledFor(logging.INFO)
        finally:
            structlog.reset_defaults()
            logging.getLogger().handlers[:], level = before
            logging.getLogger().setLevel(level)


class TestNothingLeft:
    async def test_connections_of_calls_that_were_given_up(self, tmp_path: Path) -> None:
        """Calls that are given up, under way or waiting for their turn, take neither places nor connections with them."""
        place = TlsPlace(tmp_path)
        with AuthServer(tls=place) as server:
            made = http(private_networks=["127.0.0.0/8"], ca=place.ca, timeout="500ms")
            server.always["token"] = slow(60)
            calls = [made.post_form(server.token_endpoint, {}, step="s") for _ in range(2 * PROVIDER_CALLS_AT_ONCE)]
            failed = await asyncio.gather(*calls, return_exceptions=True)
            assert {ProviderUnavailable} == {type(each) for each in failed}
            assert (0, 0) == (made._secure.pool.idle, made._secure.pool.busy)
            made._seconds = 20.0
            assert 200 == (await made.get(server.issuer + URL, step="s")).status
            await made.close()
            assert 0 == made._secure.pool.idle
