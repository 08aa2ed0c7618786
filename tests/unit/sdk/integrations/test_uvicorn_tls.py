"""A real uvicorn with TLS by SVIDs: tokens that are bound to a certificate, over rotations of that."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.ca import FakeCa
from fakes.fake_agent import ScriptedAgent
from fakes.task_feed import AUDIENCE, HOLDER, ISSUER, live, signing_key, snapshot
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.x509_source import Present
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
from sojourn.sdk.integrations.uvicorn_tls import TlsProtocol
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.authorize import authorize_any
from sojourn.spiffetls.context import SpiffeContext
from sojourn.tasktoken import tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.sender_constraint import X5T, Binding, thumbprint_of
from sojourn.tasktoken.task_claim import TaskClaim
from sojourn.workloadapi.messages import X509Context, X509SvidWithHint

KEY = signing_key()


class FakeSource:
    """A source whose SVID the test sets."""

    def __init__(self, svid: X509Svid, ca: FakeCa) -> None:
        self._ca = ca
        self.present = Present(0, None)
        self.rotate(svid)

    def rotate(self, svid: X509Svid) -> None:
        hinted = X509SvidWithHint(svid.spiffe_id, svid.chain, svid.key)
        context = X509Context((hinted,), {self._ca.trust_domain: (self._ca.root,)}, ())
        self.present = Present(self.present.version + 1, context)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the certificates of the connection, as the ASGI extension has them."""
    assert scope["type"] == "http"
    body = "".join(scope["extensions"]["tls"]["client_cert_chain"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(application: Any, **options: Any) -> AsyncIterator[int]:
    """uvicorn with an application; the port that it listens on."""
    config = uvicorn.Config(application, port=0, lifespan="off", log_level="error", **options)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


def bound_to(leaf: x509.Certificate) -> dict[str, str]:
    now = datetime.now(UTC)
    token = tokens.issue(
        KEY,
        issuer=ISSUER,
        spiffe_id=HOLDER,
        grant=Grant.parse(AUDIENCE, ["ticket:read"]),
        task=TaskClaim("t1", "triage-ticket", 5, "normal"),
        issued_at=now,
        expires_at=now + timedelta(seconds=60),
        binding=Binding(X5T, thumbprint_of(leaf.public_bytes(Encoding.DER))),
    )
    return {"Authorization": f"Bearer {token.token}"}


@pytest.fixture
async def verifier(agent: ScriptedAgent, client: Client) -> AsyncIterator[TaskVerifier]:
    agent.push("WatchTasks", snapshot([KEY], live("t1", 5)))
    async with TaskVerifier(client, AUDIENCE) as running:
        await running.feed.wait_ready(10)
        yield running


@pytest.fixture
async def port(verifier: TaskVerifier, ca: FakeCa) -> AsyncIterator[int]:
    source = FakeSource(ca.svid("/tickets"), ca)
    guarded = TaskTokenMiddleware(app, verifier=verifier, actions={"GET /tickets/{id}": "ticket:read"})
    context = SpiffeContext(source, authorize_any(), server_side=True)
    async with served(guarded, http=TlsProtocol, ssl_context_factory=lambda *_: context) as number:
        yield number


async def test_over_rotation(port: int, ca: FakeCa) -> None:
    """A token is good with the SVID that it is bound to; after the rotation, on new connections, one of the new one."""
    first, second = ca.svid("/agent/triage"), ca.svid("/agent/triage")
    source = FakeSource(first, ca)
    context = SpiffeContext(source, authorize_any(), server_side=False)
    url = f"https://127.0.0.1:{port}/tickets/7"
    async with httpx.AsyncClient(verify=context) as old:
        answer = await old.get(url, headers=bound_to(first.chain[0]))
        assert (200, first.chain[0]) == (answer.status_code, x509.load_pem_x509_certificate(answer.content))
        assert 401 == (await old.get(url, headers=bound_to(second.chain[0]))).status_code
        source.rotate(second)
        async with httpx.AsyncClient(verify=context) as new:
            refused = await new.get(url, headers=bound_to(first.chain[0]))
            assert (401, "invalid_token") == (refused.status_code, refused.json()["error"])
            assert 200 == (await new.get(url, headers=bound_to(second.chain[0]))).status_code
        # The connection of before is the old SVID's still.
        assert 200 == (await old.get(url, headers=bound_to(first.chain[0]))).status_code


async def test_a_header_is_no_certificate(port: int, ca: FakeCa) -> None:
    """What a header says of another certificate changes nothing."""
    mine, other = ca.svid("/agent/other"), ca.svid("/agent/triage").chain[0]
    context = SpiffeContext(FakeSource(mine, ca), authorize_any(), server_side=False)
    pem = other.public_bytes(Encoding.PEM).decode().replace("\n", "%0A")
    async with httpx.AsyncClient(verify=context) as client:
        for name in ("X-Forwarded-Client-Cert", "Client-Cert", "X-SSL-Cert"):
            headers = {**bound_to(other), name: pem}
            assert 401 == (await client.get(f"https://127.0.0.1:{port}/tickets/7", headers=headers)).status_code


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_uvicorns_own_context(verifier: TaskVerifier, ca: FakeCa, tmp_path: Path, loop: str) -> None:
    """Also with uvicorn's own options for TLS: a client without a certificate has none, and its token is refused."""
    server, mine = ca.svid("/tickets"), ca.svid("/agent/triage")
    for name, svid in (("server", server), ("mine", mine)):
        chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.chain)
        key = svid.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(chain + key)
    (tmp_path / "ca.pem").write_bytes(ca.root.public_bytes(Encoding.PEM))
    guarded = TaskTokenMiddleware(app, verifier=verifier, actions={"GET /tickets/{id}": "ticket:read"})
    async with served(
        guarded,
        http=TlsProtocol,
        loop=loop,
        ssl_certfile=tmp_path / "server.pem",
        ssl_ca_certs=str(tmp_path / "ca.pem"),
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
    ) as port:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        context.check_hostname = False
        url, headers = f"https://127.0.0.1:{port}/tickets/7", bound_to(mine.chain[0])
        async with httpx.AsyncClient(verify=context) as client:
            assert 401 == (await client.get(url, headers=headers)).status_code
        context.load_cert_chain(tmp_path / "mine.pem")
        async with httpx.AsyncClient(verify=context) as client:
            assert 200 == (await client.get(url, headers=headers)).status_code


async def test_without_tls(verifier: TaskVerifier) -> None:
    """Over a connection without TLS the scope has no such extension, and no token by certificate is good."""
    guarded = TaskTokenMiddleware(app, verifier=verifier, actions={"GET /tickets/{id}": "ticket:read"})
    leaf = FakeCa.make("example.org").svid("/agent/triage").chain[0]
    async with served(guarded, http=TlsProtocol) as port, httpx.AsyncClient() as client:
        assert 401 == (await client.get(f"http://127.0.0.1:{port}/tickets/7", headers=bound_to(leaf))).status_code
