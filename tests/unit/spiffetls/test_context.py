"""Mutual TLS by SPIFFE ID, on every kind of connection."""

import asyncio
import contextlib
import socket as sockets
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.ca import FakeCa
from sojourn.errors import InvalidInput
from sojourn.sdk.client.x509_source import Present
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.authorize import Authorize, authorize_any, authorize_id, authorize_member_of
from sojourn.spiffetls.context import SpiffeContext, load_svid
from sojourn.spiffetls.peer import PeerCheck
from sojourn.workloadapi.messages import X509Context, X509SvidWithHint

WEB = "spiffe://example.org/web"
DB = "spiffe://example.org/db"


@dataclass
class FakeSource:
    """A source whose present state the test sets."""

    present: Present

    def rotate(self, context: X509Context | None) -> None:
        self.present = Present(self.present.version + 1, context)

    def server(self, authorize: Authorize) -> SpiffeContext:
        return SpiffeContext(self, authorize, server_side=True)

    def client(self, authorize: Authorize) -> SpiffeContext:
        return SpiffeContext(self, authorize, server_side=False)


def context(svid: X509Svid, *cas: FakeCa, crl: tuple[bytes, ...] = ()) -> X509Context:
    hinted = X509SvidWithHint(svid.spiffe_id, svid.chain, svid.key)
    bundles = {ca.trust_domain: (ca.root,) for ca in cas}
    return X509Context((hinted,), bundles, tuple(x509.load_der_x509_crl(der) for der in crl))


def source(svid: X509Svid, *cas: FakeCa, crl: tuple[bytes, ...] = ()) -> FakeSource:
    return FakeSource(Present(1, context(svid, *cas, crl=crl)))


@contextlib.asynccontextmanager
async def echo(tls: ssl.SSLContext, seen: list[Any] | None = None) -> AsyncIterator[int]:
    """A server that sends back one line; `seen` gets the TLS object of each connection."""

    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        if seen is not None:
            seen.append(writer.get_extra_info("ssl_object"))
        with contextlib.suppress(OSError):
            writer.write(await reader.readline())
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        await asyncio.gather(*(task for task in serving if task is not None), return_exceptions=True)


