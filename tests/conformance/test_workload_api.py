"""SPIFFE_Workload_API.md, rows WAPI-01 to WAPI-61: what the agent answers."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from conformance.ground import REQUESTS, STREAMS, Registered, WorkloadWire, issued_in, known, reflected
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from fakes.ca import FakeCa
from fakes.task_feed import signing_key
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from harness.agent import AgentProcess
from harness.borrowed import Borrowed
from harness.raw import HEADER, WORKLOAD_API, Admin, Wire, entry, over, refusal
from harness.reading import certificates, claims, header, uris
from sojourn._pb import workload_pb2 as pb
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn.jose.jws import SigningKey
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import verify_chain

UIDS = itertools.count(5301)  # a user for each test that wants one of its own
NO_IDENTITY = ("PERMISSION_DENIED", "no identity issued")
FOREIGN = signing_key("foreign")
HERE, ME = "spiffe://example.org", "spiffe://example.org/me"


@pytest.fixture
def stranger(agent: AgentProcess) -> Iterator[Wire]:
    """A user who has no identity. Needs root."""
    with Borrowed(agent.socket, next(UIDS)) as borrowed, over(borrowed.connection) as wire:
        yield wire


def call(wire: Wire, method: str, request: Any = None) -> Any:
    ask = wire.first if method in STREAMS else wire.unary
    return ask(WORKLOAD_API + method, REQUESTS[method] if request is None else request, metadata=HEADER)


def ids(answer: pb.X509SVIDResponse | pb.JWTSVIDResponse) -> list[str]:
    return [svid.spiffe_id for svid in answer.svids]


# --- the API as a whole ---------------------------------------------------------------------------------------------


def test_WAPI_01_both_profiles(wire: WorkloadWire) -> None:
    """A workload gets SVIDs and bundles of both kinds, X.509 and JWT."""
    assert ([ME], [ME]) == (ids(wire.x509()), ids(wire.jwt("db")))
    assert [[HERE]] * 2 == [list(each.bundles) for each in (wire.x509_bundles(), wire.jwt_bundles())]


BYTES, STRING, MESSAGE = (getattr(FieldDescriptorProto, f"TYPE_{name}") for name in ("BYTES", "STRING", "MESSAGE"))
SPECIFIED = {
    "X509SVIDRequest": set(),
    "X509SVIDResponse": {(1, "svids", MESSAGE), (2, "crl", BYTES), (3, "federated_bundles", MESSAGE)},
    "X509SVID": {
        (1, "spiffe_id", STRING),
        (2, "x509_svid", BYTES),
        (3, "x509_svid_key", BYTES),
        (4, "bundle", BYTES),
        (5, "hint", STRING),
    },
    "X509BundlesRequest": set(),
    "X509BundlesResponse": {(1, "crl", BYTES), (2, "bundles", MESSAGE)},
    "JWTSVIDRequest": {(1, "audience", STRING), (2, "spiffe_id", STRING)},
    "JWTSVIDResponse": {(1, "svids", MESSAGE)},
    "JWTSVID": {(1, "spiffe_id", STRING), (2, "svid", STRING), (3, "hint", STRING)},
    "JWTBundlesRequest": set(),
    "JWTBundlesResponse": {(1, "bundles", MESSAGE)},
    "ValidateJWTSVIDRequest": {(1, "audience", STRING), (2, "svid", STRING)},
    "ValidateJWTSVIDResponse": {(1, "spiffe_id", STRING), (2, "claims", MESSAGE)},
    "WITSVIDRequest": {(1, "spiffe_id", STRING)},
    "WITSVIDResponse": {(1, "svids", MESSAGE)},
    "WITSVID": {(1, "spiffe_id", STRING), (2, "wit_svid", STRING), (3, "wit_svid_key", STRING), (4, "hint", STRING)},
    "WITBundlesRequest": set(),
    "WITBundlesResponse": {(1, "bundles", MESSAGE)},
}
WIT_STREAMS = {"FetchWITSVID", "FetchWITBundles"}


def test_WAPI_03_not_extended(wire: WorkloadWire) -> None:
    """The calls, messages and fields of the API are the specification's, and there is no other."""
    answer = reflected(wire, file_containing_symbol="SpiffeWorkloadAPI")
    files = [FileDescriptorProto.FromString(each) for each in answer.file_descriptor_response.file_descriptor_proto]
    [file] = [each for each in files if each.service]
    found = {each.name: {(field.number, field.name, field.type) for field in each.field} for each in file.message_type}
    assert SPECIFIED == found
    assert [{*REQUESTS, *WIT_STREAMS}] == [{method.name for method in each.method} for each in file.service]
    streaming = {method.name for method in file.service[0].method if method.server_streaming}
    assert ("", STREAMS | WIT_STREAMS) == (file.package, streaming)


