"""JWT-SVID.md, rows JWT-01 to JWT-21: the tokens that the agent issued, and what our verifier refuses."""

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from conformance.ground import WorkloadWire, sockets_of
from cryptography.hazmat.primitives import hashes, hmac
from fakes.jws import encoded, joined
from fakes.task_feed import signing_key
from harness.agent import AgentProcess
from harness.nodeagent import NodeAgent
from harness.raw import Admin
from harness.reading import claims, header
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn.errors import InvalidToken
from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
HERE, THERE = TrustDomain("example.org"), TrustDomain("other.org")
KEY = signing_key("k1")
HEADER = {"alg": "ES256", "kid": "k1", "typ": "JWT"}
CLAIMS = {"sub": "spiffe://example.org/web", "aud": ["db"], "exp": SECONDS + 300}
ALLOWED = {f"{family}{bits}" for family in ("RS", "ES", "PS") for bits in (256, 384, 512)}
KEYS = {HERE: {"k1": KEY.public}}


def signed(head: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token that is good but for `changes`; a claim that is None is left out."""
    body = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return joined(HEADER if head is None else head, json.dumps(body).encode(), KEY)


def verify(token: str, audience: str = "db", keys: Any = None) -> VerifiedJwtSvid:
    return jwtsvid.verify(token, [audience], KEYS if keys is None else keys, NOW)


def refusal(token: str, audience: str = "db", keys: Any = None) -> str:
    """Why a token is refused."""
    with pytest.raises(InvalidToken) as caught:
        verify(token, audience, keys)
    return caught.value.reason_code


# --- header ---------------------------------------------------------------------------------------------------------


@pytest.mark.forked
def test_JWT_01_compact_only(token: str) -> None:
    """An SVID is a compact JWS: it is issued as one, and neither JWS in JSON nor JWE is taken for one."""
    parts = token.split(".")
    assert [True] * 3 == [part == encoded(_bytes(part)) for part in parts]
    assert 64 == len(_bytes(parts[2]))
    head, payload, signature = signed().split(".")
    flattened = {"protected": head, "payload": payload, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": head, "signature": signature}]}
    for other in (flattened, {**flattened, "header": {"kid": "k1"}}, general):
        assert "malformed" == refusal(json.dumps(other))
    encrypted = encoded(json.dumps({"alg": "dir", "enc": "A128GCM"}).encode())
    for text in (
        f"{encrypted}..{encoded(bytes(12))}.{payload}.{signature}",
        f"{head}.{payload}",
        f"{head}..{signature}",
    ):
        assert "malformed" == refusal(text)
    assert "spiffe://example.org/web" == str(verify(f"{head}.{payload}.{signature}").spiffe_id)


def _bytes(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def test_JWT_02_algorithm(token: str) -> None:
    """A token is signed by one of the nine algorithms."""
    assert header(token)["alg"] in ALLOWED


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "EdDSA", "ES256K", "es256", "", None, 7])
def test_JWT_03_other_algorithms(algorithm: Any) -> None:
    """Another algorithm is refused before anything else of the token is looked at."""
    head = {**HEADER, "alg": algorithm}
    assert "bad_algorithm" == refusal(signed(head))
    assert "bad_algorithm" == refusal(f"{encoded(json.dumps(head).encode())}.no-json-.no-signature")
    text = f"{encoded(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{signed().split('.')[1]}"
    mac = hmac.HMAC(json.dumps(dict(KEY.public.jwk)).encode(), hashes.SHA256())  # the key that all know
    mac.update(text.encode())
    assert "bad_algorithm" == refusal(f"{text}.{encoded(mac.finalize())}")


def test_JWT_04_key_id(token: str, wire: WorkloadWire) -> None:
    """A token names its key, and the key of that name is in the bundle; one that names none is refused."""
    keys = json.loads(wire.jwt_bundles().bundles["spiffe://example.org"])["keys"]
    assert header(token)["kid"] in [jwk["kid"] for jwk in keys]
    assert "malformed" == refusal(signed({"alg": "ES256"}))


@pytest.mark.parametrize("typ", [None, "JWT", "JOSE"])
def test_JWT_05_type_is_optional(typ: str | None) -> None:
    """A token is good without a type, and with either of the two that there are."""
    head = {name: value for name, value in {**HEADER, "typ": typ}.items() if value is not None}
    assert "spiffe://example.org/web" == str(verify(signed(head)).spiffe_id)


def test_JWT_06_type(token: str) -> None:
    """The type of an issued token is `JWT`; a token of another type is refused."""
    assert "JWT" == header(token)["typ"]
    for typ in ("jwt", "at+jwt", "wit+jwt", "JWS", ""):
        assert "wrong_type" == refusal(signed({**HEADER, "typ": typ}))


def test_JWT_07_no_other_header(token: str) -> None:
    """A token has no header but algorithm, key ID and type, and one that has is refused."""
    assert {"alg", "kid", "typ"} == set(header(token))
    for more in ({"jku": "https://evil.example"}, {"jwk": dict(KEY.public.jwk)}, {"crit": ["exp"]}, {"x5c": []}):
        assert "malformed" == refusal(signed({**HEADER, **more}))


# --- claims ---------------------------------------------------------------------------------------------------------


def test_JWT_08_subject(wire: WorkloadWire) -> None:
    """The subject is the workload's SPIFFE ID; a token without one, or with another thing there, is refused."""
    [svid] = wire.jwt("db").svids
    assert "spiffe://example.org/me" == svid.spiffe_id == claims(svid.svid)["sub"]
    for subject in (None, "", "web", ["spiffe://example.org/web"], "https://example.org/web"):
        assert "malformed" == refusal(signed(sub=subject))


def test_JWT_09_audience(wire: WorkloadWire) -> None:
    """The audiences that were asked for are all in the token, as a list."""
    assert [["db"], ["db", "web"]] == [claims(wire.jwt(*each).svids[0].svid)["aud"] for each in (["db"], ["db", "web"])]


@pytest.mark.parametrize(
    ("audience", "reason"),
    [
        (None, "wrong_audience"),
        ([], "wrong_audience"),
        ("other", "wrong_audience"),
        (["other", "dbs"], "wrong_audience"),
        (["DB"], "wrong_audience"),
        ("db,other", "wrong_audience"),
        ({"db": True}, "malformed"),
        ([["db"]], "malformed"),
    ],
)
def test_JWT_10_own_audience(audience: Any, reason: str) -> None:
    """A token is good only where one of its audiences is the verifier's own, to the letter."""
    assert reason == refusal(signed(aud=audience))
    assert [("db",), ("other", "db")] == [verify(signed(aud=each)).audience for each in ("db", ["other", "db"])]


def test_JWT_11_no_wider_audience(wire: WorkloadWire) -> None:
    """Nothing is added to the audience that was asked for: a token for one service is for that one."""
    token = wire.jwt("https://db.example.org/a").svids[0].svid
    assert ["https://db.example.org/a"] == claims(token)["aud"]
    assert ["https://db.example.org/a"] == list(wire.validate("https://db.example.org/a", token).claims["aud"])


def test_JWT_12_expiry(token: str) -> None:
    """An issued token has an end, which is five minutes from its beginning."""
    body = claims(token)
    assert (int, 3_600) == (type(body["exp"]), body["exp"] - body["iat"])


@pytest.mark.parametrize(
    ("exp", "reason"),
    [(None, "malformed"), ("soon", "malformed"), (SECONDS - JWT_LEEWAY_SECONDS, "expired"), (0, "expired")],
)
def test_JWT_13_expired(exp: Any, reason: str) -> None:
    """A token without an end, or whose end is over by more than the leeway, is refused."""
    assert reason == refusal(signed(exp=exp))
    assert "spiffe://example.org/web" == str(verify(signed(exp=SECONDS - JWT_LEEWAY_SECONDS + 1)).spiffe_id)


def test_JWT_14_other_claims(agent: AgentProcess, token: str) -> None:
    """Other claims may stand in a token, and are handed on; a `jti` may come twice."""
    made = {"sub", "aud", "exp", "iat"} | (set() if isinstance(agent, NodeAgent) else {"jti"})
    assert made == set(claims(token))
    text = signed(iss="https://example.org", jti="1", iat=SECONDS, nbf=SECONDS, role={"of": ["any"]})
    assert [{"of": ["any"]}] * 2 == [verify(text).claims["role"] for _ in range(2)]


# --- bundles --------------------------------------------------------------------------------------------------------


def test_JWT_17_published_keys(admin: Admin, token: str) -> None:
    """The bundle has each JWT key with its use and its ID, among them the one that signs."""
    answer = admin.unary("/sojourn.v1.Admin/GetBundle", admin_pb2.GetBundleRequest(), admin_pb2.GetBundleResponse)
    found = [jwk for jwk in json.loads(answer.spiffe_bundle)["keys"] if "x5c" not in jwk]
    assert {"jwt-svid"} == {jwk["use"] for jwk in found}
    assert header(token)["kid"] in [jwk["kid"] for jwk in found]
    assert len(found) == len({jwk["kid"] for jwk in found})


def test_JWT_18_only_keys_for_jwt() -> None:
    """A key that a bundle has for another use verifies no JWT-SVID."""
    jwk = dict(KEY.public.jwk)
    for use, kids in (("jwt-svid", ["k1"]), ("x509-svid", []), ("wit-svid", []), ("sig", []), ("JWT-SVID", [])):
        read = bundles.parse(HERE, {"keys": [{**jwk, "use": use}]})
        assert kids == list(read.jwt_authorities)
    assert "unknown_key" == refusal(signed(), keys={HERE: read.jwt_authorities})


def test_JWT_19_no_keys_for_jwt() -> None:
    """A trust domain whose bundle has no key for JWT-SVIDs has no JWT-SVID that is good."""
    read = bundles.parse(HERE, {"keys": []})
    assert "unknown_key" == refusal(signed(), keys={HERE: read.jwt_authorities})
    assert "spiffe://example.org/web" == str(verify(signed()).spiffe_id)


def test_JWT_20_bundle_of_the_subject() -> None:
    """The key comes from the bundle of the trust domain in the subject, and from no other."""
    foreign = signed(sub="spiffe://other.org/web")
    assert "unknown_trust_domain" == refusal(foreign)
    assert "unknown_key" == refusal(foreign, keys={**KEYS, THERE: {}})
    assert "bad_signature" == refusal(foreign, keys={**KEYS, THERE: {"k1": signing_key("k1").public}})
    expected = SpiffeId.parse("spiffe://other.org/web")
    assert expected == verify(foreign, keys={THERE: KEYS[HERE]}).spiffe_id


@pytest.mark.root
def test_JWT_21_confidential(agent: AgentProcess, token: str) -> None:
    """Tokens go over sockets of this host alone: the agent has no other, also after it has issued one."""
    assert claims(token)["exp"] > time.time()
    unix, internet = sockets_of(agent)
    assert [] == internet
    assert {agent.socket, agent.admin_socket} <= {path.removesuffix(".new") for path in unix}
