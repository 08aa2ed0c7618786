"""SPIFFE-ID.md, rows ID-01 to ID-23: what our parser, our verifiers and our issuer make of an ID."""

import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from conformance.ground import Issued, Registered, WorkloadWire, issued_in
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.certificates import NOW, authority, issue, raw_san
from fakes.jws import encoded
from harness.nodeagent import NodeAdmin
from harness.raw import Admin, entry, refusal
from harness.reading import claims, header, uris
from pydantic import ValidationError
from sojourn.config.model import Config
from sojourn.errors import InvalidInput, InvalidSpiffeId, InvalidSvid, InvalidToken
from sojourn.jose.jws import SigningKey
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import verify_chain

ALL = {"parser", "x509", "jwt", "request", "registration"}
FOREIGN = ALL - {"registration"}  # this agent registers IDs of its own trust domain only
ANY_ROOT = authority(san=None)  # says no trust domain of its own, so that it may vouch in any

AcceptedBy = Callable[[str], set[str]]


@pytest.fixture
def accepted_by(wire: WorkloadWire, admin: Admin, jwt_key: SigningKey) -> AcceptedBy:
    """Who takes an ID: the parser, the verifiers of both kinds of SVID, a request for a token, and registration."""

    def ask(uri: str) -> set[str]:
        name, _, rest = uri.removeprefix("spiffe://").partition("/")
        domain = TrustDomain(name)  # unparsed: also what is none
        tried = {
            "parser": lambda: SpiffeId.parse(uri),
            "x509": lambda: verify_chain(
                [issue(ANY_ROOT, san=(raw_san(uri.encode()), False)).certificate], [ANY_ROOT.certificate], domain, NOW
            ),
            "jwt": lambda: jwtsvid.verify(
                jwt_key.sign({"sub": uri, "aud": ["a"], "exp": time.time() + 60}, typ="JWT"),
                ["a"],
                {domain: {jwt_key.kid: jwt_key.public}},
                datetime.now(UTC),
            ),
        }
        taken = {who for who, call in tried.items() if _succeeds(call)}
        # Nobody here has such an identity; what is no ID at all is refused in another way.
        if refusal(lambda: wire.jwt("a", spiffe_id=uri))[0] == "PERMISSION_DENIED":
            taken.add("request")
        wanted = entry("", "unix:uid:4200")
        wanted.spiffe_id.trust_domain, wanted.spiffe_id.path = name, f"/{rest}"
        [result] = admin.create(wanted)
        if result.status.code == 0:
            taken.add("registration")
            admin.delete(result.entry.id)
        return taken

    return ask


def _succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize(
    "uri",
    ["https://example.org/web", "spiffes://example.org/web", "spiffe:example.org/web", "example.org/web", "//example"],
)
def test_ID_01_scheme(accepted_by: AcceptedBy, uri: str) -> None:
    """An ID is a URI with the scheme `spiffe`; with another or none it is taken nowhere."""
    assert set() == accepted_by(uri) - {"registration"}  # registration names the parts, and so has no scheme
    assert ALL == accepted_by("spiffe://example.org/web")


@pytest.mark.parametrize("uri", ["spiffe:///web", "spiffe://"])
def test_ID_02_trust_domain_is_there(accepted_by: AcceptedBy, uri: str) -> None:
    """The trust domain has a name."""
    assert set() == accepted_by(uri)
    assert FOREIGN == accepted_by("spiffe://e/web")


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://example.org/web?a=b",
        "spiffe://example.org/web?",
        "spiffe://example.org/web#a",
        "spiffe://example.org/web#",
        "spiffe://example.org?a/web",
    ],
)
def test_ID_03_neither_query_nor_fragment(accepted_by: AcceptedBy, uri: str) -> None:
    """An ID has no query and no fragment, not even an empty one."""
    assert set() == accepted_by(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://me@example.org/web",
        "spiffe://me:secret@example.org/web",
        "spiffe://@example.org/web",
        "spiffe://example.org:443/web",
        "spiffe://example.org:/web",
    ],
)
def test_ID_04_neither_user_nor_port(accepted_by: AcceptedBy, uri: str) -> None:
    """The authority part is the trust domain's name and nothing else: no user, no port."""
    assert set() == accepted_by(uri)


@pytest.mark.parametrize("uri", ["spiffe://Example.org/web", "spiffe://example.ORG/web"])
def test_ID_05_lower_case(accepted_by: AcceptedBy, uri: str) -> None:
    """A trust domain's name with an upper-case letter is no name."""
    assert set() == accepted_by(uri)


@pytest.mark.parametrize("bad", ["ex!ample", "ex~ample", "ex*mple", "ex mple", "ex\u00e4mple", "ex\\mple"])
def test_ID_06_characters_of_the_trust_domain(accepted_by: AcceptedBy, bad: str) -> None:
    """A trust domain's name is made of small letters, digits, dots, dashes and underscores; all of them are good."""
    assert set() == accepted_by(f"spiffe://{bad}/web")
    assert FOREIGN == accepted_by("spiffe://abcdefghijklmnopqrstuvwxyz0123456789.-_/web")


