"""WIT-SVID.md, rows WIT-01 to WIT-20, and the Workload API's profile for it, WAPI-52 to WAPI-54.

The agent here has `identity.wit_svids` switched on.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from conformance.ground import WorkloadWire
from fakes.task_feed import signing_key
from harness.agent import AgentProcess
from harness.exchanges import form, part, post
from harness.raw import WORKLOAD_API, Admin, module_agent, refusal
from joserfc import jws
from joserfc.jwk import ECKey, KeySet
from sojourn._pb import workload_pb2 as pb
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.ids import TrustDomain

HERE = TrustDomain("example.org")
ALGORITHMS = {"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}


@contextmanager
def own_agent() -> Iterator[AgentProcess]:
    with module_agent("[identity]\nwit_svids = true\n") as running, Admin(running.admin_socket) as admin:
        admin.register("/me", f"unix:uid:{os.getuid()}", hint="main", id="a", jwt_svid_ttl=3_600)
        admin.register("/also", f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}", jwt_svid_ttl=10)
        admin.register("/twin", f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}", hint="main", id="b")
        yield running


@pytest.fixture(scope="module")
def wit_agent() -> Iterator[AgentProcess]:
    with own_agent() as running:
        yield running


@pytest.fixture(scope="module")
def wit_wire(wit_agent: AgentProcess) -> Iterator[WorkloadWire]:
    with WorkloadWire(wit_agent.socket) as wire:
        yield wire


def wits(wire: WorkloadWire, spiffe_id: str = "") -> Any:
    return wire.first(WORKLOAD_API + "FetchWITSVID", pb.WITSVIDRequest(spiffe_id=spiffe_id), pb.WITSVIDResponse).svids


def key_set(wire: WorkloadWire) -> dict[str, Any]:
    answer = wire.first(WORKLOAD_API + "FetchWITBundles", pb.WITBundlesRequest(), pb.WITBundlesResponse)
    return json.loads(answer.bundles["spiffe://example.org"])


@pytest.fixture(scope="module")
def wit(wit_wire: WorkloadWire) -> Any:
    """The WIT-SVID of /me."""
    [svid] = wits(wit_wire, "spiffe://example.org/me")
    return svid


@pytest.fixture(scope="module")
def header(wit: Any) -> dict[str, Any]:
    return part(wit.wit_svid, 0)


@pytest.fixture(scope="module")
def claims(wit: Any) -> dict[str, Any]:
    return part(wit.wit_svid, 1)


@pytest.fixture(scope="module")
def document(wit_agent: AgentProcess) -> dict[str, Any]:
    """The bundle document of the agent."""
    with Admin(wit_agent.admin_socket) as admin:
        answer = admin.unary("/sojourn.v1.Admin/GetBundle", admin_pb2.GetBundleRequest(), admin_pb2.GetBundleResponse)
    return json.loads(answer.spiffe_bundle)


def test_WIT_01_compact_with_key_id(wit: Any, header: dict[str, Any], document: dict[str, Any]) -> None:
    """A WIT-SVID is a compact JWS whose `kid` is that of one key of the bundle."""
    assert 3 == len(wit.wit_svid.split("."))
    assert 1 == [key.get("kid") for key in document["keys"]].count(header["kid"])


def test_WIT_02_type(header: dict[str, Any]) -> None:
    """The type of a WIT-SVID is `wit+jwt`."""
    assert "wit+jwt" == header["typ"]


def test_WIT_03_algorithm(header: dict[str, Any]) -> None:
    """A WIT-SVID is signed by one of the nine algorithms."""
    assert header["alg"] in ALGORITHMS


def test_WIT_04_no_further_headers(header: dict[str, Any]) -> None:
    """The header has no further parameters."""
    assert {"alg", "kid", "typ"} == set(header)


def test_WIT_05_subject(claims: dict[str, Any]) -> None:
    """The subject of a WIT-SVID is the SPIFFE ID."""
    assert "spiffe://example.org/me" == claims["sub"]


def test_WIT_06_confirmation(wit: Any, claims: dict[str, Any]) -> None:
    """`cnf.jwk` is the public part of the key that comes with it, and nothing private."""
    private = json.loads(wit.wit_svid_key)
    assert {name: private[name] for name in ("kty", "crv", "x", "y", "alg")} == claims["cnf"]["jwk"]
    assert {"jwk"} == set(claims["cnf"])


def test_WIT_07_algorithm_of_the_key(claims: dict[str, Any]) -> None:
    """The key names the algorithm that it is for, one of the nine."""
    assert claims["cnf"]["jwk"]["alg"] in ALGORITHMS


def test_WIT_08_expiry(claims: dict[str, Any]) -> None:
    """A WIT-SVID has an end, which is ahead."""
    assert time.time() < claims["exp"] <= time.time() + 3_601


def test_WIT_11_no_issuer(claims: dict[str, Any]) -> None:
    """A WIT-SVID has no `iss`."""
    assert "iss" not in claims


def test_WIT_12_no_audience(claims: dict[str, Any]) -> None:
    """A WIT-SVID has no `aud`."""
    assert "aud" not in claims


def test_WIT_14_never_accepted_alone(wit_agent: AgentProcess, wit_wire: WorkloadWire, wit: Any) -> None:
    """Nothing here takes a WIT-SVID for itself: neither as a JWT-SVID nor as a token nor in exchange for one."""
    code, text = refusal(lambda: wit_wire.validate("a", wit.wit_svid))
    assert ("INVALID_ARGUMENT", True) == (code, "not a JWT-SVID" in text)
    answer = post(wit_agent.socket, form(wit.wit_svid))
    assert (400, "invalid_request") == (answer.status_code, answer.json()["error"])
    verdict = wit_agent.run("validate", wit.wit_svid, "--audience", "a", check=False)
    assert 1 == verdict.returncode


def test_WIT_18_shared_by_instances(wit_wire: WorkloadWire, wit: Any) -> None:
    """Whoever has the entry gets the same token and key while they last."""
    assert [wit] == list(wits(wit_wire, "spiffe://example.org/me"))


def test_WIT_19_published_keys(document: dict[str, Any]) -> None:
    """In the bundle its keys have the use `wit-svid` and a `kid` that no other key has."""
    named = [key["kid"] for key in document["keys"] if "kid" in key]
    assert sorted(set(named)) == sorted(named)
    assert ["jwt-svid", "wit-svid", "x509-svid"] == sorted(key["use"] for key in document["keys"])


def test_WIT_20_only_its_own_keys(document: dict[str, Any]) -> None:
    """Our reader keeps its keys apart from those of JWT-SVIDs; without any, there is none."""
    read = bundles.parse(HERE, document)
    assert (1, 1) == (len(read.wit_authorities), len(read.jwt_authorities))
    assert set() == set(read.wit_authorities) & set(read.jwt_authorities)
    jwt = {**signing_key("k1").public.jwk, "use": "jwt-svid"}
    assert {} == bundles.parse(HERE, {"keys": [jwt]}).wit_authorities


def test_WAPI_02_wit_profile(wit_wire: WorkloadWire) -> None:
    """Where it is switched on, both calls of the profile answer."""
    assert wits(wit_wire)
    assert key_set(wit_wire)["keys"]


def test_WAPI_52_all_identities(wit_wire: WorkloadWire) -> None:
    """Without an ID all identities come, hints unique; with one, that; with another's, PERMISSION_DENIED."""
    found = {svid.spiffe_id: svid.hint for svid in wits(wit_wire)}
    assert {"spiffe://example.org/me": "main", "spiffe://example.org/also": ""} == found
    assert ["spiffe://example.org/also"] == [svid.spiffe_id for svid in wits(wit_wire, "spiffe://example.org/also")]
    assert ("PERMISSION_DENIED", "no identity issued") == refusal(lambda: wits(wit_wire, "spiffe://example.org/x"))
    assert "INVALID_ARGUMENT" == refusal(lambda: wits(wit_wire, "not an ID"))[0]


