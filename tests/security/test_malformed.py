"""Malformed requests at both sockets: our error with a stable code, nothing changed, the agent alive."""

import datetime as dt
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from harness.agent import AgentProcess
from harness.http2 import integer
from harness.raw import BUNDLE_API, ENTRY_API, WORKLOAD_API, Admin, Wire, entry
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.svid.v1 import svid_pb2
from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

FEDERATION_API = "/spire.api.server.trustdomain.v1.TrustDomain/"
SVID_API = "/spire.api.server.svid.v1.SVID/"
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOW = dt.datetime.now(dt.UTC)
P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    with Admin(agent.admin_socket) as admin:
        admin.register("/self", f"unix:uid:{os.getuid()}")
        admin.trust("known.org")
        yield admin


@pytest.fixture(autouse=True)
def nothing_changes(admin: Admin, wire: Wire) -> Iterator[None]:
    """Whatever a test here does, entries, bundles and relationships are afterwards what they were, and all is served."""
    before = world(admin)
    yield
    assert before == world(admin)
    assert ["spiffe://example.org/self"] == wire.x509_ids()


def world(admin: Admin) -> list[bytes]:
    return [
        admin.unary(ENTRY_API + "ListEntries", b""),
        admin.unary(BUNDLE_API + "ListFederatedBundles", b""),
        admin.unary(FEDERATION_API + "ListFederationRelationships", b""),
    ]


def told(call: Callable[[], Any]) -> tuple[str, str]:
    """The status and the stable code with which a call is refused."""
    try:
        answered = call()
    except grpc.RpcError as error:
        return error.code().name, dict(error.trailing_metadata() or ()).get("sojourn-code", "")  # type: ignore[attr-defined]
    raise AssertionError(f"not refused, but answered {answered!r}"[:400])


def field(number: int, kind: int, body: bytes = b"") -> bytes:
    """A protobuf field: its tag, and what is given as its body."""
    return integer_of(number << 3 | kind) + body


def integer_of(value: int) -> bytes:
    """A protobuf varint."""
    return integer(value + 127, 7, 0x80)[1:] if value >= 0 else b"\xff" * 9 + b"\x01"


def text(number: int, body: bytes) -> bytes:
    return field(number, 2, integer_of(len(body)) + body)


def nested(number: int, depth: int) -> bytes:
    """Messages in messages in one field, so many deep."""
    body = b""
    for _ in range(depth):
        body = text(number, body)
    return body


BYTES: dict[str, bytes] = {
    "a truncated tag": b"\x8a",
    "a truncated length": b"\x0a\xff",
    "a length over the message": b"\x0a\x7fabc",
    "a length over all messages": b"\x0a\xff\xff\xff\xff\x0f",
    "a length without end": b"\x0a" + b"\xff" * 12,
    "field number 0": b"\x00\x01",
    "an end of a group that never began": b"\x0c",
    "a group without end": b"\x0b" * 200,
    "wire type 6": b"\x0e",
    "wire type 7": b"\x0f",
    "a varint of eleven bytes": b"\x08" + b"\xff" * 11,
    "a truncated number": b"\x09\x00",
    "text that is not UTF-8": b"\x0a\x02\xff\xfe",
    "a lone surrogate in text": b"\x0a\x03\xed\xa0\x80",
    "overlong UTF-8": b"\x0a\x02\xc0\x80",
}
TEXT_FIRST = {  # methods whose first field is text, or a message with text first
    "FetchJWTSVID": WORKLOAD_API + "FetchJWTSVID",
    "ValidateJWTSVID": WORKLOAD_API + "ValidateJWTSVID",
}


