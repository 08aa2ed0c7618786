"""Abuse of TLS at the listeners on TCP by whoever reaches them, and by those that the agent asks: what it may cost the others."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.certificates import Issued, authority, san
from harness import forging
from harness.agent import AgentProcess
from harness.keyupdates import KeyUpdates
from harness.taskagent import TRIAGE, inner_failures, make_agent
from harness.tlsplace import TlsPlace
from harness.webclients import context, svid
from sojourn.limits import REMOTE_HANDSHAKES, TLS_KEY_UPDATES
from sojourn.net import tls_key_updates
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.provider import ProviderTable

pytestmark = pytest.mark.full

REQUEST = b"GET /keys HTTP/1.1\r\nhost: x\r\n\r\n"
HOUR_AGO, IN_AN_HOUR = (datetime.now(UTC) + timedelta(hours=each) for each in (-1, 1))


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """An agent with the HTTPS listener."""
    with make_agent(extra='\n[listen]\nhttps = "127.0.0.1:0"\n') as agent:
        yield agent
        assert [] == inner_failures(agent)


def opened(agent: AgentProcess, source: str = "127.0.0.1") -> socket.socket:
    host, port = agent.https.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=15, source_address=(source, 0))


def length(connected: socket.socket, least: int = 1 << 30) -> int:
    """How much comes, until it is `least` or the agent has closed the connection."""
    came = 0
    with contextlib.suppress(ConnectionError):
        while came < least and (block := connected.recv(65_536)):
            came += len(block)
    return came


class TestKeyUpdates:
    def test_a_few(self, shared: AgentProcess) -> None:
        """A client of TLS 1.3 may update its key now and then, and have the agent do so too."""
        with opened(shared) as connected:
            client = KeyUpdates(context(None), connected)
            for number in range(TLS_KEY_UPDATES):
                connected.sendall(client.update(answer=number % 2 == 0) + client.content(REQUEST))
                assert length(connected, 300) >= 300

    @pytest.mark.parametrize("answer", [False, True])
    def test_without_end(self, shared: AgentProcess, answer: bool) -> None:
        """Whoever sends updates of his key without end is cut off, and keeps nobody waiting: 50,000 that came together
        held up the whole agent for one or two seconds.
        """
        with opened(shared) as connected:
            client = KeyUpdates(context(None), connected)
            flood = b"".join(client.update(answer=answer) for _ in range(50_000))
            before = used(shared)
            with contextlib.suppress(ConnectionError):
                connected.sendall(flood)
            assert length(connected) < 100 * TLS_KEY_UPDATES
        assert used(shared) - before < 0.3

    def test_with_content_between(self, shared: AgentProcess) -> None:
        """Content between them makes them no fewer."""
        with opened(shared) as connected:
            client = KeyUpdates(context(None), connected)
            with contextlib.suppress(ConnectionError):
                for _ in range(2 * TLS_KEY_UPDATES):
                    connected.sendall(client.update() + client.content(b"G"))
            begun = time.monotonic()
            length(connected)
            assert time.monotonic() - begun < 3


class TestHandshakes:
    def test_of_many_addresses(self, shared: AgentProcess) -> None:
        """Handshakes that do not go on, of however many addresses, keep nobody else out: four addresses could. They are
        given up for those who have fewer of them under way.
        """
        with contextlib.ExitStack() as stack:
            for number in range(REMOTE_HANDSHAKES + 20):
                stack.enter_context(opened(shared, f"127.0.0.{10 + number % 5}"))
            for _ in range(3):
                with opened(shared, "127.0.0.2") as plain, context(None).wrap_socket(plain) as connected:
                    connected.sendall(REQUEST)
                    assert connected.recv(16).startswith(b"HTTP/1.1 200")

    def test_a_chain_without_end(self, shared: AgentProcess, tmp_path: Path) -> None:
        """A client's handshake has a length: one of 120 certificates, which nobody knows, took 27 ms each time. A chain
        that is long and good comes in, with a large request at once behind it.
        """
        strangers = [authority(begins=HOUR_AGO, ends=IN_AN_HOUR) for _ in range(120)]
        before = used(shared)
        for _ in range(20):
            assert b"" == self.answer(shared, tmp_path, forging.leaf(strangers[0], san=(san(TRIAGE), False)), strangers)
        assert used(shared) - before < 0.3
        good = svid(shared, TRIAGE)
        assert self.answer(shared, tmp_path, good, [forging.root_of(shared)] * 4).startswith(b"HTTP/1.1 4")

    def answer(self, agent: AgentProcess, folder: Path, shown: Issued, rest: list[Issued]) -> bytes:
        """How the answer begins that a client gets who shows a chain; nothing if it is refused."""
        chain = [each.certificate.public_bytes(Encoding.PEM) for each in (shown, *rest)]
        key = shown.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "shown.pem").write_bytes(b"".join(chain) + key)
        tls = context(None)
        tls.load_cert_chain(folder / "shown.pem")
        try:
            with opened(agent) as plain, tls.wrap_socket(plain) as connected:
                connected.sendall(b"POST /token HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n" + bytes(60_000))
                return connected.recv(16)
        except (ssl.SSLError, ConnectionError):
            return b""


class Hostile:
    """A server of an outside party's: it shakes hands, and then sends what it is told to."""

    def __init__(self, place: TlsPlace, says: Callable[[KeyUpdates], bytes]) -> None:
        self._place, self._says = place, says
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Hostile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), self._listener.accept()[0] as connected:
            connected.settimeout(15)
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self._place.chain, self._place.key)
            connected.sendall(self._says(KeyUpdates(tls, connected, server=True)))
            length(connected)


class TestProviders:
    @pytest.mark.parametrize(
        "says",
        [
            lambda tls: b"".join(tls.update() for _ in range(20_000)),
            lambda tls: tls.content(b"HTTP/1.1 200 OK\r\n")[:-1] + b"x",
            lambda tls: b"\x17\x03\x03\x00\x40" + bytes(64),
            lambda tls: b"HTTP/1.1 200 OK\r\n\r\n",
        ],
        ids=["key updates", "forged", "zeros", "no TLS"],
    )
    async def test_broken_tls(self, tmp_path: Path, says: Callable[[KeyUpdates], bytes]) -> None:
        """A provider that goes on in no TLS that is any, or updates its key without end, is one that broke off."""
        place = TlsPlace(tmp_path)
        made = GuardedHttp(ProviderTable(kind="x", private_networks=["127.0.0.0/8"], ca=place.ca, timeout="5s"))
        with Hostile(place, says) as server:
            before = time.process_time()
            with pytest.raises(ProviderUnavailable, match="broke off") as refused:
                await made.get(server.url, step="s")
        await made.close()
        assert refused.value.sent
        assert time.process_time() - before < 1

    async def test_updates_in_the_long_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection that lasts may have any number of updates, if they come apart: only so many count together."""
        monkeypatch.setattr(tls_key_updates, "TLS_KEY_UPDATES_SECONDS", 0.0)
        place = TlsPlace(tmp_path)
        made = GuardedHttp(ProviderTable(kind="x", private_networks=["127.0.0.0/8"], ca=place.ca, timeout="5s"))
        updates = 3 * TLS_KEY_UPDATES
        said = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        with Hostile(place, lambda tls: b"".join(tls.update() for _ in range(updates)) + tls.content(said)) as server:
            assert 200 == (await made.get(server.url, step="s")).status
            await made.close()


def used(agent: AgentProcess) -> float:
    """Seconds of the processor that the agent has taken, of all its threads."""
    with open(f"/proc/{agent.pid}/stat") as file:
        user, kernel = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(kernel)) / 100
