"""SPIFFE_Trust_Domain_and_Bundle.md, rows BND-01 to BND-21: the bundle that the agent publishes, and our reader."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conformance.ground import WorkloadWire
from fakes.authorities import authority_in
from fakes.ca import FakeCa
from fakes.clock import FakeClock
from fakes.task_feed import signing_key
from harness.agent import AgentProcess
from harness.nodeagent import NodeAgent
from harness.raw import Admin
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn.errors import CannotStart, InvalidBundle, InvalidSvid, InvalidToken
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import verify_chain
from sojourn.workloadapi import messages

HERE = TrustDomain("example.org")
KEY = signing_key("k1")
JWT = {**KEY.public.jwk, "use": "jwt-svid"}


@pytest.fixture(scope="module")
def answer(admin: Admin) -> admin_pb2.GetBundleResponse:
    return admin.unary("/sojourn.v1.Admin/GetBundle", admin_pb2.GetBundleRequest(), admin_pb2.GetBundleResponse)


@pytest.fixture(scope="module")
def document(answer: admin_pb2.GetBundleResponse) -> dict[str, Any]:
    """The bundle document of the agent."""
    return json.loads(answer.spiffe_bundle)


def kids(*keys: Any, **more: Any) -> list[str]:
    """The JWT keys that our reader takes from a bundle with these keys."""
    return list(bundles.parse(HERE, {**more, "keys": list(keys)}).jwt_authorities)


def test_BND_01_jwk_set(document: dict[str, Any]) -> None:
    """A bundle is a JWK Set: ours is one that our reader takes whole, and anything else is no bundle."""
    read = bundles.parse(HERE, document)
    assert len(document["keys"]) == len(read.x509_authorities) + len(read.jwt_authorities)
    assert document == read.document()
    for other in ({}, {"keys": None}, {"keys": {"k1": JWT}}, [JWT], "keys", None):
        with pytest.raises(InvalidBundle):
            bundles.parse(HERE, other)


def test_BND_02_name_beside_the_bundle(answer: Any, document: dict[str, Any], wire: WorkloadWire) -> None:
    """The trust domain's name goes with the bundle, which does not have it inside."""
    assert ("example.org", False) == (answer.trust_domain, "trust_domain" in document)
    assert {HERE: 1} == {
        domain: len(each) for domain, each in messages.x509_bundles(wire.x509_bundles().bundles).items()
    }
    assert HERE == bundles.parse(HERE, document).trust_domain


def test_BND_03_extra_parameters(document: dict[str, Any]) -> None:
    """Ours has no further parameters at the top, and our reader needs none and passes over all."""
    assert {"keys", "spiffe_sequence", "spiffe_refresh_hint"} == set(document)
    assert ["k1"] == kids(JWT, trust_domain="other.org", spiffe_format=2) == kids(JWT)


def test_BND_04_sequence(document: dict[str, Any]) -> None:
    """The bundle has a sequence number."""
    assert document["spiffe_sequence"] > 0


def test_BND_05_sequence_grows(tmp_path: Path) -> None:
    """The sequence number is an integer that grows when the bundle changes, and over a restart; it may be large."""
    clock = FakeClock()
    authority = authority_in(tmp_path, clock)
    first = authority.bundle
    clock.advance(timedelta(days=15).total_seconds())
    authority.maintain()
    second = authority.bundle
    clock.advance(1)
    third = authority_in(tmp_path, clock).bundle
    assert (1, 2, 2) == tuple(len(each.jwt_authorities) for each in (first, second, third))
    assert 0 < first.sequence < second.sequence <= third.sequence
    assert {int} == {type(each.document()["spiffe_sequence"]) for each in (first, second, third)}
    assert 2**62 == bundles.parse(HERE, {"keys": [], "spiffe_sequence": 2**62}).sequence


def test_BND_05_sequence_over_a_clock_step(tmp_path: Path) -> None:
    """The sequence number does not shrink when the agent starts again on a clock that was set back."""
    clock = FakeClock()
    before = authority_in(tmp_path, clock).bundle.sequence
    clock.step_wall(-3600)
    assert before <= authority_in(tmp_path, clock).bundle.sequence


def test_BND_06_refresh_hint(agent: AgentProcess, document: dict[str, Any]) -> None:
    """The bundle says how often to look for a new one: every five minutes, unless the server of a node says."""
    server = json.loads(agent.server.bundle()) if isinstance(agent, NodeAgent) else {}
    assert server.get("spiffe_refresh_hint", 300) == document["spiffe_refresh_hint"]


@pytest.mark.parametrize("hint", ["300", 1.5, True, None, -1])
def test_BND_07_refresh_hint_is_an_integer(document: dict[str, Any], hint: Any) -> None:
    """The refresh hint is a whole number of seconds; our reader refuses another thing there."""
    assert int is type(document["spiffe_refresh_hint"])
    with pytest.raises(InvalidBundle, match="spiffe_refresh_hint"):
        bundles.parse(HERE, {"keys": [JWT], "spiffe_refresh_hint": hint})