@pytest.mark.forked
def test_WAPI_52_pushed(wit_wire: WorkloadWire) -> None:
    """Before it ends, the next one with another key is pushed to the stream."""
    request = pb.WITSVIDRequest(spiffe_id="spiffe://example.org/also")
    stream = wit_wire.stream(WORKLOAD_API + "FetchWITSVID", request, pb.WITSVIDResponse, timeout=30)
    [first], [second] = next(stream).svids, next(stream).svids
    stream.cancel()
    assert time.time() < part(first.wit_svid, 1)["exp"]
    assert part(first.wit_svid, 1)["cnf"] != part(second.wit_svid, 1)["cnf"]


def test_WAPI_53_token_and_key(wit_wire: WorkloadWire, wit: Any) -> None:
    """The token is a compact JWS that the published key verifies, and its key is a private JWK that signs for it."""
    jws.deserialize_compact(wit.wit_svid, KeySet.import_key_set(key_set(wit_wire)))
    private = ECKey.import_key(json.loads(wit.wit_svid_key))
    proof = jws.serialize_compact({"alg": "ES256"}, b"proof", private)
    jws.deserialize_compact(proof, ECKey.import_key(part(wit.wit_svid, 1)["cnf"]["jwk"]))


def test_WAPI_54_bundles(wit_wire: WorkloadWire, header: dict[str, Any]) -> None:
    """The bundles have at least the own trust domain; each key has a `kid`, and the token's is among them."""
    assert header["kid"] in {key["kid"] for key in key_set(wit_wire)["keys"]}


def test_wit_keys_live_as_others_do() -> None:
    """WIT keys are prepared, activated, tainted and revoked like the others: what is served follows."""
    with own_agent() as agent, WorkloadWire(agent.socket) as wire:
        lives(agent, wire)


def lives(wit_agent: AgentProcess, wit_wire: WorkloadWire) -> None:
    request = pb.WITSVIDRequest(spiffe_id="spiffe://example.org/me")
    stream = wit_wire.stream(WORKLOAD_API + "FetchWITSVID", request, pb.WITSVIDResponse, timeout=30)
    [first] = next(stream).svids
    old = part(first.wit_svid, 0)["kid"]
    wit_agent.run("authority", "rotate", "wit", "--overlap", "0s")
    wit_agent.run("authority", "taint", old)
    [second] = next(stream).svids
    assert old != part(second.wit_svid, 0)["kid"]
    wit_agent.run("authority", "revoke", old)
    assert old not in {key["kid"] for key in key_set(wit_wire)["keys"]}
    wit_agent.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/me")
    [third] = next(stream).svids
    assert part(second.wit_svid, 1)["jti"] != part(third.wit_svid, 1)["jti"]
    with pytest.raises(grpc.RpcError) as ended:
        next(stream)
    assert grpc.StatusCode.UNAVAILABLE == ended.value.code()