async def talk(port: int, tls: ssl.SSLContext) -> tuple[bytes, Any]:
    """Send a line and return what comes back, with the client's TLS object."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            writer.write(b"hello\n")
            return await reader.readline(), writer.get_extra_info("ssl_object")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def refused_by_server(port: int, tls: ssl.SSLContext) -> bool:
    try:
        answer, _ = await talk(port, tls)
    except OSError:
        return True
    return answer == b""


Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Runs a coroutine on each kind of event loop."""

    def runner(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as loop:
            loop.run(main)

    return runner


class TestStreams:
    def test_both_verified(self, run: Runner, ca: FakeCa) -> None:
        """Two endpoints talk when each has the ID that the other asks for, and each can read the other's."""
        seen: list[Any] = []

        async def main() -> None:
            async with echo(source(ca.svid("/web"), ca).server(authorize_id(DB)), seen) as port:
                answer, tls = await talk(port, source(ca.svid("/db"), ca).client(authorize_id(WEB)))
            assert answer == b"hello\n"
            assert (str(tls.peer_spiffe_id), str(seen[0].peer_spiffe_id)) == (WEB, DB)
            assert tls.version() == "TLSv1.3"

        run(main())

    def test_client_refuses(self, run: Runner, ca: FakeCa) -> None:
        """A server with another ID than the one asked for is refused inside the handshake, with a sentence."""

        async def main() -> None:
            async with echo(source(ca.svid("/web"), ca).server(authorize_any())) as port:
                with pytest.raises(
                    ssl.SSLCertVerificationError, match=r"'spiffe://example\.org/web' is not authorized"
                ):
                    await talk(port, source(ca.svid("/db"), ca).client(authorize_id(DB)))

        run(main())

    def test_server_refuses(self, run: Runner, ca: FakeCa) -> None:
        """A client with another ID than those allowed gets nothing back, and the application never sees it."""
        seen: list[Any] = []

        async def main() -> None:
            async with echo(source(ca.svid("/web"), ca).server(authorize_id(DB)), seen) as port:
                assert await refused_by_server(port, source(ca.svid("/evil"), ca).client(authorize_any()))
            assert seen == []

        run(main())

    def test_rotation(self, run: Runner, ca: FakeCa) -> None:
        """A new connection shows the new SVID; the context of before stays in use."""

        async def main() -> None:
            first, second = ca.svid("/web"), ca.svid("/web")
            server = source(first, ca)
            client = source(ca.svid("/db"), ca).client(authorize_id(WEB))
            async with echo(server.server(authorize_any())) as port:
                _, before = await talk(port, client)
                server.rotate(context(second, ca))
                _, after = await talk(port, client)
            serials = [int(tls.getpeercert()["serialNumber"], 16) for tls in (before, after)]
            assert [svid.leaf.serial_number for svid in (first, second)] == serials

        run(main())

    async def test_federated(self, ca: FakeCa, other_ca: FakeCa) -> None:
        """Peers of two trust domains talk when each has the other's bundle."""
        server = source(ca.svid("/web"), ca, other_ca).server(authorize_member_of("other.example"))
        client = source(other_ca.svid("/x"), ca, other_ca).client(authorize_member_of(TrustDomain("example.org")))
        async with echo(server) as port:
            answer, _ = await talk(port, client)
        assert answer == b"hello\n"

    async def test_foreign_key_for_our_domain(self, ca: FakeCa, other_ca: FakeCa) -> None:
        """A key of another trust domain never verifies an ID of ours, though its bundle is trusted (invariant 3)."""
        forged = other_ca.svid(uri=WEB)
        async with echo(source(forged, ca, other_ca).server(authorize_any())) as port:
            with pytest.raises(ssl.SSLCertVerificationError, match="does not chain to its trust domain's bundle"):
                await talk(port, source(ca.svid("/db"), ca, other_ca).client(authorize_any()))

    async def test_unknown_domain(self, ca: FakeCa, other_ca: FakeCa) -> None:
        """A peer of a trust domain whose bundle we lack is refused."""
        async with echo(source(other_ca.svid(), other_ca, ca).server(authorize_any())) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                await talk(port, source(ca.svid("/db"), ca).client(authorize_any()))

    async def test_leaf_rules(self, ca: FakeCa) -> None:
        """A leaf that breaks a rule of X509-SVID.md is refused, though its chain is good."""
        async with echo(source(ca.svid(usage=False), ca).server(authorize_any())) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                await talk(port, source(ca.svid("/db"), ca).client(authorize_any()))

    async def test_expired(self, ca: FakeCa) -> None:
        """An expired SVID is refused."""
        async with echo(source(ca.svid(ends_in=timedelta(minutes=-1)), ca).server(authorize_any())) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                await talk(port, source(ca.svid("/db"), ca).client(authorize_any()))

    async def test_revoked(self, ca: FakeCa) -> None:
        """An SVID on a revocation list of the agent is refused."""
        web = ca.svid("/web")
        async with echo(source(web, ca).server(authorize_any())) as port:
            client = source(ca.svid("/db"), ca, crl=(ca.crl(web),)).client(authorize_any())
            with pytest.raises(ssl.SSLCertVerificationError, match="is revoked"):
                await talk(port, client)

    async def test_no_client_certificate(self, ca: FakeCa) -> None:
        """A client without certificate gets nothing."""
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
        async with echo(source(ca.svid("/web"), ca).server(authorize_any())) as port:
            assert await refused_by_server(port, plain)

    async def test_old_tls(self, ca: FakeCa) -> None:
        """Connections by TLS 1.2 are made, too."""
        client = source(ca.svid("/db"), ca).client(authorize_any())
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        async with echo(source(ca.svid("/web"), ca).server(authorize_any())) as port:
            answer, tls = await talk(port, client)
        assert (answer, tls.version()) == (b"hello\n", "TLSv1.2")

    async def test_no_svid(self, ca: FakeCa) -> None:
        """Once the SVID is dropped a context wraps nothing."""
        empty = source(ca.svid(), ca)
        tls = empty.client(authorize_any())
        empty.rotate(None)
        with pytest.raises(ssl.SSLError, match=r"no X\.509-SVID"):
            tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())

    async def test_alpn(self, ca: FakeCa) -> None:
        """Protocols set on the outer context are negotiated."""
        server, client = source(ca.svid(), ca).server(authorize_any()), source(ca.svid(), ca).client(authorize_any())
        server.set_alpn_protocols(["h2", "http/1.1"])
        client.set_alpn_protocols(["http/1.1"])
        async with echo(server) as port:
            _, tls = await talk(port, client)
        assert tls.selected_alpn_protocol() == "http/1.1"

    async def test_wrong_side_and_sessions(self, ca: FakeCa) -> None:
        """A server context wraps no client, and a session is not resumed."""
        tls = source(ca.svid(), ca).server(authorize_any())
        with pytest.raises(ValueError, match="server context"):
            tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=False)
        with pytest.raises(ValueError, match="resumed"):
            tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True, session=object())  # type: ignore[arg-type]

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_SPIRE_1143_no_session_is_taken_up_again(self, ca: FakeCa, version: ssl.TLSVersion) -> None:
        """A server gives no ticket and takes no session up again: each connection is checked by the bundle of now."""
        server = source(ca.svid("/web"), ca).server(authorize_any())
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        client.maximum_version = version
        load_svid(client, ca.svid("/db"))
        first = shake_hands(server, client, None)
        session = first.session
        assert session is None or not session.has_ticket
        if session is not None:
            assert not shake_hands(server, client, session).session_reused

    def test_no_byte_before_the_check(self, ca: FakeCa) -> None:
        """A read or write without handshake is refused, since OpenSSL would do one that nobody checks."""
        tls = source(ca.svid(), ca).client(authorize_any()).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        for call in (lambda: tls.read(1), lambda: tls.write(b"x")):
            with pytest.raises(ssl.SSLError, match="handshake is not done"):
                call()


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
    """Join the two sides in memory, let a byte pass, and return the client's."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, session=session)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (here, there) * 4:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    there.write(b"x")
    assert b"x" == here.read(1)
    return here


class TestBlocking:
    @pytest.fixture
    def listener(self, ca: FakeCa) -> Iterator[tuple[int, FakeSource]]:
        """A listening TLS socket that is wrapped once and answers two connections."""
        present = source(ca.svid("/web"), ca)
        plain = sockets.create_server(("127.0.0.1", 0))
        plain.settimeout(10)
        wrapped = present.server(authorize_any()).wrap_socket(plain, server_side=True)

        def serve() -> None:
            for _ in range(2):
                connection, _ = wrapped.accept()
                with connection:
                    connection.sendall(connection.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        yield wrapped.getsockname()[1], present
        thread.join(10)
        wrapped.close()

    def test_sockets(self, ca: FakeCa, listener: tuple[int, FakeSource]) -> None:
        """Plain blocking sockets work, and a listening one follows rotation."""
        port, present = listener
        tls = source(ca.svid("/db"), ca).client(authorize_id(WEB))
        serials = []
        for _ in range(2):
            with tls.wrap_socket(sockets.create_connection(("127.0.0.1", port), 10)) as connection:
                connection.sendall(b"hello")
                assert connection.recv(100) == b"hello"
                assert str(connection.peer_spiffe_id) == WEB  # type: ignore[attr-defined]
                serials.append(connection.getpeercert()["serialNumber"])  # type: ignore[index]
            present.rotate(context(ca.svid("/web"), ca))
        assert len(set(serials)) == 2


class TestHttp:
    async def test_httpx_and_uvicorn(self, ca: FakeCa) -> None:
        """An httpx client and a uvicorn server take these contexts as they are."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        config.ssl = source(ca.svid("/web"), ca).server(authorize_id(DB))
        server = uvicorn.Server(config)
        plain = sockets.create_server(("127.0.0.1", 0))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[plain]))
            tls = source(ca.svid("/db"), ca).client(authorize_id(WEB))
            async with httpx.AsyncClient(verify=tls, trust_env=False) as client:
                answer = await client.get(f"https://127.0.0.1:{plain.getsockname()[1]}/")
            server.should_exit = True
        assert answer.status_code == 204


class TestAuthorizers:
    def test_only_true_is_yes(self, ca: FakeCa) -> None:
        """An authorizer that fails, or answers something that is merely true, has not said yes."""

        def broken(_peer: SpiffeId) -> bool:
            raise RuntimeError

        state = context(ca.svid(), ca)
        chain = [each.public_bytes(Encoding.DER) for each in state.default.chain]
        for authorize in (broken, lambda _peer: "yes", lambda _peer: None):
            with pytest.raises(ssl.SSLCertVerificationError, match="not authorized"):
                PeerCheck(state, authorize)(chain)  # type: ignore[arg-type]
        assert state.default.spiffe_id == PeerCheck(state, authorize_any())(chain)

    def test_hostile_chain(self, ca: FakeCa) -> None:
        """Whatever a peer shows, only our refusal escapes."""
        check = PeerCheck(replace(context(ca.svid(), ca)), authorize_any())
        for chain in ([], [b""], [b"\x30\x03\x02\x01\x01"], [ca.root_der]):
            with pytest.raises(ssl.SSLCertVerificationError):
                check(chain)

    def test_no_id(self) -> None:
        """An authorizer for no ID at all is a mistake, not a lock."""
        with pytest.raises(InvalidInput):
            authorize_id()