def test_varints() -> None:
    """The helper of this file writes varints as protobuf does."""
    for value in (0, 1, 127, 128, 300, 2**31):
        made = types.SPIFFEID.FromString(field(9, 0, integer_of(value)))
        assert field(9, 0, integer_of(value)) == made.SerializeToString()


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("method", TEXT_FIRST)
def test_bytes_at_the_public_socket(wire: Wire, method: str, name: str) -> None:
    """What is no message of the method's type is an invalid argument."""
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: wire.unary(TEXT_FIRST[method], BYTES[name]))


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("method", ["GetEntry", "BatchDeleteEntry", "BatchCreateEntry"])
def test_bytes_at_the_admin_socket(admin: Admin, method: str, name: str) -> None:
    """What is no message of the method's type is an invalid argument for registration, too, and nothing of it is done."""
    body = text(1, BYTES[name]) if method == "BatchCreateEntry" else BYTES[name]
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: admin.unary(ENTRY_API + method, body))


@pytest.mark.parametrize("kind", [0, 1, 5])
def test_other_wire_types(wire: Wire, kind: int) -> None:
    """A field of another wire type than the schema's is an unknown one: what is then missing is asked for."""
    body = field(1, kind, {0: b"\x01", 1: b"\0" * 8, 5: b"\0" * 4}[kind])
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", body))


def test_unknown_fields(wire: Wire) -> None:
    """Fields of a later version are passed over."""
    extra = text(1, b"a") + text(500, b"x" * 1_000) + field(501, 0, integer_of(7))
    assert b"" != wire.unary(WORKLOAD_API + "FetchJWTSVID", extra)


@pytest.mark.parametrize("depth", [101, 1_000, 20_000])
def test_nesting(wire: Wire, depth: int) -> None:
    """Messages nested without end are refused, not followed."""
    # DiscoveryRequest.node.metadata: a Struct, whose values may be Structs
    value = nested(1, depth)
    body = text(2, text(3, value))
    method = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: wire.unary(method, body))