@pytest.mark.root
def test_WAPI_04_answers_for_the_caller(agent: AgentProcess, admin: Admin, wire: WorkloadWire) -> None:
    """Each caller gets its own identities and no others, also if it asks for them by name."""
    uid = next(UIDS)
    admin.register(f"/user/{uid}", f"unix:uid:{uid}")
    own = f"{HERE}/user/{uid}"
    with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as other:
        assert [own] == other.x509_ids()
        assert [own] == ids(pb.JWTSVIDResponse.FromString(call(other, "FetchJWTSVID")))
        wanted = pb.JWTSVIDRequest(audience=["a"], spiffe_id=ME)
        assert NO_IDENTITY == refusal(lambda: call(other, "FetchJWTSVID", wanted))
    assert own not in wire.x509_ids()


def test_WAPI_06_complete_messages(wire: WorkloadWire, registered: Registered) -> None:
    """Each message of a stream has everything: after a change what did not change is in it too."""
    stream = wire.x509_stream()
    before = next(stream)
    with registered("/more"):
        more = next(stream)
        assert [[ME], [ME, f"{HERE}/more"]] == [ids(before), sorted(ids(more), key=len)]
        [kept] = [svid for svid in more.svids if svid.spiffe_id == ME]
        assert before.svids[0] == kept
    assert before == next(stream)
    stream.cancel()


def test_WAPI_07_first_message(wire: WorkloadWire) -> None:
    """Each request has an answer at once, though nothing has changed since the same one was answered."""
    for method in sorted(STREAMS):
        first, second = call(wire, method), call(wire, method)
        assert (True, True) == (len(first) > 0, first == second)


@pytest.mark.forked
def test_WAPI_08_further_messages(wire: WorkloadWire, registered: Registered, admin: Admin) -> None:
    """A message follows when something in it has changed: a hint, and a certificate that was renewed."""
    with registered("/short", x509_svid_ttl=10, hint="one") as made:
        stream = wire.x509_stream()
        first = _named(next(stream), "/short")
        made.hint = "two"
        admin.update(made)
        while (second := _named(next(stream), "/short")).hint == "one":  # renewed before the change was here
            assert second.x509_svid != first.x509_svid
        third = _named(next(stream), "/short")  # nobody has done anything: its life is half over
        stream.cancel()
    assert ["one", "two", "two"] == [svid.hint for svid in (first, second, third)]
    old, new = (issued_in(svid).leaf for svid in (second, third))
    assert old.not_valid_before_utc < new.not_valid_before_utc < old.not_valid_after_utc


def _named(answer: pb.X509SVIDResponse, end: str) -> pb.X509SVID:
    [svid] = [each for each in answer.svids if each.spiffe_id.endswith(end)]
    return svid


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("FetchJWTSVID", pb.JWTSVIDRequest()),
        ("FetchJWTSVID", pb.JWTSVIDRequest(audience=[""])),
        ("FetchJWTSVID", pb.JWTSVIDRequest(audience=["a", ""])),
        ("FetchJWTSVID", pb.JWTSVIDRequest(spiffe_id=ME)),
        ("ValidateJWTSVID", pb.ValidateJWTSVIDRequest()),
        ("ValidateJWTSVID", pb.ValidateJWTSVIDRequest(audience="a")),
        ("ValidateJWTSVID", pb.ValidateJWTSVIDRequest(svid="x")),
    ],
)
def test_WAPI_12_mandatory_fields_of_requests(wire: WorkloadWire, method: str, wanted: Any) -> None:
    """A request that leaves a mandatory field empty is an invalid argument, and the answer says which."""
    code, text = refusal(lambda: call(wire, method, wanted))
    assert ("INVALID_ARGUMENT", True) == (code, text.endswith("must be specified"))


# --- X.509 ----------------------------------------------------------------------------------------------------------


def test_WAPI_20_one_for_each_identity(wire: WorkloadWire, registered: Registered) -> None:
    """A workload with several identities gets an SVID for each, in one message."""
    with registered("/second"), registered("/third"):
        found = ids(wire.x509())
    assert sorted([ME, f"{HERE}/second", f"{HERE}/third"]) == sorted(found)