@pytest.mark.parametrize("uri", ["spiffe://ex%61mple.org/web", "spiffe://example.org%2Fweb", "spiffe://%65/web"])
def test_ID_07_no_percent_encoding_in_the_trust_domain(accepted_by: AcceptedBy, uri: str) -> None:
    """Percent-encoding has no place in a trust domain's name."""
    assert set() == accepted_by(uri)


@pytest.mark.parametrize("name", ["192.0.2.1", "999.999.999.999", "a..b", ".", "-", "xn--nxasmq6b", "example.org."])
def test_ID_08_names_that_look_like_something(accepted_by: AcceptedBy, name: str) -> None:
    """A name is a name: what looks like an IPv4 address or breaks the rules of DNS is taken as it stands."""
    assert FOREIGN == accepted_by(f"spiffe://{name}/web")
    assert name == SpiffeId.parse(f"spiffe://{name}/web").trust_domain.name
    assert set() == accepted_by("spiffe://[2001:db8::1]/web")


@pytest.mark.parametrize("path", ["/%77eb", "/a%2Fb", "/%", "/a/%2E%2E"])
def test_ID_09_no_percent_encoding_in_the_path(accepted_by: AcceptedBy, path: str) -> None:
    """Percent-encoding has no place in a path."""
    assert set() == accepted_by(f"spiffe://example.org{path}")


@pytest.mark.parametrize("path", ["//web", "/a//b", "/./web", "/a/.", "/../web", "/a/..", "/a/../b"])
def test_ID_10_no_empty_or_dot_segment(accepted_by: AcceptedBy, path: str) -> None:
    """No segment of a path is empty, one dot or two dots; three dots are a name like any other."""
    assert set() == accepted_by(f"spiffe://example.org{path}")
    assert ALL == accepted_by("spiffe://example.org/.../..a/a.")


@pytest.mark.parametrize("path", ["/", "/web/"])
def test_ID_11_no_slash_at_the_end(accepted_by: AcceptedBy, path: str) -> None:
    """An ID does not end with a slash: the trust domain's own ID has no path at all."""
    assert set() == accepted_by(f"spiffe://example.org{path}")
    assert TrustDomain("example.org").id == SpiffeId.parse("spiffe://example.org")


@pytest.mark.parametrize("bad", ["we b", "w\u00e9b", "w~b", "w:b", "w@b", "w+b", "w!b", "w\\b", "w\nb"])
def test_ID_12_characters_of_the_path(accepted_by: AcceptedBy, bad: str) -> None:
    """A segment of a path is made of letters, digits, dots, dashes and underscores; all of them are good."""
    assert set() == accepted_by(f"spiffe://example.org/{bad}")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert ALL == accepted_by(f"spiffe://example.org/{letters}/0123456789/.-_")


def test_ID_13_hierarchy(accepted_by: AcceptedBy) -> None:
    """A path may have any number of segments."""
    assert ALL == accepted_by("spiffe://example.org/region/eu/team/billing/web/1")


def test_ID_14_long_ids(accepted_by: AcceptedBy, registered: Registered, wire: WorkloadWire) -> None:
    """An ID of 2048 bytes is verified, registered, and issued in both kinds of SVID."""
    uri = "spiffe://example.org/".ljust(2048, "a")
    assert ALL == accepted_by(uri)
    with registered(uri.removeprefix("spiffe://example.org")):
        [svid] = [each for each in wire.x509().svids if each.spiffe_id == uri]
        [jwt] = wire.jwt("db", spiffe_id=uri).svids
    assert [uri] == uris(issued_in(svid).leaf)
    assert uri == claims(jwt.svid)["sub"]


def test_ID_15_no_longer_ids(admin: Admin) -> None:
    """Nothing is issued for an ID of more than 2048 bytes, since none can be registered."""
    path = "/".ljust(2049 - len("spiffe://example.org"), "a")
    if isinstance(admin, NodeAdmin):  # its server has one registered, and the node does not serve it
        admin.has_left_out(entry(path, "unix:uid:4200"))
        return
    [result] = admin.create(entry(path, "unix:uid:4200"))
    assert ("INVALID_ARGUMENT", True) == (_name_of(result.status.code), "2048" in result.status.message)


def _name_of(code: int) -> str:
    return {0: "OK", 3: "INVALID_ARGUMENT"}[code]


def test_ID_16_length_of_the_trust_domain(accepted_by: AcceptedBy) -> None:
    """A trust domain's name has at most 255 bytes, for the verifiers and for the agent's own configuration."""
    good, bad = "a" * 255, "a" * 256
    assert FOREIGN == accepted_by(f"spiffe://{good}/web")
    assert set() == accepted_by(f"spiffe://{bad}/web")
    assert good == Config(trust_domain=good).trust_domain
    with pytest.raises(ValidationError, match="255"):
        Config(trust_domain=bad)


