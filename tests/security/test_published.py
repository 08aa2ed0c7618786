"""Weaknesses published of other systems, each tried here under its name (docs/security-cases.md lists them)."""

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from harness.agent import AgentProcess
from harness.looking import WAIT_SECONDS
from harness.partner import befriend, rejected, token, validate
from harness.raw import BUNDLE_API, ENTRY_API, HEADER, WORKLOAD_API, Admin, Wire, entry, module_agent, refusal
from sojourn._pb import workload_pb2 as pb
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2
from sojourn._pb.spire.api.server.svid.v1 import svid_pb2
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import InvalidSpiffeId, InvalidSvid
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import check_leaf

CANARY = "canary-7f3a9c"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent('[log]\nlevel = "debug"\n') as running:
        yield running


@pytest.fixture(scope="module")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    """Our users federate with partner.org, whose JWT key is ours to sign with."""
    with Admin(agent.admin_socket) as admin:
        befriend(admin)
        admin.register("/self", f"unix:uid:{os.getuid()}", federates_with=["partner.org"], hint=CANARY)
        yield admin


# --- SPIRE and the SPIFFE libraries -----------------------------------------------------------------------------------


def test_CVE_2021_27098_only_the_asked_identity_is_signed(admin: Admin) -> None:
    """Of a certificate request that asks for a CA, other names and usages, the leaf has the ID and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier("spiffe://example.org/minted"),
            x509.RFC822Name("root@example.org"),
            x509.IPAddress(__import__("ipaddress").ip_address("127.0.0.1")),
            x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x01x"),
        ]
    )
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "spiffe://example.org/admin")]))
        .add_extension(wanted, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName("example.org")], None), critical=True)
        .sign(key, hashes.SHA256())
    )
    request = svid_pb2.MintX509SVIDRequest(csr=csr.public_bytes(Encoding.DER))
    answer = admin.unary("/spire.api.server.svid.v1.SVID/MintX509SVID", request, svid_pb2.MintX509SVIDResponse)
    leaf = x509.load_der_x509_certificate(answer.svid.cert_chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [x509.UniformResourceIdentifier("spiffe://example.org/minted")] == list(names)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "admin" not in leaf.subject.rfc4514_string()
    assert SpiffeId.parse("spiffe://example.org/minted") == check_leaf(leaf)
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.NameConstraints)


def test_CVE_2021_27098_an_identity_that_is_not_the_callers(wire: Wire) -> None:
    """An ID in the request chooses among the caller's own, and earns no other."""
    for path in ("/admin", "/spire/server", "/SELF", "/self/"):
        request = pb.JWTSVIDRequest(audience=["a"], spiffe_id=f"spiffe://example.org{path}")
        assert refusal(lambda request=request: wire.unary(WORKLOAD_API + "FetchJWTSVID", request))[0] in {
            "PERMISSION_DENIED",
            "INVALID_ARGUMENT",
        }


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/a/./b", "/a//b", "/a/%2e%2e/b", "/a%2fb", "/..", "/a/", "/a\\b", "/a;b", "/a b", "/{{x}}", "/$x"],
)
def test_CVE_2021_27099_paths_are_never_made_normal(admin: Admin, path: str) -> None:
    """A path that another reader could take for another one is refused, not made into it."""
    before = admin.status().entries
    [result] = admin.create(entry(path, "unix:uid:1"))
    assert (3, before) == (result.status.code, admin.status().entries)
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse(f"spiffe://example.org{path}")


@pytest.mark.parametrize("claim", ["sub", "aud", "exp"])
@pytest.mark.parametrize("value", [..., None, "", "x", True, [], {}, [[]], -1, 1.5, ["a", 1]], ids=repr)
def test_SPIRE_1123_claims_that_must_be_there(wire: Wire, claim: str, value: Any) -> None:
    """A token without a claim that must be there, or with one of another type, is rejected."""
    rejected(wire, token(**{claim: value}))