@pytest.mark.parametrize("size", [256 * 1024 + 1, 1024 * 1024])
def test_large_messages(wire: Wire, size: int) -> None:
    """A request over the public socket's limit is refused by its size."""
    body = text(1, b"a" * size)
    assert "RESOURCE_EXHAUSTED" == told(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", body))[0]


METADATA: dict[str, tuple[tuple[str, Any], ...]] = {
    "none": (),
    "twice": (("workload.spiffe.io", "true"),) * 2,
    "with its opposite": (("workload.spiffe.io", "true"), ("workload.spiffe.io", "false")),
    "capitals": (("workload.spiffe.io", "True"),),
    "spaces": (("workload.spiffe.io", " true x"),),
    "as a list": (("workload.spiffe.io", "true,true"),),
    "binary": (("workload.spiffe.io-bin", b"true"),),
    "under a longer name": (("x-workload.spiffe.io", "true"),),
    "one": (("workload.spiffe.io", "1"),),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"])
def test_security_header(wire: Wire, method: str, name: str) -> None:
    """The header is there once with the one value, or the call is an invalid argument with a stable code."""
    refused = told(lambda: wire.first(WORKLOAD_API + method, b"", metadata=METADATA[name]))
    assert ("INVALID_ARGUMENT", "invalid_input") == refused


def csr(
    *,
    key: Any = P256,
    names: tuple[x509.GeneralName, ...] = (x509.UniformResourceIdentifier("spiffe://example.org/minted"),),
    extensions: tuple[x509.ExtensionType, ...] = (),
    subject: str = "",
) -> bytes:
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.DER)


def uris(*texts: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.UniformResourceIdentifier._init_without_validation(each) for each in texts)


def dns(*texts: str) -> tuple[x509.GeneralName, ...]:
    named = tuple(x509.DNSName._init_without_validation(each) for each in texts)
    return (*uris("spiffe://example.org/minted"), *named)


def signed_by_another() -> bytes:
    good, other = bytearray(csr()), csr(key=ec.generate_private_key(ec.SECP256R1()))
    good[-8:] = other[-8:]
    return bytes(good)


def bad_csrs() -> dict[str, bytes]:
    good = csr()
    return {
        "empty": b"",
        "no DER": b"-----BEGIN CERTIFICATE REQUEST-----",
        "cut short": good[:-1],
        "bytes behind": good + b"\0",
        "a length of four gigabytes": b"\x30\x84\xff\xff\xff\xff" + good,
        "sequences without end": b"\x30\x80" * 5_000,
        "another's signature": signed_by_another(),
        "RSA of 1024 bits": csr(key=rsa.generate_private_key(65537, 1024)),
        "DSA": csr(key=dsa.generate_private_key(2048)),
        "Ed25519": csr(key=ed25519.Ed25519PrivateKey.generate()),
        "P-224": csr(key=ec.generate_private_key(ec.SECP224R1())),
        "secp256k1": csr(key=ec.generate_private_key(ec.SECP256K1())),
        "no names": csr(names=()),
        "DNS alone": csr(names=(x509.DNSName("a.example.org"),)),
        "two URIs": csr(names=uris("spiffe://example.org/a", "spiffe://example.org/b")),
        "the same URI twice": csr(names=uris("spiffe://example.org/a", "spiffe://example.org/a")),
        "https": csr(names=uris("https://example.org/a")),
        "another trust domain": csr(names=uris("spiffe://other.org/a")),
        "no path": csr(names=uris("spiffe://example.org")),
        "the reserved namespace": csr(names=uris("spiffe://example.org/spire/server")),
        "dots": csr(names=uris("spiffe://example.org/a/../b")),
        "per cent": csr(names=uris("spiffe://example.org/a%2e")),
        "a newline": csr(names=uris("spiffe://example.org/a\n")),
        "NUL": csr(names=uris("spiffe://example.org/a\0b")),
        "capitals": csr(names=uris("spiffe://EXAMPLE.org/a")),
        "a long ID": csr(names=uris("spiffe://example.org/" + "a" * 2_048)),
        "an empty DNS name": csr(names=dns("")),
        "a DNS name with a space": csr(names=dns("a b")),
        "a DNS name with a newline": csr(names=dns("a.example.org\n")),
        "a DNS name with NUL": csr(names=dns("a.example.org\0.evil.org")),
        "a lone wildcard": csr(names=dns("*")),
        "a long DNS name": csr(names=dns("a." * 127 + "a")),
        "too many DNS names": csr(names=dns(*(f"n{number}.example.org" for number in range(101)))),
    }


BAD_CSRS = bad_csrs()


@pytest.mark.parametrize("name", BAD_CSRS)
def test_certificate_requests(admin: Admin, name: str) -> None:
    """A certificate request with one fault is an invalid argument with a stable code."""
    request = svid_pb2.MintX509SVIDRequest(csr=BAD_CSRS[name])
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: admin.unary(SVID_API + "MintX509SVID", request))


