"""Weaknesses published of JOSE libraries, each tried on the real agent under its name (docs/security-cases.md)."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.jws import encoded, joined
from harness.agent import AgentProcess
from harness.partner import FOREIGN, KEY, SUBJECT, befriend, claims, rejected, token, validate
from harness.raw import BUNDLE_API, Admin, Wire
from sojourn.errors import SojournError
from sojourn.jose.jws import ALGORITHMS, SigningKey, parse_unverified

CANARY = "canary-7f3a9c"


@pytest.fixture(scope="module")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    """The admin socket, once our users federate with partner.org."""
    with Admin(agent.admin_socket) as admin:
        befriend(admin)
        admin.register("/self", f"unix:uid:{os.getuid()}", federates_with=["partner.org"])
        yield admin


def test_the_good_token_is_good(wire: Wire) -> None:
    """The token that the tests here change is taken: they fail for what they change."""
    assert SUBJECT == validate(wire, token()).spiffe_id


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, "HS256", "HS384", "HS512", ["ES256"], {}], ids=repr
)
def test_PyJWT_10_no_signature(wire: Wire, algorithm: Any) -> None:
    """A token that says that it has no signature, or one by a shared secret, is rejected, signed or not."""
    good = token({"alg": algorithm})
    rejected(wire, good)
    rejected(wire, good.rpartition(".")[0] + ".")
    rejected(wire, good.rpartition(".")[0] + ".AA")


@pytest.mark.parametrize("form", ["PEM", "DER", "JWK", "SSH", "raw"])
@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
def test_CVE_2017_11424_CVE_2022_29217_CVE_2024_33663_CVE_2024_37568_a_public_key_as_secret(
    wire: Wire, form: str, algorithm: str
) -> None:
    """A MAC keyed with any form of a public key is no signature, whatever the header calls it."""
    public = FOREIGN.public_key()
    spki = PublicFormat.SubjectPublicKeyInfo
    secret = {
        "PEM": public.public_bytes(Encoding.PEM, spki),
        "DER": public.public_bytes(Encoding.DER, spki),
        "SSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "raw": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        "JWK": json.dumps(dict(KEY.public.jwk)).encode(),
    }[form]
    text = ".".join(encoded(json.dumps(each).encode()) for each in ({"alg": algorithm, "kid": "kid-1"}, claims()))
    mac = HMAC(secret, hashes.SHA256())
    mac.update(text.encode())
    made = mac.finalize()
    rejected(wire, f"{text}.{encoded(made if algorithm == 'HS256' else made * 2)}")


@pytest.mark.parametrize(
    "audience", ["", "A", "aa", "ba", "ab", "a/", "/a", " a", "a ", "a\n", "\u0430", "a,b", "a b", ["b"], ["aa"], ["A", "a/"], [["a"]], {"a": 1}],
    ids=repr,
)  # fmt: skip
def test_CVE_2024_53861_CVE_2024_5798_audiences_are_compared_whole(wire: Wire, audience: Any) -> None:
    """A token whose audience only resembles the one that is asked for is rejected."""
    rejected(wire, token(aud=audience))


@pytest.mark.parametrize(
    "subject",
    ["spiffe://partner.org.evil.org/web", "spiffe://evil-partner.org/web", "spiffe://partner.or/web", "spiffe://Partner.org/web",
     "spiffe://partner.org:443/web", "spiffe://x@partner.org/web", "spiffe://partner.org\n/web", "spiffe:///partner.org/web",
     "spiffe://example.org/self"],
)  # fmt: skip
def test_CVE_2024_53861_trust_domains_are_compared_whole(wire: Wire, subject: str) -> None:
    """A partner's key vouches for the partner's own trust domain and for none that resembles it."""
    rejected(wire, token(sub=subject))


@pytest.mark.parametrize(
    "header",
    [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"zip": "DEF"}],
    ids=repr,
)
def test_CVE_2026_32597_CVE_2025_59420_critical_headers(wire: Wire, header: dict[str, Any]) -> None:
    """A header that would change how the rest is read is not passed over: the token is rejected."""
    rejected(wire, token(header))


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each != "ES256"])
def test_CVE_2026_48523_the_algorithm_is_headers_and_keys(wire: Wire, algorithm: str) -> None:
    """A signature that is good by the key's algorithm is rejected when the header names another one."""
    rejected(wire, token({"alg": algorithm}))


