"""SPIFFE_Workload_API.md, rows WAPI-05 to WAPI-62: what our client makes of the answers of an agent."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.ca import FakeCa
from fakes.fake_agent import Fail, ScriptedAgent, x509_response
from fakes.task_feed import signing_key
from harness.looking import WAIT_SECONDS
from sojourn._pb import workload_pb2 as pb
from sojourn.errors import InvalidSvid, InvalidToken, NoIdentity, SojournError, Unavailable
from sojourn.jose.jws import SigningKey
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.x509_source import X509Source
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffetls.authorize import authorize_any
from sojourn.spiffetls.peer import PeerCheck
from sojourn.workloadapi.messages import X509Context, x509_context

WEB = SpiffeId.parse("spiffe://example.org/web")
KEY = signing_key("k1")


def token(key: SigningKey = KEY) -> str:
    now = datetime.now(UTC)
    return jwtsvid.issue(key, WEB, ["db"], issued_at=now, expires_at=now + timedelta(minutes=5)).token


async def test_WAPI_05_streams(fake_agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """Our client keeps its stream open over many messages, and begins it anew as soon as it ends."""
    heard: list[SojournError] = []
    svids = [ca.svid() for _ in range(4)]
    answers = [x509_response(ca, svid) for svid in svids]
    fake_agent.push("FetchX509SVID", *answers[:3])
    async with asyncio.timeout(WAIT_SECONDS), contextlib.aclosing(client.watch_x509_contexts(heard.append)) as contexts:
        assert [svid.serial for svid in svids[:3]] == [(await anext(contexts)).default.serial for _ in range(3)]
        assert 1 == len(fake_agent.requests)
        fake_agent.push("FetchX509SVID", None, answers[3])
        assert svids[3].serial == (await anext(contexts)).default.serial
    assert (2, [Unavailable]) == (len(fake_agent.requests), [type(error) for error in heard])


async def test_WAPI_10_empty_fields(fake_agent: ScriptedAgent, client: Client, ca: FakeCa, other_ca: FakeCa) -> None:
    """What an earlier message had and a later one leaves empty is gone: hint, revocation lists, foreign bundles."""
    svid, revoked = ca.svid(), ca.svid()
    whole = x509_response(ca, svid, hint="main", federated=(other_ca,), crl=(ca.crl(revoked),))
    fake_agent.push("FetchX509SVID", whole)
    async with asyncio.timeout(WAIT_SECONDS), X509Source(client) as source:
        assert ("main", 2, 1) == _extent(source)
        version = source.version
        fake_agent.push("FetchX509SVID", x509_response(ca, svid))
        await source.wait_update(version)
        assert ("", 1, 0) == _extent(source)


def _extent(source: X509Source) -> tuple[str, int, int]:
    context = source.present.context
    assert context is not None
    return context.default.hint, len(context.bundles), len(context.revoked)


async def test_WAPI_11_absent_data(fake_agent: ScriptedAgent, client: Client, ca: FakeCa, other_ca: FakeCa) -> None:
    """An SVID or a bundle that a later message does not have is dropped, and a peer of that trust domain is refused."""
    web, db, peer = ca.svid("/web"), ca.svid("/db"), other_ca.svid()
    fake_agent.push("FetchX509SVID", x509_response(ca, web, db, federated=(other_ca,)))
    async with asyncio.timeout(WAIT_SECONDS), X509Source(client) as source:
        before, version = source.present.context, source.version
        fake_agent.push("FetchX509SVID", x509_response(ca, db))
        await source.wait_update(version)
        after = source.present.context
    assert before is not None
    assert after is not None
    assert [["/web", "/db"], ["/db"]] == [[svid.spiffe_id.path for svid in each.svids] for each in (before, after)]
    assert peer.spiffe_id == _admitted(before, peer.chain)
    with pytest.raises(OSError, match="no X.509 bundle for trust domain"):  # noqa: RUF043
        _admitted(after, peer.chain)


def _admitted(context: X509Context, chain: Any) -> SpiffeId:
    """The peer that our TLS check admits with this chain."""
    return PeerCheck(context, authorize_any())([each.public_bytes(Encoding.DER) for each in chain])


# --- mandatory fields -----------------------------------------------------------------------------------------------


def cleared(name: str) -> Callable[[FakeCa], pb.X509SVIDResponse]:
    """An answer whose SVID lacks one field."""

    def make(ca: FakeCa) -> pb.X509SVIDResponse:
        answer = x509_response(ca, ca.svid())
        answer.svids[0].ClearField(name)
        return answer

    return make


X509_ANSWERS = [
    pytest.param(lambda _: pb.X509SVIDResponse(), id="no SVID"),
    pytest.param(cleared("spiffe_id"), id="no ID"),
    pytest.param(cleared("x509_svid"), id="no chain"),
    pytest.param(cleared("x509_svid_key"), id="no key"),
    pytest.param(cleared("bundle"), id="no bundle"),
]


@pytest.mark.parametrize("make", X509_ANSWERS)
async def test_WAPI_13_mandatory_fields_of_svids(
    fake_agent: ScriptedAgent, client: Client, ca: FakeCa, make: Callable[[FakeCa], pb.X509SVIDResponse]
) -> None:
    """An answer that leaves a mandatory field empty is reported and discarded: what was there before stays."""
    heard: list[SojournError] = []
    svids = ca.svid(), ca.svid()
    bad = make(ca)
    fake_agent.push("FetchX509SVID", x509_response(ca, svids[0]), bad, None, x509_response(ca, svids[1]))
    async with asyncio.timeout(WAIT_SECONDS), contextlib.aclosing(client.watch_x509_contexts(heard.append)) as contexts:
        assert [svid.serial for svid in svids] == [(await anext(contexts)).default.serial for _ in svids]
    assert InvalidSvid in [type(error) for error in heard]


JWT_ANSWERS = [
    pytest.param(pb.JWTSVIDResponse(), id="no SVID"),
    pytest.param(pb.JWTSVIDResponse(svids=[pb.JWTSVID(svid=token())]), id="no ID"),
    pytest.param(pb.JWTSVIDResponse(svids=[pb.JWTSVID(spiffe_id=str(WEB))]), id="no token"),
]


@pytest.mark.parametrize("answer", JWT_ANSWERS)
async def test_WAPI_13_mandatory_fields_of_a_token(
    fake_agent: ScriptedAgent, client: Client, answer: pb.JWTSVIDResponse
) -> None:
    """No token comes of an answer that has none, or none with its ID."""
    fake_agent.answers["FetchJWTSVID"] = answer
    with pytest.raises(SojournError):
        await client.fetch_jwt_svid("db")


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.fetch_x509_bundles(), id="X.509 bundles"),
        pytest.param(lambda client: client.fetch_jwt_bundles(), id="JWT bundles"),
        pytest.param(lambda client: client.fetch_jwt_svids("db"), id="JWT-SVIDs"),
    ],
)
async def test_WAPI_13_mandatory_lists(
    fake_agent: ScriptedAgent, client: Client, call: Callable[[Client], Any]
) -> None:
    """An answer whose mandatory list or map is empty is reported."""
    fake_agent.push("FetchX509Bundles", pb.X509BundlesResponse())
    fake_agent.push("FetchJWTBundles", pb.JWTBundlesResponse())
    fake_agent.answers["FetchJWTSVID"] = pb.JWTSVIDResponse()
    with pytest.raises(SojournError):
        await call(client)


def test_WAPI_14_bundle_of_the_peer(ca: FakeCa, other_ca: FakeCa) -> None:
    """A peer is checked against the bundle of its own trust domain alone; without that bundle it is not trusted."""
    ours = x509_response(ca, ca.svid())
    both, alone = x509_context(x509_response(ca, ca.svid(), federated=(other_ca,))), x509_context(ours)
    posing = ca.svid(uri="spiffe://other.example/web")  # signed by our own authority
    assert "/web" == _admitted(both, ca.svid().chain).path == _admitted(both, other_ca.svid().chain).path
    for context, chain in ((both, posing.chain), (alone, posing.chain), (alone, other_ca.svid().chain)):
        with pytest.raises(OSError, match="bundle"):
            _admitted(context, chain)


# --- several SVIDs --------------------------------------------------------------------------------------------------


def hinted(ca: FakeCa, *hints: str) -> X509Context:
    """SVIDs /0, /1, … with these hints."""
    answer = x509_response(ca, *[ca.svid(f"/{number}") for number in range(len(hints))])
    for message, hint in zip(answer.svids, hints, strict=True):
        message.hint = hint
    return x509_context(answer)


def test_WAPI_24_first_of_a_hint(ca: FakeCa) -> None:
    """Of two SVIDs with the same hint our client takes the first."""
    found = hinted(ca, "other", "same", "same").hinted("same")
    assert found is not None
    assert "/1" == found.spiffe_id.path


async def test_WAPI_26_redaction(fake_agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """An SVID that is redacted, or a refusal on an open stream, puts an end to its use."""
    fake_agent.push("FetchX509SVID", x509_response(ca, ca.svid("/web"), ca.svid("/db")))
    async with asyncio.timeout(WAIT_SECONDS), X509Source(client) as source:
        version = source.version
        fake_agent.push("FetchX509SVID", x509_response(ca, ca.svid("/db")))
        version = await source.wait_update(version)
        assert "/db" == source.svid.spiffe_id.path
        fake_agent.push("FetchX509SVID", Fail(grpc.StatusCode.PERMISSION_DENIED, "no identity issued"))
        await source.wait_update(version)
        with pytest.raises(NoIdentity):
            _ = source.svid
        with pytest.raises(NoIdentity):
            _ = source.bundles


async def test_WAPI_27_x509_bundles_for_x509(fake_agent: ScriptedAgent, client: Client, ca: FakeCa) -> None:
    """What came as an X.509 bundle verifies no token, though the key in it signed that token."""
    posing = SigningKey.from_private("k1", ca.intermediate_key)
    jwks = b'{"keys": []}'
    fake_agent.push("FetchX509SVID", x509_response(ca, ca.svid()))
    fake_agent.push("FetchX509Bundles", pb.X509BundlesResponse(bundles={"spiffe://example.org": ca.root_der}))
    fake_agent.push("FetchJWTBundles", pb.JWTBundlesResponse(bundles={"spiffe://example.org": jwks}))
    svid = (await client.fetch_x509_svids()).default
    assert {ca.trust_domain: (ca.root,)} == await client.fetch_x509_bundles()
    keys = await client.fetch_jwt_bundles()
    with pytest.raises(InvalidToken, match="not found in trust domain"):
        jwtsvid.verify(token(posing), ["db"], keys, datetime.now(UTC))
    assert posing.public.jwk["x"] == SigningKey.from_private("k", ca.intermediate_key).public.jwk["x"]
    assert svid.chain[1].public_key() == ca.intermediate_key.public_key()


@pytest.mark.parametrize("audience", ["", (), ("db", "")])
async def test_WAPI_30_audience(fake_agent: ScriptedAgent, client: Client, audience: Any) -> None:
    """Our client asks for no token without an audience."""
    fake_agent.answers["FetchJWTSVID"] = pb.JWTSVIDResponse(svids=[pb.JWTSVID(spiffe_id=str(WEB), svid=token())])
    with pytest.raises(SojournError):
        await client.fetch_jwt_svids(audience)
    assert [] == fake_agent.requests


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"claims": {"sub": str(WEB), "aud": ["db"]}}, id="no ID"),
        pytest.param({"spiffe_id": str(WEB)}, id="no claims"),
    ],
)
async def test_WAPI_40_fields_of_a_verdict(fake_agent: ScriptedAgent, client: Client, answer: dict[str, Any]) -> None:
    """An answer to a validation that lacks the ID or the claims is an error, and no verdict."""
    made = pb.ValidateJWTSVIDResponse(spiffe_id=answer.get("spiffe_id", ""))
    made.claims.update(answer.get("claims", {}))
    if "claims" not in answer:
        made.ClearField("claims")
    fake_agent.answers["ValidateJWTSVID"] = made
    with pytest.raises(SojournError):
        await client.validate_jwt_svid(token(), "db")


async def test_WAPI_41_the_agent_validates(fake_agent: ScriptedAgent, client: Client) -> None:
    """Our client puts a token to the agent as it is, for the one audience, and believes the answer."""
    made = pb.ValidateJWTSVIDResponse(spiffe_id=str(WEB))
    made.claims.update({"sub": str(WEB), "aud": ["db"], "exp": 1.0})
    fake_agent.answers["ValidateJWTSVID"] = made
    assert (WEB, {"sub": str(WEB), "aud": ["db"], "exp": 1.0}) == await client.validate_jwt_svid("a.b.c", "db")
    assert [("ValidateJWTSVID", pb.ValidateJWTSVIDRequest(audience="db", svid="a.b.c"))] == fake_agent.requests


def test_WAPI_60_default_is_the_first(ca: FakeCa) -> None:
    """The default SVID is the first, whatever the hints say."""
    assert "/0" == hinted(ca, "", "main", "default").default.spiffe_id.path


@pytest.mark.parametrize("hints", [("", ""), ("unheard of", "\u00fc\n"), ("x" * 5000, "")])
def test_WAPI_62_unexpected_hints(ca: FakeCa, hints: tuple[str, str]) -> None:
    """A hint that is missing or that nobody expects changes nothing: the SVIDs are there, and the default is."""
    context = hinted(ca, *hints)
    assert (list(hints), "/0") == ([svid.hint for svid in context.svids], context.default.spiffe_id.path)
    assert context.hinted("main") is None