def test_WAPI_21_fields_of_an_svid(wire: WorkloadWire) -> None:
    """All fields are filled: the ID; the chain, leaf first; the key of the leaf, PKCS#8 without password; the bundle
    that the chain ends in. All of it is DER."""
    [svid] = wire.x509().svids
    chain, bundle = certificates(svid.x509_svid), certificates(svid.bundle)
    key = load_der_private_key(svid.x509_svid_key, password=None)
    assert (ME, [ME]) == (svid.spiffe_id, uris(chain[0]))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == chain[0].public_key()
    assert ME == str(verify_chain(chain, bundle, TrustDomain("example.org"), datetime.now(UTC)))
    assert [False] * 3 == [b"-----" in each for each in (svid.x509_svid, svid.x509_svid_key, svid.bundle)]
    assert b"\x30\x81" == svid.x509_svid_key[:2]  # a PrivateKeyInfo: version 0, then the algorithm's sequence
    assert b"\x02\x01\x00\x30" == svid.x509_svid_key[3:7]


def test_WAPI_22_keys_of_the_maps(wire: WorkloadWire, admin: Admin, registered: Registered, other_ca: FakeCa) -> None:
    """Bundles stand under the ID of their trust domain, without a slash at the end; those of foreign ones are in the
    answer to who federates with them, and missing for all others, as revocation lists are."""
    alone = wire.x509()
    with known(admin, other_ca, FOREIGN.public) as there, registered("/both", federates_with=["other.example"]):
        both, bundles = wire.x509(), wire.x509_bundles()
    assert ([], {}) == (list(alone.crl), dict(alone.federated_bundles))
    assert ("spiffe://other.example", {there: other_ca.root_der}) == (there, dict(both.federated_bundles))
    assert {HERE: alone.svids[0].bundle, there: other_ca.root_der} == dict(bundles.bundles)


def test_WAPI_23_unique_hints(wire: WorkloadWire, registered: Registered) -> None:
    """No two SVIDs of one message have the same hint; the ones without a hint are all there."""
    with registered("/a", hint="same"), registered("/b", hint="same"), registered("/c"), registered("/d"):
        svids = wire.x509().svids
    assert ["", "", "main", "same"] == sorted(svid.hint for svid in svids)
    assert {f"{HERE}/c", f"{HERE}/d"} == {svid.spiffe_id for svid in svids if not svid.hint}


@pytest.mark.root
def test_WAPI_25_no_x509_svid(agent: AgentProcess, admin: Admin, stranger: Wire) -> None:
    """Who has no identity is refused, and so is, on its open stream, who has none any more."""
    assert NO_IDENTITY == refusal(lambda: call(stranger, "FetchX509SVID"))
    uid = next(UIDS)
    made = admin.register("/while", f"unix:uid:{uid}")
    with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
        stream = wire.x509_stream()
        assert [f"{HERE}/while"] == ids(next(stream))
        admin.delete(made.id)
        assert NO_IDENTITY == refusal(lambda: next(stream))


def test_WAPI_28_own_x509_bundle(wire: WorkloadWire) -> None:
    """The X.509 bundles have the agent's own trust domain in them, as it is in the SVIDs."""
    bundle = wire.x509_bundles().bundles[HERE]
    assert wire.x509().svids[0].bundle == bundle
    assert [[HERE]] == [uris(each) for each in certificates(bundle)]


@pytest.mark.root
def test_WAPI_29_no_x509_bundle(stranger: Wire) -> None:
    """Who has no identity is refused the X.509 bundles."""
    assert NO_IDENTITY == refusal(lambda: call(stranger, "FetchX509Bundles"))


# --- JWT ------------------------------------------------------------------------------------------------------------


def test_WAPI_31_tokens_for_all_identities(wire: WorkloadWire, registered: Registered) -> None:
    """A request that names no ID is answered with a token for each identity."""
    with registered("/second"):
        svids = wire.jwt("db").svids
    assert sorted([ME, f"{HERE}/second"]) == sorted(claims(svid.svid)["sub"] for svid in svids)


def test_WAPI_32_token_for_one_identity(wire: WorkloadWire, registered: Registered) -> None:
    """A request that names an ID is answered with the token for that one alone."""
    with registered("/second"):
        for wanted in (ME, f"{HERE}/second"):
            [svid] = wire.jwt("db", spiffe_id=wanted).svids
            assert wanted == svid.spiffe_id == claims(svid.svid)["sub"]


