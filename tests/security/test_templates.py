"""Whatever is attested is data: no value makes an ID, or a claim, that the operator did not mean."""

import random
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, selectors
from sojourn.attestation.selectors import Selector
from sojourn.authority.embedded_ca import WIT
from sojourn.errors import Bug
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entries import registration
from sojourn.identity.registry import Registry
from sojourn.identity.templates import IdTemplate, parse_id
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId, TrustDomain

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
ROUNDS = 20_000
HOSTILE = [
    "", ".", "..", "/", "a/b", "../b", "a/../b", "a/", "/a", "%2e%2e", "%2F", "a%00", "a\0b", "a\\b", "..\\b", "a:b", "a;b",
    "a?b", "a#b", "a@b", "a b", " a", "a ", "a\n", "\na", "a\r", "a\tb", "\u212a", "é", "e\u0301", "\uff0f", "\u2215", "\u2024",
    "\u202ea", "\ufeffa", "a\u200bb", "{k8s.sa}", "{", "}", "${x}", "a*", "~", "a+b", "a=b", "a,b", "'", '"', "<a>",
]  # fmt: skip
TEMPLATES = ["/ns/{k8s.ns}/sa/{k8s.sa}", "/{k8s.ns}", "/x-{k8s.ns}.y/{k8s.sa}", "/.{k8s.ns}/a", "/{k8s.ns}/{k8s.ns}"]


def registry_of(path):
    made = registration(
        {
            "id": "fleet",
            "spiffe_id": parse_id(f"spiffe://example.org{path}"),
            "parent_id": NODE,
            "selectors": selectors("unix:uid:1000"),
            "jwt_claims": JwtClaims.parse({"at": "{k8s.ns}:{k8s.sa}"}),
        }
    )
    clock = FakeClock()
    return Registry(FakeEntryStore([made]), TRUST_DOMAIN, [NODE], clock, Alarms(clock))


def caller(ns, sa):
    """The selectors of a caller, of which an attestor said these values, past what attestors themselves refuse."""
    return frozenset({Selector("unix", "uid:1000"), Selector("k8s", f"ns:{ns}"), Selector("k8s", f"sa:{sa}")})


@pytest.mark.parametrize("path", TEMPLATES)
@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_CVE_2021_27099_values_are_data(path, value):
    """A value that would be another place in the ID, or mean something to a reader of it, earns nothing at all."""
    registry = registry_of(path)
    assert () == registry.match(caller(value, "web"))
    assert () == registry.match(caller("prod", value))  # it stands in the claims, if not in the ID


@pytest.mark.parametrize("path", ["/{k8s.ns}", "/{k8s.ns}/{k8s.sa}"])
def test_no_value_names_the_agent(path):
    """No value makes an ID of those that are the agent's own, where it would stand for one."""
    assert () == registry_of(path).match(caller("spire", "agent"))


@pytest.mark.parametrize("path", TEMPLATES)
def test_values_at_random(path):
    """Of random values, plain or not, each caller has the ID that they spell in their places, or none."""
    chance = random.Random(path)
    alphabet = "ab.-_Z9" * 3 + "/%:{}\\ \n\0é\u212a"
    registry, given = registry_of(path), 0
    for _ in range(ROUNDS):
        ns, sa = ("".join(chance.choices(alphabet, k=chance.randint(0, 4))) for _ in range(2))
        found = registry.match(caller(ns, sa))
        if not found:
            continue
        given += 1
        assert PLAIN.issuperset(ns + sa)
        assert not {".", ".."} & {ns, sa}
        spelled = path.replace("{k8s.ns}", ns).replace("{k8s.sa}", sa)
        assert [f"spiffe://example.org{spelled}"] == [str(each.spiffe_id) for each in found]
        assert {"at": f"{ns}:{sa}"} == found[0].jwt_claims.signable
        assert path.count("/") == found[0].spiffe_id.path.count("/")
    assert given > ROUNDS // 50


@pytest.mark.parametrize("path", TEMPLATES[:3])
def test_no_two_callers_of_one_id(path):
    """Two callers of one template that differ in what it asks for never have one ID."""
    registry, seen = registry_of(path), {}
    words = ["a", "b", "a-b", "b-c", "a.b", "x-a", "a.y", "a-", "-a", "_", "a_b", "A", "aa", "x-", ".y", "y", "..."]
    for ns in words:
        for sa in words:
            for each in registry.match(caller(ns, sa)):
                values = (ns, sa) if "{k8s.sa}" in path else (ns,)
                assert values == seen.setdefault(str(each.spiffe_id), values)
    assert len(seen) >= len(words) - 1


class TestNothingUnfilledIsSigned:
    @pytest.fixture
    def authority(self, tmp_path):
        return authority_in(tmp_path / "keys", FakeClock(), wit=True)

    @pytest.mark.parametrize(
        "spiffe_id",
        [
            IdTemplate.parse("spiffe://example.org/ns/{k8s.ns}"),
            SpiffeId(TRUST_DOMAIN, "/ns/{k8s.ns}"),
            SpiffeId(TRUST_DOMAIN, "/a/../b"),
            SpiffeId(TRUST_DOMAIN, "/a/"),
            SpiffeId(TrustDomain("{k8s.ns}"), "/a"),
            "spiffe://example.org/a",
        ],
        ids=ascii,
    )
    def test_id(self, authority, spiffe_id):
        """The authority signs no kind of SVID for what is no SPIFFE ID, whatever its type says."""
        ttl = timedelta(hours=1)
        for sign in (
            lambda: authority.issue_x509(spiffe_id, ttl),
            lambda: authority.issue_jwt(spiffe_id, ["a"], ttl),
            lambda: authority.issue_assertion(spiffe_id, "a", ttl, issuer="https://i.example"),
            lambda: authority.issue_wit(spiffe_id, ttl),
        ):
            with pytest.raises(Bug):
                sign()
        assert WIT in authority.kinds