def certificate(key: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    return (
        x509.CertificateBuilder()
        .serial_number(1)
        .issuer_name(name)
        .subject_name(name)
        .public_key(key.public_key())
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def x509_authority(der: bytes) -> dict[str, Any]:
    return {"x509_authorities": [types.X509Certificate(asn1=der)]}


def jwt_authorities(*keys: tuple[str, bytes]) -> dict[str, Any]:
    return {"jwt_authorities": [types.JWTKey(key_id=name, public_key=der) for name, der in keys]}


BAD_BUNDLES: dict[str, dict[str, Any]] = {
    "no certificate": x509_authority(b""),
    "PEM": x509_authority(b"-----BEGIN CERTIFICATE-----"),
    "a certificate cut short": x509_authority(certificate(P256)[:-1]),
    "bytes behind a certificate": x509_authority(certificate(P256) + b"\0"),
    "two certificates as one": x509_authority(certificate(P256) * 2),
    "an Ed25519 authority": x509_authority(certificate(ed25519.Ed25519PrivateKey.generate())),
    "a P-224 authority": x509_authority(certificate(ec.generate_private_key(ec.SECP224R1()))),
    "a Brainpool authority": x509_authority(certificate(ec.generate_private_key(ec.BrainpoolP256R1()))),
    "a key without an id": jwt_authorities(("", spki(P256))),
    "an id twice": jwt_authorities(("a", spki(P256)), ("a", spki(ec.generate_private_key(ec.SECP256R1())))),
    "no key": jwt_authorities(("a", b"")),
    "a private key": jwt_authorities(("a", P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))),
    "a symmetric key": jwt_authorities(("a", b"0" * 32)),
    "a JWK": jwt_authorities(("a", b'{"kty":"oct","k":"AAAA"}')),
    "an Ed25519 key": jwt_authorities(("a", spki(ed25519.Ed25519PrivateKey.generate()))),
    "a secp256k1 key": jwt_authorities(("a", spki(ec.generate_private_key(ec.SECP256K1())))),
    "a Brainpool key": jwt_authorities(("a", spki(ec.generate_private_key(ec.BrainpoolP256R1())))),
    "a sequence number that no store holds": {"sequence_number": 2**64 - 1},
    "a negative refresh hint": {"refresh_hint": -1},
}


@pytest.mark.parametrize("name", BAD_BUNDLES)
@pytest.mark.parametrize("domain", ["known.org", "new.org"])
@pytest.mark.parametrize(
    "method", ["BatchSetFederatedBundle", "BatchCreateFederatedBundle", "BatchUpdateFederatedBundle"]
)
def test_bundles(admin: Admin, method: str, domain: str, name: str) -> None:
    """A bundle with one fault is an invalid argument; neither a new one nor a change of an old one is kept."""
    request = getattr(bundle_pb2, f"{method}Request")(bundle=[types.Bundle(trust_domain=domain, **BAD_BUNDLES[name])])
    answer = admin.unary(BUNDLE_API + method, request, getattr(bundle_pb2, f"{method}Response"))
    [status] = [result.status for result in answer.results]
    assert INVALID == status.code
    assert status.message.startswith("failed to convert bundle: ")


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "example.org",
        "EXAMPLE.org",
        "a b",
        "a\n",
        "spiffe://",
        "spiffe://other.org/a/../b",
        "a" * 256,
        "\u212a.org",
        "a:1",
    ],
)
def test_trust_domains_of_bundles(admin: Admin, domain: str) -> None:
    """A bundle under a name that is no foreign trust domain is an invalid argument."""
    request = bundle_pb2.BatchSetFederatedBundleRequest(bundle=[types.Bundle(trust_domain=domain)])
    answer = admin.unary(BUNDLE_API + "BatchSetFederatedBundle", request, bundle_pb2.BatchSetFederatedBundleResponse)
    assert [INVALID] == [result.status.code for result in answer.results]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://other.org/",
        "other.org",
        "https://",
        "https://[",
        "https://[::1",
        "https://other.org:99999/",
        "https://other.org:0/",
        "https://other.org:x/",
        "https://user@other.org/",
        "https://user:secret@other.org/",
        "https://other.org@evil.org/",
        "https://oth\ner.org/",
        "https://other.org/\t",
        "https://other.org/\0",
        "https://other .org/",
        "https://\u2100.org/",
        "https://other.org/" + "a" * 3_000,
        "javascript:alert(1)",
        "file:///etc/passwd",
    ],
)
def test_endpoint_urls(admin: Admin, url: str) -> None:
    """An endpoint URL that is no plain https URL is an invalid argument, and no relationship is kept."""
    relationship = types.FederationRelationship(
        trust_domain="other.org", bundle_endpoint_url=url, https_web=types.HTTPSWebProfile()
    )
    answer = admin.unary(
        FEDERATION_API + "BatchCreateFederationRelationship",
        trustdomain_pb2.BatchCreateFederationRelationshipRequest(federation_relationships=[relationship]),
        trustdomain_pb2.BatchCreateFederationRelationshipResponse,
    )
    assert [INVALID] == [result.status.code for result in answer.results]