def test_WAPI_33_fields_of_a_token(wire: WorkloadWire, registered: Registered) -> None:
    """Each token comes with its ID, and hints are unique; there is no answer without a token."""
    with registered("/a", hint="same"), registered("/b", hint="same"), registered("/c"):
        svids = wire.jwt("db").svids
    assert ["", "main", "same"] == sorted(svid.hint for svid in svids)
    assert [svid.spiffe_id for svid in svids] == [claims(svid.svid)["sub"] for svid in svids]


@pytest.mark.parametrize("wanted", [f"{HERE}/other", HERE, "spiffe://other.org/me", f"{HERE}/ME"])
def test_WAPI_34_not_entitled(wire: WorkloadWire, wanted: str) -> None:
    """A token for an ID that the caller does not have is refused."""
    assert NO_IDENTITY == refusal(lambda: wire.jwt("db", spiffe_id=wanted))


@pytest.mark.root
def test_WAPI_34_no_identity(stranger: Wire) -> None:
    """Who has no identity at all gets no token."""
    assert NO_IDENTITY == refusal(lambda: call(stranger, "FetchJWTSVID"))


@pytest.fixture(scope="module")
def jwks(wire: WorkloadWire) -> Any:
    """The agent's JWT bundle of its own trust domain."""
    return json.loads(wire.jwt_bundles().bundles[HERE].decode("utf-8"))


def test_WAPI_35_own_jwt_bundle(jwks: Any, token: str) -> None:
    """The JWT bundles have the agent's own trust domain in them: a JWK Set of public keys, the signing one included."""
    assert (["keys"], True) == (list(jwks), len(jwks["keys"]) >= 1)
    shapes = {(jwk["kty"], jwk["crv"], tuple(sorted(jwk))) for jwk in jwks["keys"]}
    assert {("EC", "P-256", ("crv", "kid", "kty", "x", "y"))} == shapes
    assert header(token)["kid"] in [jwk["kid"] for jwk in jwks["keys"]]


def test_WAPI_36_only_keys_for_jwt(jwks: Any, admin: Admin) -> None:
    """Of all keys of the trust domain just the ones for JWT-SVIDs are in the JWT bundle."""
    answer = admin.unary("/sojourn.v1.Admin/GetBundle", admin_pb2.GetBundleRequest(), admin_pb2.GetBundleResponse)
    whole = json.loads(answer.spiffe_bundle)["keys"]
    points = {use: {jwk["x"] for jwk in whole if jwk["use"] == use} for use in ("jwt-svid", "x509-svid")}
    assert points["jwt-svid"] == {jwk["x"] for jwk in jwks["keys"]}
    assert set() == points["x509-svid"] & {jwk["x"] for jwk in jwks["keys"]}
    assert len(points["x509-svid"]) == 1


def test_WAPI_36_foreign_bundles(
    wire: WorkloadWire, admin: Admin, registered: Registered, other_ca: FakeCa, jwks: Any
) -> None:
    """Foreign trust domains' JWT bundles hold just the keys for JWT-SVIDs, and change nothing in the agent's own."""
    with known(admin, other_ca, FOREIGN.public) as there, registered("/both", federates_with=["other.example"]):
        found = {name: json.loads(each) for name, each in wire.jwt_bundles().bundles.items()}
    assert {HERE: jwks, there: {"keys": [dict(FOREIGN.public.jwk)]}} == found


@pytest.mark.root
def test_WAPI_37_no_jwt_bundle(stranger: Wire) -> None:
    """Who has no identity is refused the JWT bundles."""
    assert NO_IDENTITY == refusal(lambda: call(stranger, "FetchJWTBundles"))


SECONDS = time.time()
WRONG = {
    "expired": {"exp": SECONDS - 120},
    "without end": {"exp": None},
    "without subject": {"sub": None},
    "no SPIFFE ID": {"sub": "https://example.org/me"},
    "without audience": {"aud": None},
    "for another": {"aud": ["web"]},
    "of a foreign trust domain": {"sub": "spiffe://other.org/me"},
    "not yet valid": {"nbf": SECONDS + 86_400},
}