def test_ID_17_comparison(accepted_by: AcceptedBy) -> None:
    """Paths that differ in case are different IDs; scheme and trust domain are only taken in lower case, so that
    comparing them with case is the same as comparing them without."""
    assert SpiffeId.parse("spiffe://example.org/web") != SpiffeId.parse("spiffe://example.org/Web")
    assert ALL == accepted_by("spiffe://example.org/Web")
    assert set() == accepted_by("spiffe://EXAMPLE.ORG/web")
    assert set() == accepted_by("SPIFFE://example.org/web") - {"registration"}


def test_ID_18_authority_has_an_svid(issued: Issued) -> None:
    """What signs is an authority that carries an SVID of its own, and so does what signed it."""
    issued.leaf.verify_directly_issued_by(issued.issuer)
    issued.issuer.verify_directly_issued_by(issued.root)
    assert [1, 1] == [len(uris(each)) for each in issued.authorities]


def test_ID_19_authority_is_in_the_trust_domain(issued: Issued) -> None:
    """The authorities' IDs lie in the trust domain that they sign for."""
    expected = SpiffeId.parse(issued.svid.spiffe_id).trust_domain
    assert [expected] * 2 == [SpiffeId.parse(*uris(each)).trust_domain for each in issued.authorities]


def test_ID_20_authority_has_no_path(issued: Issued) -> None:
    """The authorities' IDs have no path."""
    assert [""] * 2 == [SpiffeId.parse(*uris(each)).path for each in issued.authorities]


def test_ID_21_id_and_key_are_signed(issued: Issued, token: str, jwt_key: SigningKey) -> None:
    """ID and public key stand in what the authority signed: with another ID the signature is good no more."""
    signed = issued.leaf.tbs_certificate_bytes
    issuer, algorithm = issued.issuer.public_key(), issued.leaf.signature_algorithm_parameters
    issuer.verify(issued.leaf.signature, signed, algorithm)  # type: ignore[union-attr,call-arg,arg-type]
    for old, new in ((b"spiffe://example.org/me", b"spiffe://example.org/it"), (_point(issued), bytes(64))):
        assert 1 == signed.count(old)
        with pytest.raises(InvalidSignature):
            issuer.verify(issued.leaf.signature, signed.replace(old, new), algorithm)  # type: ignore[union-attr,call-arg,arg-type]
    head, payload, signature = token.split(".")
    keys = {TrustDomain("example.org"): {jwt_key.kid: jwt_key.public}}
    assert "spiffe://example.org/me" == str(jwtsvid.verify(token, ["db"], keys, datetime.now(UTC)).spiffe_id)
    text = _decoded_bytes(payload).replace(b"spiffe://example.org/me", b"spiffe://example.org/it")
    with pytest.raises(InvalidToken, match="signature"):
        jwtsvid.verify(f"{head}.{encoded(text)}.{signature}", ["db"], keys, datetime.now(UTC))


def _point(issued: Issued) -> bytes:
    numbers = issued.leaf.public_key().public_numbers()  # type: ignore[union-attr]
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")  # type: ignore[union-attr]


def _decoded_bytes(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@pytest.mark.parametrize("typ", ["wit+jwt", "at+jwt", "dpop+jwt", "jwt", "JWT-SVID"])
def test_ID_22_document_types(token: str, jwt_key: SigningKey, typ: str) -> None:
    """A token of another type than the JWT-SVID is no SVID, whoever signed it; what is issued is of that type."""
    body = claims(token)
    keys = {TrustDomain("example.org"): {jwt_key.kid: jwt_key.public}}
    with pytest.raises(InvalidToken, match="type"):
        jwtsvid.verify(jwt_key.sign(body, typ=typ), ["db"], keys, datetime.now(UTC))
    assert "JWT" == header(token)["typ"]


def test_ID_23_own_authority_only() -> None:
    """An SVID is good only by the authority of the trust domain in its own ID, in either kind of SVID."""
    here, there = TrustDomain("example.org"), TrustDomain("other.org")
    root, other = authority(), authority(san=(raw_san(b"spiffe://other.org"), False))
    leaf = issue(other)  # of example.org, by other.org
    for authorities, domain in (([root], here), ([other], here), ([other], there), ([root, other], there)):
        with pytest.raises(InvalidSvid):
            verify_chain([leaf.certificate], [each.certificate for each in authorities], domain, NOW)
    ours, theirs = (_jwt_key(kid) for kid in ("k1", "k2"))
    svid = jwtsvid.issue(
        theirs, SpiffeId.parse("spiffe://example.org/web"), ["a"], issued_at=NOW, expires_at=NOW + timedelta(minutes=1)
    )
    with pytest.raises(InvalidToken, match="not found in trust domain"):
        jwtsvid.verify(svid.token, ["a"], {here: {"k1": ours.public}, there: {"k2": theirs.public}}, NOW)
    assert svid.spiffe_id == jwtsvid.verify(svid.token, ["a"], {here: {"k2": theirs.public}}, NOW).spiffe_id
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse("spiffe://other.org/x").check_workload_of(here)


def _jwt_key(kid: str) -> SigningKey:
    return SigningKey.from_private(kid, ec.generate_private_key(ec.SECP256R1()))