def test_SPIRE_1143_GO_2024_2978_nothing_secret_is_logged(agent: AgentProcess, admin: Admin, wire: Wire) -> None:
    """At the level debug the log has no token, no metadata and no selector of a caller."""
    secret = f"{CANARY}-selector"
    admin.create(entry("/x/canary", f"unix:path:/{secret}"))
    svid = (
        wire.unary(WORKLOAD_API + "FetchJWTSVID", pb.JWTSVIDRequest(audience=["a"]), pb.JWTSVIDResponse).svids[0].svid
    )
    validate(wire, svid)
    rejected(wire, svid[:-4] + "AAAA")
    metadata = (*HEADER, ("authorization", f"{CANARY}-metadata"))
    wire.unary(WORKLOAD_API + "FetchJWTSVID", pb.JWTSVIDRequest(audience=["a"]), metadata=metadata)
    refusal(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", b"\xff", metadata=metadata))
    log = agent.log.read_text()
    assert len(log) > 100
    for canary in (secret, f"{CANARY}-metadata", svid.split(".")[1], svid.split(".")[2]):
        assert canary not in log


def test_CVE_2024_8365_no_token_in_the_audit(agent: AgentProcess, wire: Wire) -> None:
    """The audit names a token by its `jti` and does not hold it."""
    svid = (
        wire.unary(WORKLOAD_API + "FetchJWTSVID", pb.JWTSVIDRequest(audience=["audited"]), pb.JWTSVIDResponse)
        .svids[0]
        .svid
    )
    payload = json.loads(base64.urlsafe_b64decode(svid.split(".")[1] + "=="))
    shown = agent.run("audit", "tail", "--output", "json").stdout
    assert payload["jti"] in shown
    assert [] == [part for part in svid.split(".")[1:] if part in shown]


@pytest.mark.parametrize("bits", [1024, 2047, 8193, 16384])
def test_SPIRE_1142_key_sizes_are_bounded(admin: Admin, bits: int) -> None:
    """A request for a certificate with too small or too large a key is refused before anything is computed with it."""
    from unittest import mock

    from sojourn.spiffe.x509svid import check_key

    sized = mock.Mock(spec=rsa.RSAPublicKey, key_size=bits)
    with pytest.raises(InvalidSvid):
        check_key(sized)
    assert [] == [name for name, *_ in sized.method_calls if name not in {"key_size"}]


@pytest.mark.parametrize("size", [-1, 0, 1, 2**31 - 1])
def test_SPIRE_193_page_sizes(admin: Admin, size: int) -> None:
    """A page of any size is answered by what there is, at once."""
    answer = admin.list(page_size=size)
    assert 1 <= len(answer.entries) <= admin.status().entries


LIMITS: list[tuple[str, Any, int]] = [
    ("hint", lambda size: entry(f"/limit/{size}", "a:b", hint="h" * size), 1_024),
    ("selector", lambda size: entry(f"/limit/{size}", "a:" + "b" * size), 4_096),
    ("selector type", lambda size: entry(f"/limit/{size}", "a" * size + ":b"), 255),
    ("selectors", lambda size: entry(f"/limit/{size}", *(f"a:{number}" for number in range(size))), 100),
    ("DNS names", lambda size: entry(f"/limit/{size}", "a:d", dns_names=[f"n{n}.org" for n in range(size)]), 100),
    ("entry ID", lambda size: entry(f"/limit/{size}", "a:i", id="i" * size), 255),
    ("SPIFFE ID", lambda size: entry("/" + "p" * (size - len("spiffe://example.org/")), "a:p"), 2_048),
    ("trust domain", lambda size: types.Bundle(trust_domain="t" * size), 255),
    ("TTL", lambda size: entry("/limit/t", f"a:{size}", x509_svid_ttl=size), 604_800),
]


@pytest.mark.forked
@pytest.mark.parametrize(("name", "make", "limit"), LIMITS, ids=[name for name, *_ in LIMITS])
def test_SPIRE_1131_limits_are_where_they_are_said(admin: Admin, name: str, make: Any, limit: int) -> None:
    """One under a limit and at the limit is taken, one over it is not."""

    def code(size: int) -> int:
        made = make(size)
        if isinstance(made, types.Bundle):
            request = bundle_pb2.BatchSetFederatedBundleRequest(bundle=[made])
            answer = admin.unary(
                BUNDLE_API + "BatchSetFederatedBundle", request, bundle_pb2.BatchSetFederatedBundleResponse
            )
            return answer.results[0].status.code
        return admin.create(made)[0].status.code

    assert [0, 0, 3] == [code(limit + off) for off in (-1, 0, 1)]


# --- step-ca and Vault ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 4, 99, 2**31 - 1])
def test_CVE_2026_30836_unknown_values_of_an_enum(admin: Admin, value: int) -> None:
    """An enum value that nobody knows is refused, and never taken for another one."""
    selectors = types.SelectorMatch(selectors=[types.Selector(type="unix", value="uid:0")], match=value)  # type: ignore[arg-type]
    domains = types.FederatesWithMatch(trust_domains=["partner.org"], match=value)  # type: ignore[arg-type]
    for wanted in (
        entry_pb2.ListEntriesRequest.Filter(by_selectors=selectors),
        entry_pb2.ListEntriesRequest.Filter(by_federates_with=domains),
    ):
        assert "INVALID_ARGUMENT" == refusal(lambda wanted=wanted: admin.list(filter=wanted))[0]
    delete = bundle_pb2.BatchDeleteFederatedBundleRequest(trust_domains=["partner.org"], mode=value)  # type: ignore[arg-type]
    assert "INVALID_ARGUMENT" == refusal(lambda: admin.unary(BUNDLE_API + "BatchDeleteFederatedBundle", delete))[0]


@pytest.mark.parametrize(
    "method",
    [
        "/sojourn.v1.Admin/GetStatus",
        "/sojourn.v1.Admin/Explain",
        ENTRY_API + "BatchCreateEntry",
        BUNDLE_API + "BatchSetFederatedBundle",
        "/spire.api.server.svid.v1.SVID/MintX509SVID",
        "/spire.api.server.svid.v1.SVID/NewJWTSVID",
        "/spire.api.server.agent.v1.Agent/AttestAgent",
        "/spire.api.server.logger.v1.Logger/SetLogLevel",
        "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509SVIDs",
        "/SpiffeWorkloadAPI/Unlisted",
    ],
)
def test_CVE_2026_30836_methods_that_are_not_for_workloads(wire: Wire, method: str) -> None:
    """A method that is not listed at the public socket does not exist there, for whoever it is."""
    assert "UNIMPLEMENTED" == refusal(lambda: wire.unary(method, b""))[0]


# --- gRPC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["SpiffeWorkloadAPI/FetchX509SVID", "//SpiffeWorkloadAPI/FetchX509SVID", "/SpiffeWorkloadAPI//FetchX509SVID",
     "/SpiffeWorkloadAPI/FetchX509SVID/", "/spiffeworkloadapi/fetchx509svid", "/SpiffeWorkloadAPI/FetchX509SVID?x",
     "/SpiffeWorkloadAPI/%46etchX509SVID", "/x/../SpiffeWorkloadAPI/FetchX509SVID", "/grpc.health.v1.Health/../SpiffeWorkloadAPI/FetchX509SVID"],
)  # fmt: skip
def test_CVE_2026_33186_CVE_2026_26205_other_spellings_of_a_path(agent: AgentProcess, wire: Wire, path: str) -> None:
    """A path that is not written exactly as the method's reaches no handler, with the security header or without."""
    from harness.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Connection, call_headers, frame, message

    for header in (b"true", b"false"):
        with Connection(agent.socket) as connection:
            connection.open()
            connection.send(
                frame(HEADERS, END_HEADERS, 1, call_headers(path, {b"workload.spiffe.io": header})),
                frame(DATA, END_STREAM, 1, message(b"")),
            )
            connection.socket.settimeout(WAIT_SECONDS)
            answers = []
            with contextlib.suppress(TimeoutError):
                for kind, flags, stream, body in connection.frames():
                    answers += [body] if kind == DATA else []
                    if stream == 1 and flags & END_STREAM:
                        break
        assert [] == answers
    assert ["spiffe://example.org/self"] == wire.x509_ids()