def test_CVE_2026_48524_unknown_keys_change_nothing(admin: Admin, wire: Wire) -> None:
    """Tokens of many unknown keys are rejected, and the keys that are known stay."""
    before = admin.unary(BUNDLE_API + "ListFederatedBundles", b"")
    for number in range(300):
        rejected(wire, token({"kid": f"kid-{os.urandom(8).hex()}-{number}"}))
    assert before == admin.unary(BUNDLE_API + "ListFederatedBundles", b"")
    assert SUBJECT == validate(wire, token()).spiffe_id


@pytest.mark.parametrize("name", ["jwk", "jku", "x5c", "x5u", "x5t", "x5t#S256"])
def test_CVE_2026_27962_a_key_in_the_header(wire: Wire, name: str) -> None:
    """A token that brings its own key, or says where to fetch it, is rejected, signed by it or not."""
    stranger = SigningKey.from_private("kid-1", ec.generate_private_key(ec.SECP256R1()))
    value = {"jwk": dict(stranger.public.jwk), "x5c": ["AAAA"]}.get(name, "https://127.0.0.1:1/keys")
    rejected(wire, token({name: value}))
    header = {"alg": "ES256", "kid": "kid-1", name: value}
    rejected(wire, joined(header, json.dumps(claims()).encode(), stranger))


def test_joserfc_131_JSON_serialization(wire: Wire) -> None:
    """A token in JSON form, with an unprotected header or without, is rejected."""
    header, payload, signature = token().split(".")
    flat = {"protected": header, "payload": payload, "signature": signature}
    rejected(wire, json.dumps(flat))
    rejected(wire, json.dumps({**flat, "header": {"alg": "none"}}))
    rejected(wire, json.dumps({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_CVE_2025_65015_errors_do_not_hold_the_token(wire: Wire, place: int) -> None:
    """What is said of a bad token repeats nothing secret of it."""
    parts = token(canary=CANARY).split(".")
    parts[place] += CANARY.replace("-", "_")
    assert CANARY.replace("-", "_") not in rejected(wire, ".".join(parts))


@pytest.mark.parametrize("dots", [0, 1, 3, 4, 5, 10_000, 200_000])
def test_CVE_2025_66506_CVE_2025_27144_dots(wire: Wire, dots: int) -> None:
    """A token of any number of dots but two is rejected at once."""
    rejected(wire, "." * dots or "x")
    rejected(wire, "a" + ".a" * min(dots, 5_000))


JWE = [
    {"alg": "dir", "enc": "A256GCM"},
    {"alg": "RSA-OAEP", "enc": "A256GCM", "zip": "DEF"},
    {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31 - 1, "p2s": "AAAA"},
    {"alg": "ECDH-ES", "enc": "A128GCM", "epk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}},
]


@pytest.mark.parametrize("header", JWE, ids=lambda header: header["alg"])
def test_CVE_2024_33664_CVE_2025_61920_CVE_2025_62706_CVE_2026_27932_CVE_2024_28180_CVE_2026_34986_encrypted_tokens(
    wire: Wire, header: dict[str, Any]
) -> None:
    """An encrypted token is rejected without being decrypted, unpacked or derived from."""
    start = encoded(json.dumps({**header, "kid": "kid-1"}).encode())
    rejected(wire, f"{start}.AAAA.AAAA.{'A' * 8_000}.AAAA")
    rejected(wire, f"{start}.{'A' * 8_000}.AAAA")


def test_CVE_2025_61920_size_before_anything(wire: Wire) -> None:
    """A token over the limit is rejected by its size, before it is decoded."""
    assert "longer than 16384 bytes" in rejected(wire, "a" * 16_385)
    with pytest.raises(SojournError, match="longer than"):
        parse_unverified("." * 16_385)


@pytest.mark.parametrize(
    "value",
    [
        10**400,
        -(10**400),
        "\ud800",
        {"\udfff": 1},
        json.loads("[" * 200 + "]" * 200),
        json.loads('{"a":' * 60 + "1" + "}" * 60),
    ],
    ids=["large", "small", "surrogate", "surrogate name", "lists", "objects"],
)
def test_joserfc_claims_that_break_their_reader(wire: Wire, value: Any) -> None:
    """A partner's good token with a claim that no answer can hold is rejected: it is not an internal error."""
    assert SUBJECT == validate(wire, token(extra=[1, {"a": None}])).spiffe_id
    rejected(wire, token(extra=value))