def test_BND_08_keys(document: dict[str, Any]) -> None:
    """The list of keys is there, also if it is empty."""
    assert list is type(document["keys"])
    assert [] == Bundle(HERE, ()).document()["keys"]


UNKNOWN = {
    "kind": {**JWT, "kid": "a", "kty": "OKP", "crv": "Ed25519"},
    "symmetric kind": {"kty": "oct", "k": "c2VjcmV0", "use": "jwt-svid", "kid": "a"},
    "kind of no sense": {**JWT, "kid": "a", "kty": ["EC"]},
    "no kind": {"use": "jwt-svid", "kid": "a"},
    "use": {**JWT, "kid": "a", "use": "wit-svid"},
    "use of no sense": {**JWT, "kid": "a", "use": ["jwt-svid"]},
}


@pytest.mark.parametrize("jwk", UNKNOWN.values(), ids=UNKNOWN)
def test_BND_09_unknown_keys(jwk: dict[str, Any]) -> None:
    """A key of a kind or a use that we do not know is passed over, and the rest is used."""
    assert ["k1"] == kids(jwk, JWT) == kids(JWT, jwk)


@pytest.mark.parametrize("keys", [[], [UNKNOWN["kind"]], [UNKNOWN["use"]]], ids=["none", "kind", "use"])
def test_BND_10_no_usable_key(ca: FakeCa, keys: list[Any]) -> None:
    """A bundle without a usable key is legal, and says that no SVID of its trust domain is to be trusted."""
    read = bundles.parse(HERE, {"keys": keys})
    svid, now = ca.svid(), datetime.now(UTC)
    with pytest.raises(InvalidSvid, match="for trust domain"):
        verify_chain(svid.chain, read.x509_authorities, HERE, now)
    web = SpiffeId.parse("spiffe://example.org/web")
    token = jwtsvid.issue(KEY, web, ["db"], issued_at=now, expires_at=now + timedelta(minutes=1)).token
    with pytest.raises(InvalidToken, match="not found in trust domain"):
        jwtsvid.verify(token, ["db"], {HERE: read.jwt_authorities}, now)
    assert (
        web
        == jwtsvid.verify(token, ["db"], {HERE: bundles.parse(HERE, {"keys": [JWT]}).jwt_authorities}, now).spiffe_id
    )


def test_BND_11_no_other_parameter(document: dict[str, Any]) -> None:
    """A key has the parameters of its kind, its use, and its certificate or its ID, and no other."""
    point = {"kty", "crv", "x", "y"}
    assert [{*point, "use", "x5c"}, {*point, "use", "kid"}] == [set(jwk) for jwk in document["keys"]]


def test_BND_12_kind(document: dict[str, Any]) -> None:
    """Each key says of which kind it is."""
    assert ["EC", "EC"] == [jwk["kty"] for jwk in document["keys"]]


def test_BND_13_use(document: dict[str, Any]) -> None:
    """Each key says in the standard's words what it is for; a word in other letters means nothing to our reader."""
    assert ["x509-svid", "jwt-svid"] == [jwk["use"] for jwk in document["keys"]]
    assert [[], ["k1"]] == [kids({**JWT, "use": use}) for use in ("JWT-SVID", "jwt-svid")]


@pytest.mark.parametrize("use", [None, "", "sig", "any"])
def test_BND_14_without_a_use(document: dict[str, Any], use: str | None) -> None:
    """A key without a use, or with an unknown one, is passed over whole: neither its certificate nor its ID counts."""
    [x509_key] = [jwk for jwk in document["keys"] if "x5c" in jwk]
    spoiled = [{**jwk, "use": use} for jwk in (x509_key, JWT)]
    if use is None:
        for jwk in spoiled:
            del jwk["use"]
    read = bundles.parse(HERE, {"keys": spoiled})
    assert ((), {}) == (read.x509_authorities, dict(read.jwt_authorities))


def test_BND_21_keys_are_not_shared(tmp_path: Path) -> None:
    """The keys of one trust domain are not used for another: an agent does not start on them."""
    authority_in(tmp_path, FakeClock())
    with pytest.raises(CannotStart, match="not a root of trust domain"):
        authority_in(tmp_path, FakeClock(), trust_domain=TrustDomain("other.org"))


def test_BND_21_jwt_keys_are_not_shared(tmp_path: Path) -> None:
    """The JWT keys of one trust domain are not used for another, when they are all that was left behind."""
    kept = authority_in(tmp_path, FakeClock()).jwt_keys
    (tmp_path / "root.pem").unlink()
    try:
        other = authority_in(tmp_path, FakeClock(), trust_domain=TrustDomain("other.org"))
    except CannotStart:
        return
    assert set() == set(kept) & set(other.jwt_keys)
