"""Calls of the client against a real socket."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.ca import FakeCa
from fakes.fake_agent import Fail, ScriptedAgent, x509_response
from harness.looking import WAIT_SECONDS
from sojourn import errors
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import validation_pb2
from sojourn.jose.jws import SigningKey
from sojourn.sdk.client.client import Client
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain

KEY = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
WEB = SpiffeId.parse("spiffe://example.org/web")


def jwt(audience: str = "them") -> str:
    now = datetime.now(UTC)
    return jwtsvid.issue(KEY, WEB, [audience], issued_at=now, expires_at=now + timedelta(minutes=5)).token


class TestX509:
    async def test_fetch(self, agent: ScriptedAgent, client: Client, ca: FakeCa, other_ca: FakeCa) -> None:
        """A fetch gives the first message: SVIDs in order, own and federated bundles, hints."""
        first, second = ca.svid("/web"), ca.svid("/db")
        agent.push("FetchX509SVID", x509_response(ca, first, second, hint="internal", federated=(other_ca,)))
        context = await client.fetch_x509_svids()
        assert [first.spiffe_id, second.spiffe_id] == [svid.spiffe_id for svid in context.svids]
        assert first.leaf == context.default.leaf
        assert {ca.trust_domain: (ca.root,), other_ca.trust_domain: (other_ca.root,)} == context.bundles
        assert first.leaf == context.hinted("internal").leaf
        assert context.hinted("external") is None

    async def test_security_metadata(self, agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
        """Each call carries the metadata that the Workload API asks for."""
        agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
        await client.fetch_x509_svids()
        assert agent.metadata[0]["workload.spiffe.io"] == "true"

    async def test_bundles(self, agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
        """X.509 bundles are by trust domain."""
        bundles = {"spiffe://example.org": ca.root_der}
        agent.push("FetchX509Bundles", workload_pb2.X509BundlesResponse(bundles=bundles))
        assert {ca.trust_domain: (ca.root,)} == await client.fetch_x509_bundles()

    async def test_watch_over_rotation(self, agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
        """A watch yields each new SVID on one stream."""
        svids = [ca.svid(), ca.svid()]
        agent.push("FetchX509SVID", *(x509_response(ca, svid) for svid in svids))
        async with asyncio.timeout(WAIT_SECONDS), contextlib.aclosing(client.watch_x509_contexts()) as contexts:
            assert [svid.serial for svid in svids] == [(await anext(contexts)).default.serial for _ in svids]
        assert len(agent.requests) == 1

    async def test_watch_reconnects(self, agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
        """A refusal, an ended stream and a bad message are told, and the stream is begun anew."""
        heard: list[errors.SojournError] = []
        agent.push(
            "FetchX509SVID",
            Fail(grpc.StatusCode.PERMISSION_DENIED, "no identity issued"),
            None,
            workload_pb2.X509SVIDResponse(),
            None,
            x509_response(ca, ca.svid()),
        )
        async with (
            asyncio.timeout(WAIT_SECONDS),
            contextlib.aclosing(client.watch_x509_contexts(heard.append)) as contexts,
        ):
            assert (await anext(contexts)).default.spiffe_id.path == "/web"
        assert [errors.NoIdentity, errors.Unavailable, errors.InvalidSvid] == [type(error) for error in heard]

    @pytest.mark.parametrize("status", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED])
    async def test_watch_ends_for_good(self, agent: ScriptedAgent, client: Client, status: grpc.StatusCode) -> None:
        """A status that no attempt will cure ends the watch."""
        agent.push("FetchX509SVID", Fail(status))
        with pytest.raises((errors.InvalidInput, errors.Refused)):
            await anext(client.watch_x509_contexts())


class TestJwt:
    async def test_fetch(self, agent: ScriptedAgent, client: Client) -> None:
        """A JWT-SVID has its SPIFFE ID, hint and expiry, and its repr hides the token."""
        token = jwt()
        message = workload_pb2.JWTSVID(spiffe_id=str(WEB), svid=token, hint="h")
        agent.answers["FetchJWTSVID"] = workload_pb2.JWTSVIDResponse(svids=[message])
        svid = await client.fetch_jwt_svid("them", WEB)
        assert (WEB, token, "h") == (svid.spiffe_id, svid.token, svid.hint)
        assert svid.expires_at > datetime.now(UTC)
        assert token not in repr(svid)
        assert (["them"], str(WEB)) == (list(agent.requests[0][1].audience), agent.requests[0][1].spiffe_id)

    async def test_none(self, agent: ScriptedAgent, client: Client) -> None:
        """An answer without SVID is no identity."""
        agent.answers["FetchJWTSVID"] = workload_pb2.JWTSVIDResponse()
        with pytest.raises(errors.NoIdentity):
            await client.fetch_jwt_svid(["them"])

    async def test_wrong_subject(self, agent: ScriptedAgent, client: Client) -> None:
        """A JWT-SVID whose subject is not the SPIFFE ID beside it is refused."""
        message = workload_pb2.JWTSVID(spiffe_id="spiffe://example.org/db", svid=jwt())
        agent.answers["FetchJWTSVID"] = workload_pb2.JWTSVIDResponse(svids=[message])
        with pytest.raises(errors.InvalidToken):
            await client.fetch_jwt_svid("them")

    async def test_bundles(self, agent: ScriptedAgent, client: Client) -> None:
        """JWT bundles are by trust domain and key ID; a key of a kind we cannot use is left out."""
        jwks = b'{"keys": [{"kty": "OKP", "kid": "x", "crv": "Ed25519", "x": "AA"}]}'
        bundles = {"spiffe://example.org": jwks}
        agent.push("FetchJWTBundles", workload_pb2.JWTBundlesResponse(bundles=bundles))
        assert {TrustDomain("example.org"): {}} == await client.fetch_jwt_bundles()

    async def test_validate(self, agent: ScriptedAgent, client: Client) -> None:
        """Validation gives subject and claims as plain values."""
        answer = workload_pb2.ValidateJWTSVIDResponse(spiffe_id=str(WEB))
        answer.claims.update({"sub": str(WEB), "aud": ["them"], "exp": 1_700_000_000})
        agent.answers["ValidateJWTSVID"] = answer
        expected = (WEB, {"sub": str(WEB), "aud": ["them"], "exp": 1_700_000_000})
        assert expected == await client.validate_jwt_svid("t", "them")

    async def test_verdict(self, agent: ScriptedAgent, client: Client) -> None:
        """A token that is not good is a verdict with code and reason."""
        agent.answers["ValidateToken"] = validation_pb2.ValidateTokenResponse(
            valid=False, code="expired", reason="token has expired", kind=validation_pb2.TOKEN_KIND_TASK
        )
        verdict = await client.validate_token("t", "them")
        assert (verdict.valid, verdict.code, verdict.kind, verdict.spiffe_id) == (False, "expired", "task", None)


class TestErrors:
    @pytest.mark.parametrize(
        ("failure", "expected"),
        [
            (Fail(grpc.StatusCode.PERMISSION_DENIED, "no identity issued"), errors.NoIdentity),
            (Fail(grpc.StatusCode.PERMISSION_DENIED, "no"), errors.Refused),
            (Fail(grpc.StatusCode.PERMISSION_DENIED, "no", "policy_denied"), errors.PolicyDenied),
            (Fail(grpc.StatusCode.UNAVAILABLE, "no", "policy_denied"), errors.Unavailable),
            (
                Fail(grpc.StatusCode.UNAVAILABLE, "workload attestation failed: no", "attestation_failed"),
                errors.AttestationFailed,
            ),
            (Fail(grpc.StatusCode.INVALID_ARGUMENT, "bad"), errors.InvalidInput),
            (Fail(grpc.StatusCode.FAILED_PRECONDITION, "over"), errors.TaskOver),
            (Fail(grpc.StatusCode.NOT_FOUND, "none"), errors.NotFound),
            (Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "much"), errors.LimitExceeded),
            (Fail(grpc.StatusCode.UNIMPLEMENTED, "what"), errors.Refused),
            (Fail(grpc.StatusCode.INTERNAL, "oh"), errors.Unavailable),
        ],
    )
    async def test_statuses(
        self, agent: ScriptedAgent, client: Client, failure: Fail, expected: type[errors.SojournError]
    ) -> None:
        """Each status is one of our errors, with the agent's sentence and its stable code."""
        agent.answers["GetToken"] = failure
        with pytest.raises(errors.SojournError) as caught:
            await client.get_token("t1")
        assert expected is type(caught.value)
        assert (failure.details, failure.code) == (caught.value.public, caught.value.remote_code)

    async def test_nobody_there(self, tmp_path: Path) -> None:
        """Without a socket the sentence names the path and says how to start the agent."""
        path = tmp_path / "none.sock"
        async with Client(str(path)) as client:
            with pytest.raises(errors.Unreachable) as caught:
                await client.fetch_jwt_svid("them")
            with pytest.raises(errors.Unreachable):
                await client.fetch_x509_svids()
        assert str(path) in caught.value.public
        assert "sojourn agent run" in caught.value.public

    async def test_slow_agent(self, agent: ScriptedAgent, socket: Path) -> None:
        """An agent that does not answer in time is unavailable."""
        async with Client(str(socket), deadline_seconds=0.05) as client:
            with pytest.raises(errors.Unavailable):
                await client.fetch_x509_svids()

    async def test_not_open(self) -> None:
        """A client outside its block says how it is used."""
        with pytest.raises(errors.InvalidInput, match="async with"):
            await Client("/none").fetch_jwt_svid("them")

    async def test_odd_path(self, tmp_path: Path, ca: FakeCa) -> None:
        """A path with characters that mean something in a URI is reached."""
        folder = tmp_path / "a b%20?#c"
        folder.mkdir()
        agent = ScriptedAgent()
        agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(agent.handlers())
        link = tmp_path / "plain.sock"
        server.add_insecure_port(f"unix:{link}")
        await server.start()
        (folder / "a.sock").symlink_to(link)
        async with Client(str(folder / "a.sock")) as client:
            assert (await client.fetch_x509_svids()).default.spiffe_id.path == "/web"
        await server.stop(None)


async def test_an_agent_that_takes_its_time(agent: ScriptedAgent, socket: Path, tmp_path: Path, ca: FakeCa) -> None:
    """An agent on a busy machine, which says its first word late, is not taken for one that is not there."""

    passing: list[asyncio.Task[None] | None] = []

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.append(asyncio.current_task())
        await asyncio.sleep(0.5)
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))

    agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
    slow = tmp_path / "slow.sock"
    server = await asyncio.start_unix_server(late, slow)
    try:
        async with Client(str(slow), deadline_seconds=5) as client:
            assert await client.fetch_x509_svids()
    finally:
        server.close()
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(*(task for task in passing if task is not None), return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side is gone; a writer that nobody has closed fails whatever test comes next."""
    with contextlib.suppress(OSError):
        while block := await reader.read(65_536):
            writer.write(block)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