def signed(key: SigningKey, typ: str = "JWT", **changes: Any) -> str:
    """A token by the agent's own key, good but for `changes`; a claim that is None is left out."""
    body = {"sub": ME, "aud": ["db"], "exp": time.time() + 600, **changes}
    return key.sign({name: value for name, value in body.items() if value is not None}, typ=typ)


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_WAPI_38_validation_of_claims(wire: WorkloadWire, jwt_key: SigningKey, changes: dict[str, Any]) -> None:
    """A token whose claims do not hold is refused, though the agent's own key has signed it."""
    assert ME == wire.validate("db", signed(jwt_key)).spiffe_id
    assert "INVALID_ARGUMENT" == refusal(lambda: wire.validate("db", signed(jwt_key, **changes)))[0]


def test_WAPI_38_validation_of_the_rest(wire: WorkloadWire, jwt_key: SigningKey, token: str) -> None:
    """A token of another key, type or form is refused, whatever its claims."""
    head, body, signature = token.split(".")
    foreign, posing = signed(signing_key("stray")), signed(signing_key(jwt_key.kid))
    for bad in (foreign, posing, signed(jwt_key, typ="at+jwt"), f"{head}.{body}.", f"{head}.{body}", f"{token}.a"):
        assert "INVALID_ARGUMENT" == refusal(lambda bad=bad: wire.validate("db", bad))[0]
    assert "INVALID_ARGUMENT" == refusal(lambda: wire.validate("d", f"{head}.{body}.{signature}"))[0]


def test_WAPI_38_foreign_tokens(
    wire: WorkloadWire, admin: Admin, registered: Registered, other_ca: FakeCa, jwt_key: SigningKey
) -> None:
    """A token of a foreign trust domain is good by that domain's keys alone, and for who federates with it alone."""
    web = "spiffe://other.example/web"
    good, posing = signed(FOREIGN, sub=web), signed(jwt_key, sub=web)
    with known(admin, other_ca, FOREIGN.public):
        assert "INVALID_ARGUMENT" == refusal(lambda: wire.validate("db", good))[0]
        with registered("/both", federates_with=["other.example"]):
            assert web == wire.validate("db", good).spiffe_id
            for bad in (posing, signed(FOREIGN)):
                assert "INVALID_ARGUMENT" == refusal(lambda bad=bad: wire.validate("db", bad))[0]


def test_WAPI_39_claims(wire: WorkloadWire, token: str) -> None:
    """The answer has all claims of the token, SPIFFE's own among them, with the values that they have there."""
    answer = wire.validate("db", token)
    found = {name: list(value) if name == "aud" else value for name, value in answer.claims.items()}
    assert claims(token) == found
    assert {"sub", "aud", "exp"} <= set(found)


def test_WAPI_40_fields_of_a_validation(wire: WorkloadWire, token: str) -> None:
    """A validation needs both fields of its request, and fills both of its answer."""
    for audience, svid in (("", token), ("db", ""), ("", "")):
        code, text = refusal(lambda audience=audience, svid=svid: wire.validate(audience, svid))
        assert ("INVALID_ARGUMENT", True) == (code, text.endswith("must be specified"))
    assert [("spiffe_id", ME), ("claims", ME)] == [
        (field.name, value if field.name == "spiffe_id" else value["sub"])
        for field, value in wire.validate("db", token).ListFields()
    ]


# --- the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["FetchWITSVID", "FetchWITBundles"])
def test_WAPI_50_no_wit_profile(wire: WorkloadWire, method: str) -> None:
    """The calls of the WIT-SVID profile are unimplemented."""
    assert "UNIMPLEMENTED" == refusal(lambda: wire.first(WORKLOAD_API + method, b"", metadata=HEADER))[0]


def test_WAPI_60_default_identity(wire: WorkloadWire, registered: Registered) -> None:
    """The first SVID is the default: the one whose entry says most about the workload, over all calls of both kinds."""
    with registered("/z/most", f"unix:gid:{os.getgid()}"), registered("/a/new"):
        found = [ids(wire.x509()), ids(wire.jwt("db")), ids(wire.x509())]
    assert [f"{HERE}/z/most"] * 3 == [each[0] for each in found]
    assert found[0] == found[1] == found[2]


def test_WAPI_61_long_hints(wire: WorkloadWire, registered: Registered, admin: Admin) -> None:
    """A hint may have 1024 bytes and is served as it is; a longer one cannot be registered."""
    with registered("/hinted", hint="h" * 1024):
        assert "h" * 1024 == _named(wire.x509(), "/hinted").hint
    for hint in ("h" * 1025, "\u00fc" * 513):
        [result] = admin.create(entry("/hinted", "unix:uid:4200", hint=hint))
        assert (3, True) == (result.status.code, "hint is too long" in result.status.message)
