"""entries.py: which entries may be registered."""

from dataclasses import replace

import pytest
from fakes.registrations import OTHER_NODE, TRUST_DOMAIN, entry, selectors
from hypothesis import given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidEntry
from sojourn.identity.entries import check
from sojourn.limits import (
    DNS_NAMES_PER_ENTRY,
    ENTRY_ID_MAX_BYTES,
    ENTRY_PRIORITY_MAX,
    HINT_MAX_BYTES,
    SELECTORS_PER_ENTRY,
    SVID_TTL_MAX_SECONDS,
    SVID_TTL_MIN_SECONDS,
)
from sojourn.spiffe.ids import SpiffeId, TrustDomain

GOOD = entry("/web")
many = frozenset(Selector("unix", f"uid:{number}") for number in range(SELECTORS_PER_ENTRY + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id": "A-z_0.9"},
        {"id": "x" * ENTRY_ID_MAX_BYTES},
        {"parent_id": OTHER_NODE},
        {"selectors": frozenset(list(many)[:SELECTORS_PER_ENTRY])},
        {"x509_svid_ttl": SVID_TTL_MIN_SECONDS, "jwt_svid_ttl": SVID_TTL_MAX_SECONDS},
        {"hint": "x" * HINT_MAX_BYTES},
        {"dns_names": ("a", "db_1.example.org", "*.example.org", "x" * 63 + ".example")},
        {"expires_at": 2**53},
        {"priority": ENTRY_PRIORITY_MAX},
        {"priority": -ENTRY_PRIORITY_MAX},
        {"store_svid": True, "selectors": selectors("aws:a", "aws:b")},
        {"federates_with": (TrustDomain("other.example"),)},
    ],
)
def test_good(changes):
    """An entry within every limit may be registered."""
    check(replace(GOOD, **changes), TRUST_DOMAIN)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id": ""}, "entry ID contains invalid characters"),
        ({"id": "a/b"}, "entry ID contains invalid characters"),
        ({"id": "a\n"}, "entry ID contains invalid characters"),
        ({"id": "é"}, "entry ID contains invalid characters"),
        ({"id": "x" * (ENTRY_ID_MAX_BYTES + 1)}, "entry ID too long"),
        ({"spiffe_id": SpiffeId.parse("spiffe://other.example/web")}, "invalid spiffe ID"),
        ({"spiffe_id": SpiffeId.parse("spiffe://example.org")}, "invalid spiffe ID"),
        ({"spiffe_id": SpiffeId.parse("spiffe://example.org/spire/agent/x")}, "invalid spiffe ID"),
        ({"parent_id": SpiffeId.parse("spiffe://other.example/node")}, "invalid parent ID"),
        ({"parent_id": SpiffeId.parse("spiffe://example.org")}, "invalid parent ID"),
        ({"selectors": frozenset()}, "selector list is empty"),
        ({"selectors": many}, "selectors"),
        ({"x509_svid_ttl": SVID_TTL_MIN_SECONDS - 1}, "x509_svid_ttl"),
        ({"x509_svid_ttl": -1}, "x509_svid_ttl"),
        ({"jwt_svid_ttl": SVID_TTL_MAX_SECONDS + 1}, "jwt_svid_ttl"),
        ({"hint": "é" * (HINT_MAX_BYTES // 2 + 1)}, "hint is too long"),
        ({"dns_names": ("a",) * (DNS_NAMES_PER_ENTRY + 1)}, "DNS names"),
        ({"dns_names": ("",)}, "invalid DNS name"),
        ({"dns_names": ("*.",)}, "invalid DNS name"),
        ({"dns_names": ("a.*.b",)}, "invalid DNS name"),
        ({"dns_names": ("-a",)}, "invalid DNS name"),
        ({"dns_names": ("a b",)}, "invalid DNS name"),
        ({"dns_names": ("a\n",)}, "invalid DNS name"),
        ({"dns_names": ("a..b",)}, "invalid DNS name"),
        ({"dns_names": ("é.example",)}, "invalid DNS name"),
        ({"dns_names": ("x" * 64,)}, "invalid DNS name"),
        ({"dns_names": (".".join(["x" * 60] * 5),)}, "invalid DNS name"),
        ({"priority": ENTRY_PRIORITY_MAX + 1}, "priority"),
        ({"priority": -ENTRY_PRIORITY_MAX - 1}, "priority"),
        ({"expires_at": -1}, "expires_at"),
        ({"expires_at": 2**53 + 1}, "expires_at"),
        ({"store_svid": True, "selectors": selectors("aws:a", "unix:uid:1")}, "selector types"),
    ],
)
def test_refused(changes, says):
    """An entry that breaks one rule is refused with the field and the rule."""
    with pytest.raises(InvalidEntry, match=says):
        check(replace(GOOD, **changes), TRUST_DOMAIN)


def test_order():
    """The stated order is: highest priority first, then most selectors, then oldest, then by ID."""
    first, last = entry("/p", priority=1, created_at=99), entry("/l", "a:a", "a:b", "a:c", priority=-1)
    most = entry("/m", "unix:uid:1", "unix:gid:1", created_at=9)
    old, young_a, young_b = (entry(path, created_at=age) for path, age in (("/z", 1), ("/a", 2), ("/b", 2)))
    expected = [first, most, old, young_a, young_b, last]
    assert expected == sorted([last, young_b, young_a, old, most, first], key=lambda each: each.order)


class TestDigest:
    @pytest.mark.parametrize(
        "changes",
        [
            {"spiffe_id": SpiffeId.parse("spiffe://example.org/other")},
            {"parent_id": OTHER_NODE},
            {"selectors": selectors("unix:uid:1001")},
            {"selectors": selectors("unix:uid:1000", "unix:gid:1")},
        ],
    )
    def test_of_what_makes_an_entry(self, changes):
        """Entries differ if SPIFFE ID, parent or selectors do."""
        assert GOOD.identity_digest != replace(GOOD, **changes).identity_digest

    @pytest.mark.parametrize(
        "changes",
        [{"id": "x"}, {"hint": "h"}, {"x509_svid_ttl": 60}, {"revision": 3}, {"priority": 1}, {"origin": "/d"}],
    )
    def test_of_nothing_else(self, changes):
        """Entries that differ in anything else are twins."""
        assert GOOD.identity_digest == replace(GOOD, **changes).identity_digest

    @given(st.lists(st.sampled_from([f"unix:uid:{number}" for number in range(9)]), min_size=1))
    def test_in_any_order(self, texts):
        """The order of selectors does not matter."""
        assert entry("/web", *texts).identity_digest == entry("/web", *reversed(texts)).identity_digest
