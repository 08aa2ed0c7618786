"""The Workload API on the wire: codes, texts and order of answers, as any client sees them."""

import base64
import itertools
import json
import os
import time
from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from harness.agent import AgentProcess
from harness.borrowed import Borrowed, wire_of
from harness.looking import until
from harness.raw import HEADER, WORKLOAD_API, Admin, Wire, module_agent, refusal
from harness.reading import certificates, decoded
from sojourn._pb import workload_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.authority.jwt_keys import JwtKeys
from sojourn.jose.jws import SigningKey
from sojourn.runtime.clock import SystemClock

UIDS = itertools.count(4101)  # a user for each test that wants one of its own
SPKI = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
NO_IDENTITY = ("PERMISSION_DENIED", "no identity issued")
NO_HEADER = ("INVALID_ARGUMENT", "security header missing from request")
REQUESTS = {
    "FetchX509SVID": pb.X509SVIDRequest(),
    "FetchX509Bundles": pb.X509BundlesRequest(),
    "FetchJWTSVID": pb.JWTSVIDRequest(audience=["a"]),
    "FetchJWTBundles": pb.JWTBundlesRequest(),
    "ValidateJWTSVID": pb.ValidateJWTSVIDRequest(audience="a", svid="x"),
}


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """One agent for the module. Whoever runs these tests has the identity /root there."""
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/root", f"unix:uid:{os.getuid()}", hint="main")
        yield running


@pytest.fixture(scope="module")
def wire(agent: AgentProcess) -> Iterator[Wire]:
    with Wire(agent.socket) as wire:
        yield wire


@pytest.fixture(scope="module")
def key(agent: AgentProcess) -> SigningKey:
    """The agent's own JWT key, to sign what the agent would not."""
    return JwtKeys(agent.data_dir / "keys" / "jwt.pem", SystemClock(), timedelta(days=30)).active.key


def call(wire: Wire, method: str, metadata: tuple[tuple[str, str], ...] = HEADER) -> bytes:
    """Call one of the five methods and return the first answer."""
    ask = wire.unary if method in {"FetchJWTSVID", "ValidateJWTSVID"} else wire.first
    return ask(WORKLOAD_API + method, REQUESTS[method], metadata=metadata)


def fetch_jwt(wire: Wire, *audience: str, spiffe_id: str = "") -> pb.JWTSVIDResponse:
    request = pb.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id)
    return wire.unary(WORKLOAD_API + "FetchJWTSVID", request, pb.JWTSVIDResponse)


def validate(wire: Wire, audience: str, svid: str) -> pb.ValidateJWTSVIDResponse:
    request = pb.ValidateJWTSVIDRequest(audience=audience, svid=svid)
    return wire.unary(WORKLOAD_API + "ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse)


def sign(key: SigningKey, **changes: object) -> str:
    """A JWT-SVID of the agent's key for audience `a`; a claim that is None is left out."""
    claims = {"sub": "spiffe://example.org/root", "aud": ["a"], "exp": time.time() + 300, **changes}
    return key.sign({name: value for name, value in claims.items() if value is not None}, typ="JWT")


class TestSecurityHeader:
    @pytest.mark.parametrize("method", REQUESTS)
    @pytest.mark.parametrize(
        "metadata",
        [
            pytest.param((), id="missing"),
            pytest.param((("workload.spiffe.io", "True"),), id="True"),
            pytest.param((("workload.spiffe.io", "false"),), id="false"),
            pytest.param((("workload.spiffe.io", ""),), id="empty"),
            pytest.param(HEADER * 2, id="doubled"),
            pytest.param((*HEADER, ("workload.spiffe.io", "false")), id="both"),
            pytest.param((("x-workload.spiffe.io", "true"),), id="other name"),
        ],
    )
    def test_is_demanded(self, wire: Wire, method: str, metadata: tuple[tuple[str, str], ...]) -> None:
        """A call without exactly one security header `true` is refused before anything else is looked at."""
        assert NO_HEADER == refusal(lambda: call(wire, method, metadata))

    def test_is_not_asked_of_health(self, wire: Wire) -> None:
        """Health is answered without the security header."""
        answer = wire.unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest(),
            health_pb2.HealthCheckResponse,
            metadata=(),
        )
        assert health_pb2.HealthCheckResponse.SERVING == answer.status

    def test_is_not_asked_of_reflection(self, wire: Wire) -> None:
        """Reflection lists the Workload API without the security header."""
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = wire.first(method, request, reflection_pb2.ServerReflectionResponse, metadata=())
        names = {service.name for service in answer.list_services_response.service}
        assert {"SpiffeWorkloadAPI", "grpc.health.v1.Health"} <= names


