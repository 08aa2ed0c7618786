"""custom_claims.py: custom claims say what the operator says, take no other's place, and are never signed half filled."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import Bug, InvalidEntry
from sojourn.identity.custom_claims import NO_CLAIMS, RESERVED, JwtClaims
from sojourn.identity.templates import Placeholder, Unfilled
from sojourn.limits import (
    JWT_CLAIM_NAME_MAX_BYTES,
    JWT_CLAIMS_MAX_BYTES,
    JWT_CLAIMS_NESTED_MAX,
    JWT_CLAIMS_PER_ENTRY,
    TEMPLATE_PLACEHOLDERS,
)

NS, SA = Placeholder("k8s", "ns"), Placeholder("k8s", "sa")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["{k8s.ns}", "{k8s.ns", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_filled():
    """Each text has its placeholders filled, also in lists and objects; names and other values stay."""
    claims = JwtClaims.parse({"at": "{k8s.ns}:{k8s.sa}", "more": {"list": ["{k8s.ns}", 1, True, "{k8s.ns}"]}})
    assert claims.fill({NS: "prod", SA: "web"}).signable == {
        "at": "prod:web",
        "more": {"list": ["prod", 1, True, "prod"]},
    }


def test_none():
    """Claims that are none are nothing at all."""
    assert (NO_CLAIMS, {}, False) == (JwtClaims.parse({}), NO_CLAIMS.signable, bool(NO_CLAIMS))


def test_the_same_whichever_way_it_came():
    """The order of names, and how a whole number was written, make no difference."""
    assert JwtClaims.parse({"a": 1, "b": {"c": 2, "d": 3}}) == JwtClaims.parse({"b": {"d": 3.0, "c": 2.0}, "a": 1.0})
    assert JwtClaims.parse({"a": 1}) != JwtClaims.parse({"a": True})


def test_nothing_unfilled_is_signed():
    """Claims with a placeholder left, by whichever way they were made, are not for signing."""
    for claims in (JwtClaims.parse({"a": ["{k8s.ns}"]}), JwtClaims('{"a":"{k8s.ns}"}')):
        with pytest.raises(Bug):
            _ = claims.signable


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved(name):
    """A claim that a JWT-SVID has itself, or that standards or our own tokens have a meaning for, is refused."""
    with pytest.raises(InvalidEntry, match="not an entry's to set"):
        JwtClaims.parse({name: "x"})


def test_what_must_be_reserved():
    """Among the reserved names are those that a verifier would act on."""
    assert {"sub", "aud", "exp", "iat", "nbf", "jti", "iss", "act", "may_act", "cnf", "scope", "client_id"} <= RESERVED


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"": 1}, "printable"),
        ({"a\n": 1}, "printable"),
        ({"{k8s.ns}": 1}, "braces"),
        ({"a": {"{k8s.ns}": 1}}, "braces"),
        ({"a" * (JWT_CLAIM_NAME_MAX_BYTES + 1): 1}, "a name of more"),
        ({3: 1}, "printable"),
        ({"a": None}, "neither"),
        ({"a": float("nan")}, "number"),
        ({"a": float("inf")}, "number"),
        ({"a": 10**400}, "number"),
        ({"a": "\ud800"}, "not Unicode"),
        ({"a": "x\0"}, "NUL"),
        ({"a": "{k8s.ns"}, "brace"),
        ({"a": "{k8s.ns}{k8s.sa}"}, "nothing between"),
        ({"a": nested(JWT_CLAIMS_NESTED_MAX + 1)}, "nested"),
        ({"a": "x" * JWT_CLAIMS_MAX_BYTES}, "longer than"),
        ({"a": ["{k8s.ns}"] * (TEMPLATE_PLACEHOLDERS + 1)}, "placeholders"),
        ({f"a{number}": 1 for number in range(JWT_CLAIMS_PER_ENTRY + 1)}, "more than"),
        ("text", "by name"),
        (["a"], "by name"),
    ],
)
def test_malformed(claims, says):
    """What a token cannot say, or says to some readers only, is refused with the rule that it breaks."""
    with pytest.raises(InvalidEntry, match=says):
        JwtClaims.parse(claims)


def test_the_limits_themselves():
    """What is just within the limits is taken."""
    JwtClaims.parse({"a": nested(JWT_CLAIMS_NESTED_MAX)})
    JwtClaims.parse({f"a{number}": 2**53 for number in range(JWT_CLAIMS_PER_ENTRY)})


def test_too_long_once_filled():
    """Values that make the claims too long make none."""
    claims = JwtClaims.parse({"a": "{k8s.ns}"})
    assert isinstance(claims.fill({NS: "n" * JWT_CLAIMS_MAX_BYTES}), Unfilled)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_claims(claims):
    """Any JSON is claims or a fault of ours, and claims survive being written down and read again."""
    with contextlib.suppress(InvalidEntry):
        made = JwtClaims.parse(claims)
        assert made == JwtClaims.parse(json.loads(json.dumps(made.declared)))
        assert made == JwtClaims.parse(made.declared)


@given(st.text("ab._-", min_size=1, max_size=20))
def test_no_value_leaves_its_text(value):
    """A value fills its place and nothing else: whatever it is, the claims have the same names and kinds."""
    claims = JwtClaims.parse({"a": "x/{k8s.ns}", "b": [1, "{k8s.ns}"]})
    assert {"a": f"x/{value}", "b": [1, value]} == claims.fill({NS: value}).signable
