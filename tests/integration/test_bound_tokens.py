"""Bound tokens, proofs, keys that change and status lists, of a real agent."""

import asyncio
import base64
import hashlib
import json
import os
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from harness.agent import AgentProcess
from harness.exchanges import http, part
from harness.looking import until
from harness.taskagent import ISSUER, PLACE_A, TICKETS, TRIAGE, make_agent
from joserfc import jws
from joserfc.jwk import ECKey, KeySet
from sojourn import Client, SyncClient, X509Source, authorize_id
from sojourn.errors import InvalidInput, InvalidSvid, InvalidToken, NotFound, TaskOver
from sojourn.errors.oauth import BindingNeeded, DigestNeeded, InvalidProof, NonceNeeded
from sojourn.jose.jws import SigningKey
from sojourn.sdk.guard.task_feed import TaskFeed
from sojourn.sdk.task.mtls_tokens import CertificateTokens
from sojourn.tasktoken import dpop, tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.request_digest import of_http
from sojourn.tasktoken.sender_constraint import Proven, thumbprint_of

URL = f"{TICKETS}/tickets/42"
DIGEST = of_http("POST", "/things/1?really=yes", b"{}")
LIST = "application/statuslist+jwt"


@pytest.fixture(scope="module")
def client(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as opened:
        yield opened


def sha256(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def published(agent: AgentProcess) -> KeySet:
    with http(agent.socket) as web:
        return KeySet.import_key_set(web.get("/keys").json())


def fresh_proof(key: SigningKey, nonce: str | None = None) -> str:
    return dpop.make(key, method="POST", url=f"{ISSUER}/token", now=datetime.now(UTC), nonce=nonce)


def with_nonce(get: Any, key: SigningKey) -> Any:
    """What `get(proof)` gives, with a nonce if one is asked for, as any client of RFC 9449 does."""
    try:
        return get(fresh_proof(key))
    except NonceNeeded as error:
        return get(fresh_proof(key, error.nonce or "none was sent"))


class TestAgentKey:
    def test_token_and_proof_fit(self, shared: AgentProcess, client: SyncClient) -> None:
        """A stock library finds that the proof is by the key of the token, and for its digest and the request."""
        with client.task("triage-ticket", params={"ticket": "42"}) as task:
            token = task.token(TICKETS, ["ticket:read"], bound="agent")
            assert ("DPoP", f"DPoP {token.token}") == (token.token_type, token.header)
            proof = task.proof("GET", f"{URL}?a=1", token, nonce="n")
            claims = json.loads(jws.deserialize_compact(token.token, published(shared)).payload)
            header = part(proof, 0)
            key = ECKey.import_key(header["jwk"])
            said = json.loads(jws.deserialize_compact(proof, key).payload)
        assert {"jkt": key.thumbprint()} == claims["cnf"]
        assert ("dpop+jwt", "ES256", False) == (header["typ"], header["alg"], "d" in header["jwk"])
        assert ("GET", URL, sha256(token.token.encode()), "n") == (said["htm"], said["htu"], said["ath"], said["nonce"])
        assert {"ticket": "42"} == claims["authorization_details"][0]["params"]
        assert "ticket:read" == claims["scope"]

    def test_not_without_the_task(self, client: SyncClient) -> None:
        """A proof is made for a token of that task alone, and no more when it is over."""
        with client.task("triage-ticket", params={"ticket": "1"}) as one:
            token = one.token(TICKETS, bound="agent")
            with client.task("triage-ticket", params={"ticket": "2"}) as other:
                other.token(TICKETS, bound="agent")
                with pytest.raises(InvalidToken):
                    other.proof("GET", URL, token)
            with pytest.raises(NotFound, match="there is no such task"):
                client.create_proof("tsk_AAAAAAAAAAAAAAAAAAAAAA", "GET", URL, token)
            name = one.id
        with pytest.raises(TaskOver):
            client.create_proof(name, "GET", URL, token)

    def test_after_a_change_of_the_task(self, client: SyncClient) -> None:
        """The task's key stays when it is narrowed; its older tokens are not proved any more."""
        with client.task("two-places") as task:
            before = task.token(PLACE_A, bound="agent")
            task.narrow([Grant.parse(PLACE_A, ["doc:read"])])
            after = task.token(PLACE_A, bound="agent")
            assert part(before.token, 1)["cnf"] == part(after.token, 1)["cnf"]
            assert task.proof("GET", URL, after)
            with pytest.raises(TaskOver):
                task.proof("GET", URL, before)

    async def test_asynchronously(self, shared: AgentProcess) -> None:
        """The asynchronous client does the same."""
        async with Client(shared.socket) as client, client.task("triage-ticket", params={"ticket": "1"}) as task:
            token = await task.token(TICKETS, bound="agent")
            assert part(await task.proof("GET", URL, token), 1)["ath"] == sha256(token.token.encode())


class TestClientKey:
    def test_bound_to_the_clients_key(self, client: SyncClient) -> None:
        """A client that shows a proof by a key of its own gets a token that is bound to that key."""
        key = SigningKey.generate("mine")
        with client.task("triage-ticket", params={"ticket": "1"}) as task:
            token = with_nonce(lambda proof: task.token(TICKETS, dpop_proof=proof), key)
            assert {"jkt": key.public.thumbprint} == part(token.token, 1)["cnf"]
            assert "DPoP" == token.token_type
            with pytest.raises(InvalidToken):  # the agent has not that key
                task.proof("GET", URL, token)

    def test_once(self, client: SyncClient) -> None:
        """A proof by a key gets one token, and no second."""
        key = SigningKey.generate("mine")
        with client.task("triage-ticket", params={"ticket": "1"}) as task:
            used: list[str] = []
            with_nonce(lambda proof: (used.append(proof), task.token(TICKETS, dpop_proof=proof)), key)
            with pytest.raises(InvalidProof, match="used before"):
                task.token(TICKETS, dpop_proof=used[-1])

    def test_one_binding(self, client: SyncClient) -> None:
        """A token is bound to one thing: a request for two bindings is refused."""
        with client.task("triage-ticket", params={"ticket": "1"}) as task, pytest.raises(InvalidInput, match="one"):
            task.token(TICKETS, bound="agent", certificate=b"x")


class TestCertificate:
    def test_bound_to_the_svid(self, client: SyncClient) -> None:
        """A token is bound to the workload's own X.509-SVID, and to no other certificate."""
        svid = client.fetch_x509_svids().default
        leaf = svid.leaf.public_bytes(Encoding.DER)
        with client.task("triage-ticket", params={"ticket": "1"}) as task:
            token = task.token(TICKETS, certificate=leaf)
            assert {"x5t#S256": sha256(leaf)} == part(token.token, 1)["cnf"]
            assert f"Bearer {token.token}" == token.header
            for wrong in (b"x", leaf[:-1], svid.chain[-1].public_bytes(Encoding.DER) if len(svid.chain) > 1 else b"y"):
                with pytest.raises(InvalidSvid):
                    task.token(TICKETS, certificate=wrong)


class TestHigh:
    def test_needs_a_binding_and_a_digest(self, client: SyncClient) -> None:
        """A type of high consequence gives tokens that are bound, for one request, and live for 15 s at most."""
        with client.task("careful") as task:
            with pytest.raises(BindingNeeded):
                task.token(PLACE_A, params_digest=DIGEST)
            with pytest.raises(DigestNeeded):
                task.token(PLACE_A, bound="agent")
            claims = part(task.token(PLACE_A, bound="agent", params_digest=DIGEST).token, 1)
            assert DIGEST == claims["authorization_details"][0]["params_digest"]
            assert claims["exp"] - claims["iat"] <= 15


# --- status lists ---------------------------------------------------------------------------------------------------


def status_of(agent: AgentProcess, token: str) -> int:
    """What the status list that a token names says of it, read as the draft says."""
    place = part(token, 1)["status"]["status_list"]
    with http(agent.socket) as web:
        response = web.get(place["uri"].removeprefix(ISSUER), headers={"Accept": LIST})
    assert (200, LIST) == (response.status_code, response.headers["content-type"].partition(";")[0])
    assert "max-age=5" == response.headers["cache-control"]
    found = jws.deserialize_compact(response.text, published(agent))
    claims = json.loads(found.payload)
    assert ("statuslist+jwt", place["uri"]) == (found.headers()["typ"], claims["sub"])
    assert claims["iat"] <= time.time() + 1 < claims["exp"] + 1
    packed = claims["status_list"]["lst"]
    content = zlib.decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    bits, index = claims["status_list"]["bits"], place["idx"]
    return content[index * bits // 8] >> (index * bits % 8) & (1 << bits) - 1


class TestStatusList:
    def test_tells_what_becomes_of_a_task(self, shared: AgentProcess, client: SyncClient) -> None:
        """The list says of a token that it is good, suspended, superseded, and over, within a second."""
        with client.task("triage-ticket", params={"ticket": "1"}) as task:
            token = task.token(TICKETS).token
            assert 0 == status_of(shared, token)
            shared.run("task", "suspend", task.id, "--reason", "look")
            until(lambda: status_of(shared, token) == 2, "suspended")
            shared.run("task", "resume", task.id)
            until(lambda: status_of(shared, token) == 1, "superseded")
            token = until(lambda: task.token(TICKETS), "a new token").token
            assert 0 == status_of(shared, token)
        until(lambda: status_of(shared, token) == 1, "over")

    @pytest.mark.parametrize(
        "path", ["99/0", "1/99999", "0/0", "x/0", "01/0", "1/00", "-1/0", "1/-1", "1/99999999999", "1", "1/0/0", ""]
    )
    def test_what_there_is_not(self, shared: AgentProcess, path: str) -> None:
        """A list that there is not is not found."""
        with http(shared.socket) as web:
            assert 404 == web.get(f"/status/{path}").status_code

    def test_which_there_are(self, shared: AgentProcess, client: SyncClient) -> None:
        """The metadata names where it is told which lists there are, and that of a token is among them."""
        with client.task("triage-ticket", params={"ticket": "1"}) as task, http(shared.socket) as web:
            told = web.get("/.well-known/oauth-authorization-server").json()["status_list_aggregation_endpoint"]
            answer = web.get(told.removeprefix(ISSUER))
            assert "application/json" == answer.headers["content-type"]
            place = part(task.token(TICKETS).token, 1)["status"]["status_list"]["uri"]
            lists = web.get(told.removeprefix(ISSUER)).json()["status_lists"]
            assert place in lists
            assert [200] * len(lists) == [web.get(each.removeprefix(ISSUER)).status_code for each in lists]

    def test_of_the_run_before(self) -> None:
        """After a restart the lists of the run before say of all its tokens that they are invalid."""
        with make_agent() as agent:
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            with SyncClient(agent.socket) as client:
                task = client.begin_task("triage-ticket", params={"ticket": "1"})
                token = task.token(TICKETS).token
                assert 0 == status_of(agent, token)
                agent.kill()
                agent.start()
                assert 1 == status_of(agent, token)
                again = until(lambda: task.token(TICKETS), "the task is back").token
                assert 0 == status_of(agent, again)
                assert part(again, 1)["status"] != part(token, 1)["status"]


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.forked
async def test_keys_change_and_nobody_notices() -> None:
    """With keys of ten seconds every token is good at a validator that hears of keys by the feed, over two changes."""
    agent = make_agent()
    agent.config.write_text(agent.config.read_text().replace("[tasks]\n", '[tasks]\ntoken_key_ttl = "10s"\n'))
    with agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        async with (
            Client(agent.socket) as client,
            TaskFeed(client, [TICKETS]) as feed,
            client.task("triage-ticket", params={"ticket": "1"}) as task,
        ):
            await feed.wait_ready(10)
            signers: dict[str, int] = {}
            ends = asyncio.get_running_loop().time() + 60
            while len(signers) < 3 and asyncio.get_running_loop().time() < ends:
                token = (await task.token(TICKETS)).token
                signers.setdefault(part(token, 0)["kid"], len(feed.keys))
                found = tokens.verify(
                    token, keys=feed.keys, issuer=feed.issuer, audience=TICKETS, now=datetime.now(UTC)
                )
                assert (task.id, TRIAGE) == (found.task_id, str(found.spiffe_id))
                assert set(feed.keys) <= {key.kid for key in published(agent).keys}
                assert (await client.validate_token(token, TICKETS)).valid
                await asyncio.sleep(0.2)
            assert 3 == len(signers)


# --- a certificate that is rotated -----------------------------------------------------------------------------------


@asynccontextmanager
async def guarded(source: X509Source, feed: TaskFeed, seen: list[str]) -> AsyncIterator[int]:
    """A service over mutual TLS: a line with a token is answered `ok` if it is bound to this connection's certificate."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        der = writer.get_extra_info("ssl_object").getpeercert(True)
        try:
            while line := (await reader.readline()).decode().strip():
                try:
                    tokens.verify(
                        line,
                        keys=feed.keys,
                        issuer=feed.issuer,
                        audience=TICKETS,
                        now=datetime.now(UTC),
                        proven=Proven(x5t=thumbprint_of(der)),
                    )
                    answer = "ok"
                except InvalidToken as error:
                    answer = error.reason_code
                seen.append(thumbprint_of(der))
                writer.write(f"{answer}\n".encode())
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=source.server_context(authorize_id(TRIAGE)))
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, context: ssl.SSLContext, token: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(f"{token}\n".encode())
    answer = (await reader.readline()).decode().strip()
    writer.close()
    return answer


@pytest.mark.forked
async def test_a_certificate_bound_token_over_rotations() -> None:
    """With an SVID of ten seconds no call fails over two rotations; an old token is refused on a new connection."""
    with make_agent() as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}", x509_svid_ttl="10s")
        seen: list[str] = []
        async with (
            Client(agent.socket) as client,
            X509Source(client) as source,
            TaskFeed(client, [TICKETS]) as feed,
            client.task("triage-ticket", params={"ticket": "1"}) as task,
            guarded(source, feed, seen) as port,
        ):
            await feed.wait_ready(10)
            held, answers, refused = CertificateTokens(task, source), [], []
            before = await held.get(TICKETS)
            ends = asyncio.get_running_loop().time() + 60
            while len(set(seen)) < 3 and asyncio.get_running_loop().time() < ends:
                bound = await held.get(TICKETS)
                svid = bound.present.context.default  # type: ignore[union-attr]
                assert bound.token.expires_at <= svid.not_after
                tls = bound.client_context(authorize_id(TRIAGE))
                answers.append(await ask(port, tls, bound.token.token))
                if svid.leaf != before.present.context.default.leaf:  # type: ignore[union-attr]
                    refused.append(await ask(port, tls, before.token.token))
                    before = bound
                await asyncio.sleep(0.05)
            assert (3, {"ok"}) == (len(set(seen)), set(answers))
            assert {"wrong_binding"} == set(refused)


# --- the command ----------------------------------------------------------------------------------------------------


class TestCommand:
    def test_token_and_proof(self, shared: AgentProcess, tmp_path: Path) -> None:
        """`task token --bound` and `task proof` go together; the token is read from a file or from standard input."""
        begun = shared.json("task", "begin", "--type", "triage-ticket", "--param", "ticket=42", "--holder-pid", pid())
        got = shared.json("task", "token", begun["id"], "--resource", TICKETS, "--bound")
        assert "DPoP" == got["token_type"]
        file = tmp_path / "token"
        file.write_text(got["access_token"] + "\n")
        arguments = ["task", "proof", begun["id"], "--method", "PUT", "--url", URL, "--nonce", "n"]
        made = shared.json(*arguments, "--token-file", str(file))
        assert {"proof", "method", "url", "task_id"} == set(made)
        claims = part(made["proof"], 1)
        assert ("PUT", URL, sha256(got["access_token"].encode()), "n") == (
            *(claims[name] for name in ("htm", "htu", "ath", "nonce")),
        )
        file.write_text("")
        done = shared.run(*arguments, "--token-file", str(file), check=False)
        assert (2, True) == (done.returncode, "there is no token" in done.stderr)

    def test_certificate(self, shared: AgentProcess, client: SyncClient, tmp_path: Path) -> None:
        """`task token --certificate` binds to the SVID in a PEM file."""
        svid = client.fetch_x509_svids().default
        file = tmp_path / "svid.pem"
        file.write_bytes(svid.chain_pem)
        begun = shared.json("task", "begin", "--type", "triage-ticket", "--param", "ticket=42", "--holder-pid", pid())
        got = shared.json("task", "token", begun["id"], "--resource", TICKETS, "--certificate", str(file))
        assert {"x5t#S256": sha256(svid.leaf.public_bytes(Encoding.DER))} == part(got["access_token"], 1)["cnf"]

    def test_digest(self, shared: AgentProcess, tmp_path: Path) -> None:
        """`task digest` prints what a service makes of the same request, and asks no agent."""
        file = tmp_path / "content"
        file.write_bytes(b"{}")
        arguments = ["task", "digest", "--method", "POST", "--target", "/things/1?really=yes", "--content", str(file)]
        assert {"params_digest": DIGEST} == shared.json(*arguments)
        begun = shared.json("task", "begin", "--type", "careful", "--holder-pid", pid())
        got = shared.json("task", "token", begun["id"], "--bound", "--params-digest", DIGEST)
        assert DIGEST == part(got["access_token"], 1)["authorization_details"][0]["params_digest"]
        done = shared.run("task", "token", begun["id"], "--bound", check=False)
        assert (1, True) == (done.returncode, "next:  `sojourn task digest`" in done.stderr)
        done = shared.run("task", "token", begun["id"], "--params-digest", DIGEST, check=False)
        assert (1, True) == (done.returncode, "next:  `sojourn task token --bound`" in done.stderr)

    @pytest.mark.parametrize(
        "wrong",
        [
            [],
            ["--method", "GET"],
            ["--tool", "t", "--method", "GET", "--target", "/"],
            ["--method", "GET", "--target", "https://a.example/x"],
            ["--method", "GET", "--target", "/", "--content", "/nonexistent"],
        ],
    )
    def test_what_has_no_digest(self, shared: AgentProcess, wrong: list[str]) -> None:
        """`task digest` is for one request, whole."""
        assert 2 == shared.run("task", "digest", *wrong, check=False).returncode


def pid() -> str:
    return str(os.getpid())
