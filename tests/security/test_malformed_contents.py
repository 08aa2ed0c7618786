"""Malformed contents of requests at the admin socket: our error with a stable code, nothing changed, the agent alive."""

import datetime as dt
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from harness.malformed import FEDERATION_API, admin_fixture, nothing_changes, told  # noqa: F401 - fixtures
from harness.raw import BUNDLE_API, Admin, entry
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.svid.v1 import svid_pb2
from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = pytest.mark.full

SVID_API = "/spire.api.server.svid.v1.SVID/"
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOW = dt.datetime.now(dt.UTC)
P256 = ec.generate_private_key(ec.SECP256R1())


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