BAD_ENTRIES: dict[str, types.Entry] = {
    "a selector with NUL": entry("/x", "unix:uid:1\0unix:uid:2"),
    "a selector type with NUL": entry("/x", "un\0ix:uid:1"),
    "a long selector type": entry("/x", "u" * 256 + ":1"),
    "a long selector": entry("/x", "unix:" + "1" * 4_097),
    "an expiry beyond all time": entry("/x", "unix:uid:1", expires_at=2**63 - 1),
    "a DNS name with a newline": entry("/x", "unix:uid:1", dns_names=["a.example.org\n"]),
    "a DNS name with NUL": entry("/x", "unix:uid:1", dns_names=["a\0b"]),
    "a DNS name of two lines": entry("/x", "unix:uid:1", dns_names=["a.org\nb.org"]),
    "a DNS name with a look-alike": entry("/x", "unix:uid:1", dns_names=["\u0430.org"]),
    "a URI as DNS name": entry("/x", "unix:uid:1", dns_names=["spiffe://example.org/admin"]),
    "a long hint of few characters": entry("/x", "unix:uid:1", hint="\U0001f600" * 257),
    "a foreign trust domain nobody knows": entry("/x", "unix:uid:1", federates_with=["other.org"]),
    "another ID's look-alike": entry("/\u0430dmin", "unix:uid:1"),
    "an ID with per cent": entry("/a%2fb", "unix:uid:1"),
}


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_entries(admin: Admin, name: str) -> None:
    """An entry with one fault is refused, alone and in `apply`, and nothing is stored."""
    [result] = admin.create(BAD_ENTRIES[name])
    assert result.status.code in {INVALID, grpc.StatusCode.FAILED_PRECONDITION.value[0]}
    request = admin_pb2.ApplyEntriesRequest(entries=[entry("/fine", "unix:uid:1"), BAD_ENTRIES[name]])
    status, code = told(lambda: admin.unary("/sojourn.v1.Admin/ApplyEntries", request))
    assert ("INVALID_ARGUMENT", "invalid_entry") == (status, code)


@pytest.mark.parametrize("token", ["x", ":", "9" * 5_000 + ":x", "-1:x", "1e3:x", "\u0661:x:" * 500])
def test_page_tokens(admin: Admin, token: str) -> None:
    """A page token that is none of ours fails with SPIRE's text, whatever its length."""
    with pytest.raises(grpc.RpcError) as caught:
        admin.list(page_token=token, page_size=1)
    assert caught.value.details().startswith("failed to list entries: could not parse token")  # type: ignore[attr-defined]