class TestMethods:
    @pytest.mark.parametrize("method", ["FetchWITSVID", "FetchWITBundles", "FetchNothing", "fetchx509svid"])
    def test_unknown_ones_are_unimplemented(self, wire: Wire, method: str) -> None:
        """A method that the agent does not have, WIT-SVIDs among them, is unimplemented."""
        assert "UNIMPLEMENTED" == refusal(lambda: wire.first(WORKLOAD_API + method, b""))[0]

    @pytest.mark.parametrize(
        "path",
        [
            "SpiffeWorkloadAPI/FetchX509SVID",
            "//SpiffeWorkloadAPI/FetchX509SVID",
            "/SpiffeWorkloadAPI//FetchX509SVID",
            "/SpiffeWorkloadAPI/FetchX509SVID/",
            "/SpiffeWorkloadAPI/FetchX509SVID?a=b",
            "/./SpiffeWorkloadAPI/FetchX509SVID",
            "/grpc.health.v1.Health/../SpiffeWorkloadAPI/FetchX509SVID",
            "/%53piffeWorkloadAPI/FetchX509SVID",
            "/spiffeworkloadapi/FetchX509SVID",
            "/SpiffeWorkloadAPI",
            "/",
        ],
    )
    @pytest.mark.parametrize("metadata", [(), HEADER], ids=["bare", "with header"])
    def test_other_spellings_of_a_path_reach_no_handler(
        self, wire: Wire, path: str, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """Only the exact path of a method reaches its handler, with the security header and without."""
        assert "UNIMPLEMENTED" == refusal(lambda: wire.first(path, b"", metadata=metadata))[0]

    @pytest.mark.parametrize(
        "method",
        [
            "/spire.api.server.entry.v1.Entry/ListEntries",
            "/spire.api.server.entry.v1.Entry/BatchCreateEntry",
            "/sojourn.v1.Admin/GetStatus",
            "/sojourn.v1.Admin/Explain",
        ],
    )
    def test_administration_is_not_on_the_public_socket(self, wire: Wire, method: str) -> None:
        """No method of the admin socket is there on the public one, even for root."""
        assert "UNIMPLEMENTED" == refusal(lambda: wire.unary(method, b""))[0]

    def test_the_workload_api_is_not_on_the_admin_socket(self, admin: Admin) -> None:
        """The admin socket hands out no identities."""
        assert "UNIMPLEMENTED" == refusal(admin.x509)[0]


class TestMalformedRequests:
    @pytest.mark.parametrize("method", REQUESTS)
    @pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0b\x0b\x0b\x0b"])
    def test_are_invalid_arguments(self, wire: Wire, method: str, data: bytes) -> None:
        """Bytes that are no message of the method's type are an invalid argument."""
        ask = wire.unary if method in {"FetchJWTSVID", "ValidateJWTSVID"} else wire.first
        assert "INVALID_ARGUMENT" == refusal(lambda: ask(WORKLOAD_API + method, data))[0]

    def test_text_that_is_not_utf8(self, wire: Wire) -> None:
        """An audience that is not UTF-8 is an invalid argument."""
        assert "INVALID_ARGUMENT" == refusal(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", b"\x0a\x02\xff\xfe"))[0]

    def test_more_than_a_message_may_have(self, wire: Wire) -> None:
        """A message over the limit exhausts a resource, and the next call is served."""
        request = pb.JWTSVIDRequest(audience=["a" * (5 * 1024 * 1024)])
        assert "RESOURCE_EXHAUSTED" == refusal(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", request))[0]
        assert 1 == len(fetch_jwt(wire, "a").svids)

    def test_a_small_message_that_unpacks_to_a_large_one(self, wire: Wire) -> None:
        """The limit is on what a compressed message unpacks to."""
        request = pb.JWTSVIDRequest(audience=["a" * (64 * 1024 * 1024)])
        packed = {"compression": grpc.Compression.Gzip}
        code, _ = refusal(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", request, **packed))
        assert "RESOURCE_EXHAUSTED" == code

    def test_more_metadata_than_a_call_may_have(self, wire: Wire) -> None:
        """Metadata over the limit exhausts a resource, and the next call is served."""
        metadata = (*HEADER, ("x-large", "a" * 40_000))
        assert "RESOURCE_EXHAUSTED" == refusal(lambda: call(wire, "FetchJWTSVID", metadata))[0]
        assert 1 == len(fetch_jwt(wire, "a").svids)


class TestX509Svids:
    def test_what_an_answer_holds(self, wire: Wire) -> None:
        """An SVID is its chain, its own key, and the bundle that its issuer is in; names agree throughout."""
        [svid] = wire.x509().svids
        leaf, issuer = certificates(svid.x509_svid)
        [root] = certificates(svid.bundle)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        private = load_der_private_key(svid.x509_svid_key, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert ("spiffe://example.org/root", "main") == (svid.spiffe_id, svid.hint)
        assert [svid.spiffe_id] == names.get_values_for_type(x509.UniformResourceIdentifier)
        assert _spki(leaf.public_key()) == _spki(private.public_key())
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)

    def test_of_one_entry_are_one_for_all(self, wire: Wire) -> None:
        """Two calls get the same certificate as long as it is good: calls do not cost signatures."""
        assert wire.x509().svids[0].x509_svid == wire.x509().svids[0].x509_svid

    @pytest.mark.root
    def test_stand_in_the_stated_order(self, agent: AgentProcess, admin: Admin) -> None:
        """The entry with the highest priority is first, then the one with the most selectors, the oldest, the smallest ID."""
        uid = next(UIDS)
        admin.register("/z-old", f"unix:uid:{uid}", id=f"b-{uid}")
        admin.register("/y-old", f"unix:uid:{uid}", id=f"a-{uid}")
        [made] = {admin.get(f"a-{uid}").created_at} | {admin.get(f"b-{uid}").created_at}
        until(lambda: time.time() >= made + 1)
        admin.register("/a-new", f"unix:uid:{uid}", id=f"0-{uid}")
        admin.register("/more", f"unix:uid:{uid}", f"unix:gid:{uid}")
        admin.register("/first", f"unix:uid:{uid}", priority=1, id=f"first-{uid}")
        expected = [f"spiffe://example.org/{name}" for name in ("first", "more", "y-old", "z-old", "a-new")]
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            assert expected == [svid.spiffe_id for svid in next(stream).svids]
            assert expected == [svid.spiffe_id for svid in fetch_jwt(wire, "a").svids]
            assert expected == [each.spiffe_id for each in admin.explain(borrowed.pid).verdicts][:5]
            admin.update(types.Entry(id=f"first-{uid}", priority=-1), mask=types.EntryMask(priority=True))
            assert [*expected[1:], expected[0]] == [svid.spiffe_id for svid in next(stream).svids]
            stream.cancel()

    @pytest.mark.root
    def test_have_unique_hints(self, agent: AgentProcess, admin: Admin) -> None:
        """Of entries with one hint the oldest is served; entries without a hint are all served."""
        uid = next(UIDS)
        for name, hint in (("b", "x"), ("a", "x"), ("c", ""), ("d", ""), ("e", "y")):
            admin.register(f"/hint/{name}", f"unix:uid:{uid}", id=f"{name}-{uid}", hint=hint)
        ends = ("a", "c", "d", "e") if admin.get(f"a-{uid}").created_at == admin.get(f"b-{uid}").created_at else "bcde"
        with wire_of(agent.socket, uid) as wire:
            by_x509 = [(svid.spiffe_id[-1], svid.hint) for svid in wire.x509().svids]
            by_jwt = [(svid.spiffe_id[-1], svid.hint) for svid in fetch_jwt(wire, "a").svids]
        assert sorted(zip(ends, ("x", "", "", "y"), strict=True)) == sorted(by_x509)
        assert by_x509 == by_jwt

    @pytest.mark.root
    @pytest.mark.parametrize("method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles", "FetchJWTSVID"])
    def test_are_refused_to_a_stranger(self, agent: AgentProcess, method: str) -> None:
        """A caller without an entry gets neither an identity nor a bundle."""
        with wire_of(agent.socket, next(UIDS)) as wire:
            assert NO_IDENTITY == refusal(lambda: call(wire, method))

    @pytest.mark.root
    def test_a_stranger_may_have_tokens_validated(self, agent: AgentProcess, wire: Wire) -> None:
        """Validation is about the token: a caller without an entry may ask for it."""
        token = fetch_jwt(wire, "a").svids[0].svid
        with wire_of(agent.socket, next(UIDS)) as stranger:
            assert "spiffe://example.org/root" == validate(stranger, "a", token).spiffe_id

    @pytest.mark.root
    def test_many_streams_over_one_connection(self, agent: AgentProcess, admin: Admin) -> None:
        """A caller may hold several streams on one connection; all hear of a change."""
        uid = next(UIDS)
        made = admin.register("/many", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            streams = [wire.x509_stream() for _ in range(10)]
            assert {"spiffe://example.org/many"} == {next(stream).svids[0].spiffe_id for stream in streams}
            made.spiffe_id.path = "/many/more"
            admin.update(made)
            assert {"spiffe://example.org/many/more"} == {next(stream).svids[0].spiffe_id for stream in streams}


class TestBundles:
    def test_of_x509(self, wire: Wire) -> None:
        """The X.509 bundles are those that come with the SVIDs, under the trust domain's ID."""
        answer = pb.X509BundlesResponse.FromString(call(wire, "FetchX509Bundles"))
        assert {"spiffe://example.org": wire.x509().svids[0].bundle} == dict(answer.bundles)

    def test_of_jwt(self, wire: Wire) -> None:
        """The JWT bundles are a JWK Set under the trust domain's ID, with the key that signs."""
        answer = pb.JWTBundlesResponse.FromString(call(wire, "FetchJWTBundles"))
        header, _, _ = fetch_jwt(wire, "a").svids[0].svid.partition(".")
        keys = json.loads(answer.bundles["spiffe://example.org"])["keys"]
        assert ["spiffe://example.org"] == list(answer.bundles)
        assert decoded(header)["kid"] in [each["kid"] for each in keys]
        assert [] == [each for each in keys if "d" in each]

    def test_of_a_domain_without_x509(self, wire: Wire, admin: Admin) -> None:
        """A foreign trust domain that has JWT keys alone is missing in X.509 answers: an empty bundle is none."""
        key = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*SPKI)
        admin.know(types.Bundle(trust_domain="jwt.example", jwt_authorities=[types.JWTKey(public_key=key, key_id="k")]))
        before = wire.x509().svids[0].bundle
        made = admin.register(
            "/federated", f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}", federates_with=["jwt.example"]
        )
        try:
            svids = wire.x509()
            of_x509 = pb.X509BundlesResponse.FromString(call(wire, "FetchX509Bundles"))
            of_jwt = pb.JWTBundlesResponse.FromString(call(wire, "FetchJWTBundles"))
        finally:
            admin.delete(made.id)
        assert ({}, {before}) == (dict(svids.federated_bundles), {each.bundle for each in svids.svids})
        assert {"spiffe://example.org": before} == dict(of_x509.bundles)
        assert {"spiffe://example.org", "spiffe://jwt.example"} == set(of_jwt.bundles)


class TestJwtSvids:
    def test_what_an_answer_holds(self, wire: Wire) -> None:
        """A JWT-SVID has the subject, all audiences as a list, an end, and an ID of its own."""
        [one] = fetch_jwt(wire, "a", "b").svids
        [two] = fetch_jwt(wire, "a", spiffe_id="spiffe://example.org/root").svids
        claims, others = (decoded(each.svid.split(".")[1]) for each in (one, two))
        assert ("spiffe://example.org/root", "main") == (one.spiffe_id, one.hint)
        assert ("spiffe://example.org/root", ["a", "b"]) == (claims["sub"], claims["aud"])
        assert 300 == claims["exp"] - claims["iat"]
        assert claims["jti"] != others["jti"]

    @pytest.mark.parametrize("audience", [(), ("",), ("a", "")])
    def test_no_audience(self, wire: Wire, audience: tuple[str, ...]) -> None:
        """An audience must be named, also where the rest of the request is wrong too."""
        expected = ("INVALID_ARGUMENT", "audience must be specified")
        assert expected == refusal(lambda: fetch_jwt(wire, *audience))
        assert expected == refusal(lambda: fetch_jwt(wire, *audience, spiffe_id="nonsense"))

    @pytest.mark.parametrize(
        ("spiffe_id", "reason"),
        [
            ("example.org/x", "scheme is missing or invalid"),
            ("SPIFFE://example.org/x", "scheme is missing or invalid"),
            ("https://example.org/x", "scheme is missing or invalid"),
            ("spiffe:///x", "trust domain is missing"),
            (
                "spiffe://Example.org/x",
                "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
            ),
            (
                "spiffe://example.org:80/x",
                "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
            ),
            ("spiffe://example.org//x", "path cannot contain empty segments"),
            ("spiffe://example.org/a/../x", "path cannot contain dot segments"),
            ("spiffe://example.org/x/", "path cannot have a trailing slash"),
            (
                "spiffe://example.org/x\n",
                "path segment characters are limited to letters, numbers, dots, dashes, and underscores",
            ),
            (
                "spiffe://example.org/%78",
                "path segment characters are limited to letters, numbers, dots, dashes, and underscores",
            ),
        ],
    )
    def test_malformed_id(self, wire: Wire, spiffe_id: str, reason: str) -> None:
        """A SPIFFE ID that is none is refused with the rule that it breaks."""
        expected = ("INVALID_ARGUMENT", f"invalid requested SPIFFE ID: {reason}")
        assert expected == refusal(lambda: fetch_jwt(wire, "a", spiffe_id=spiffe_id))

    @pytest.mark.parametrize(
        "spiffe_id", ["spiffe://example.org/other", "spiffe://other.org/root", "spiffe://example.org"]
    )
    def test_id_without_an_entry(self, wire: Wire, spiffe_id: str) -> None:
        """A caller gets no token for an ID that is not its own."""
        assert NO_IDENTITY == refusal(lambda: fetch_jwt(wire, "a", spiffe_id=spiffe_id))


class TestValidation:
    def test_a_good_token(self, wire: Wire) -> None:
        """A good token is answered with its subject and claims, the audience as a list."""
        [svid] = fetch_jwt(wire, "a", "b").svids
        answer = validate(wire, "b", svid.svid)
        claims = decoded(svid.svid.split(".")[1])
        assert svid.spiffe_id == answer.spiffe_id
        assert ["a", "b"] == list(answer.claims["aud"])
        assert float(claims["exp"]) == answer.claims["exp"]

    def test_one_audience_as_text(self, wire: Wire, key: SigningKey) -> None:
        """An audience that is a string in the token is a list in the answer."""
        assert ["a"] == list(validate(wire, "a", sign(key, aud="a")).claims["aud"])

    def test_leeway(self, wire: Wire, key: SigningKey) -> None:
        """A token that has just expired is good for the leeway."""
        assert "spiffe://example.org/root" == validate(wire, "a", sign(key, exp=time.time() - 20)).spiffe_id

    @pytest.mark.parametrize(
        ("audience", "svid", "text"),
        [
            ("", "x", "audience must be specified"),
            ("", "", "audience must be specified"),
            ("a", "", "svid must be specified"),
        ],
    )
    def test_missing_fields(self, wire: Wire, audience: str, svid: str, text: str) -> None:
        """Audience and token must be given, in this order."""
        assert ("INVALID_ARGUMENT", text) == refusal(lambda: validate(wire, audience, svid))

    @pytest.mark.parametrize(
        "svid", ["x", "a.b", "a.b.c", "....", "{}", "a" * 20_000, "eyJhbGciOiJFUzI1NiJ9.e30.", "é"]
    )
    def test_garbage(self, wire: Wire, svid: str) -> None:
        """What is no compact JWS is an invalid argument."""
        code, text = refusal(lambda: validate(wire, "a", svid))
        assert "INVALID_ARGUMENT" == code
        assert text.startswith(("unable to parse JWT token: ", "token is longer than "))

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "HS256", "ES256K", "EdDSA", "", None])
    def test_algorithms_that_are_not_allowed(self, wire: Wire, key: SigningKey, algorithm: str | None) -> None:
        """A token whose header names another algorithm is refused, whatever its signature."""
        head, claims, signature = sign(key).split(".")
        header = _encoded({**decoded(head), "alg": algorithm})
        for ending in (signature, ""):
            code, text = refusal(lambda ending=ending: validate(wire, "a", f"{header}.{claims}.{ending}"))
            assert ("INVALID_ARGUMENT", True) == (code, text.startswith("unable to parse JWT token: "))

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"exp": 1_600_000_000}, "token has expired"),
            ({"exp": None}, "token missing exp claim"),
            ({"sub": None}, "token missing subject claim"),
            ({"sub": ""}, "token missing subject claim"),
            ({"sub": "spiffe://other.org/x"}, 'no keys found for trust domain "other.org"'),
            ({"aud": ["b"]}, 'expected audience in ["a"] (audience=["b"])'),
            ({"aud": ["A", "a/"]}, 'expected audience in ["a"] (audience=["A" "a/"])'),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_claims_that_do_not_hold(self, wire: Wire, key: SigningKey, changes: dict[str, object], text: str) -> None:
        """A token of our own key with a wrong claim is refused with SPIRE's text."""
        assert ("INVALID_ARGUMENT", text) == refusal(lambda: validate(wire, "a", sign(key, **changes)))

    def test_no_key_id(self, wire: Wire, key: SigningKey) -> None:
        """A token without `kid` is refused."""
        _, claims, signature = sign(key).split(".")
        token = f"{_encoded({'alg': 'ES256'})}.{claims}.{signature}"
        assert ("INVALID_ARGUMENT", "token header missing key id") == refusal(lambda: validate(wire, "a", token))

    def test_a_foreign_key(self, wire: Wire, key: SigningKey) -> None:
        """A token of another key is refused, under that key's ID and under ours."""
        foreign = ec.generate_private_key(ec.SECP256R1())
        stray = sign(SigningKey.from_private("stray", foreign))
        posing = sign(SigningKey.from_private(key.kid, foreign))
        text = 'public key "stray" not found in trust domain "example.org"'
        assert ("INVALID_ARGUMENT", text) == refusal(lambda: validate(wire, "a", stray))
        assert "INVALID_ARGUMENT" == refusal(lambda: validate(wire, "a", posing))[0]

    def test_a_changed_claim(self, wire: Wire, key: SigningKey) -> None:
        """A signature is good for its own claims only."""
        header, _, signature = sign(key).split(".")
        claims = sign(key, sub="spiffe://example.org/admin").split(".")[1]
        assert "INVALID_ARGUMENT" == refusal(lambda: validate(wire, "a", f"{header}.{claims}.{signature}"))[0]


def _spki(key: object) -> bytes:
    return key.public_bytes(*SPKI)  # type: ignore[attr-defined]


def _encoded(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