FILES: dict[str, bytes] = {
    "a bomb of aliases": b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n" % (c, c, *[c - 1] * 8) for c in b"bcdefghij")
    + b"entries: *j\n",
    "a list that holds itself": b"entries: &a [*a]\n",
    "a mapping that holds itself": b"entries: [&a {spiffe_id: *a, selectors: [x:y]}]\n",
    "a tag of Python": b"entries: !!python/object/apply:os.system ['true']\n",
    "a tag of ours": b"entries: !entries []\n",
    "an alias of nothing": b"entries: *nothing\n",
    "the same key twice": b"entries: []\nentries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b']}]\n",
    "the same key twice in an entry": (
        b"entries: [{spiffe_id: 'spiffe://example.org/x', spiffe_id: 'spiffe://example.org/y', selectors: ['a:b']}]\n"
    ),
    "the same key twice in JSON": (
        b'{"entries": [{"spiffe_id": "spiffe://example.org/x", "selectors": ["a:b"], "selectors": ["a:c"]}]}'
    ),
    "a mapping as a key": b"entries: [{{a: b}: c}]\n",
    "no UTF-8": b"entries: ['\xff\xfe']\n",
    "UTF-16": "entries: []".encode("utf-16"),
    "NUL": b"entries: [\0]\n",
    "a terminal's commands": b'entries: [{spiffe_id: "\\e]0;x\\a\\e[31m", selectors: [a]}]\n',
    "numbers": b"entries: [{spiffe_id: 1, selectors: ['a:b']}]\n",
    "a date": b"entries: [{spiffe_id: 2026-01-01, selectors: ['a:b']}]\n",
    "text for a list": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: 'a:b'}]\n",
    "text for a truth": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], admin: 'yes'}]\n",
    "a number over all": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], expires_at: 9999999999999999999999}]\n",
    "a number of five thousand digits": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], expires_at: "
    + b"9" * 5_000
    + b"}]\n",
    "a duration that is none": b"entries: [{spiffe_id: 'spiffe://example.org/x', selectors: ['a:b'], x509_svid_ttl: .inf}]\n",
    "brackets without end": b"[" * 100_000,
    "braces without end": b'{"entries":' * 5_000,
    "lists without end": b"entries: " + b"- " * 20_000,
    "nothing but a scalar": b"entries",
    "a lone surrogate": b'{"entries": [{"spiffe_id": "spiffe://example.org/x", "selectors": ["a:\\ud800"]}]}',
    "a selector with NUL": b'{"entries": [{"spiffe_id": "spiffe://example.org/x", "selectors": ["a:b\\u0000"]}]}',
}


@pytest.mark.parametrize("name", FILES)
def test_files(agent: AgentProcess, tmp_path: Path, name: str) -> None:
    """A file of entries with one fault is refused whole, with its name, a stable code and no traceback."""
    path = tmp_path / "entries.yaml"
    path.write_bytes(FILES[name])
    done = agent.run("entry", "apply", "-f", str(path), "--output", "json", check=False, timeout=60)
    assert done.returncode in {1, 2}
    [line] = done.stderr.splitlines()
    told_ = json.loads(line)["error"]
    assert told_["code"] in {"invalid_config", "invalid_entry", "invalid_input"}
    assert str(path) in told_["message"]


def test_what_a_file_makes_a_terminal_do(agent: AgentProcess, tmp_path: Path) -> None:
    """What is wrong in a file is shown without anything that a terminal obeys."""
    path = tmp_path / "entries.yaml"
    path.write_bytes(FILES["a terminal's commands"].replace(b"selectors", b'"\\e[2J"'))
    done = agent.run("entry", "apply", "-f", str(path), check=False)
    assert "\x1b" not in done.stderr
    assert "error: " == done.stderr[:7]


def no_file(path: Path, kind: str) -> None:
    """Put something at `path` that is no regular file."""
    import socket

    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_what_is_no_file(agent: AgentProcess, tmp_path: Path, kind: str) -> None:
    """What is no regular file is not waited for; a folder without files holds no entries and prunes nothing by itself."""
    path = tmp_path / "entries.yaml"
    no_file(path, kind)
    if kind == "folder":
        (path / "in.yaml").symlink_to("/dev/zero")
    done = agent.run("entry", "apply", "-f", str(path), check=False)
    assert 2 == done.returncode
    assert "not a regular file" in done.stderr


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_what_is_no_configuration_and_no_bundle(agent: AgentProcess, tmp_path: Path, kind: str) -> None:
    """A configuration or a bundle that is no regular file is not waited for, and refused with its name."""
    path = tmp_path / "file"
    no_file(path, kind)
    for command in (["config", "show", "--config", str(path)], ["bundle", "set", "other.example", str(path)]):
        done = agent.run(*command, check=False, timeout=20)
        assert 2 == done.returncode, command
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr


def test_a_huge_file(agent: AgentProcess, tmp_path: Path) -> None:
    """A file over the size limit is not read."""
    path = tmp_path / "entries.yaml"
    with path.open("wb") as file:
        file.truncate(33 * 1024 * 1024)
    assert "not a regular file of at most" in agent.run("entry", "apply", "-f", str(path), check=False).stderr
