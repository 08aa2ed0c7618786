"""kept_values.py: what is kept is read again as it was, and whatever else is read is InvalidInput."""

import json
from base64 import b64encode
from contextlib import suppress

import pytest
from fakes.ca import FakeCa
from hypothesis import given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidInput
from sojourn.identity.entries import Entry
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.upstream import kept_values
from sojourn.upstream.authorized_entries import Authorized
from sojourn.upstream.kept_values import KeptNode, SignedSvid
from sojourn.upstream.node_attestation import AttestedNode

DOMAIN = TrustDomain("example.org")
NODE = SpiffeId.parse("spiffe://example.org/spire/agent/join_token/a")
ENTRY = Entry(
    "e-1",
    SpiffeId.parse("spiffe://example.org/web"),
    NODE,
    frozenset({Selector("unix", "uid:1000"), Selector("k8s", "ns:a:b")}),
    hint="internal",
    federates_with=(TrustDomain("partner.example"),),
    admin=True,
    jwt_svid_include_jti=True,
    revision=7,
    created_at=1_700_000_000,
)
READERS = (
    lambda text: kept_values.read_node(text, DOMAIN),
    lambda text: kept_values.read_bundles(text, DOMAIN),
    lambda text: kept_values.read_entries(text, NODE),
    lambda text: kept_values.read_svids(text, NODE),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["node", "entries", "svids", "own", "tainted", "federated", "chain", "key", "keys", "id", "selectors"]
            ),
            inner,
        )
    ),
)


@pytest.fixture(scope="module")
def ca() -> FakeCa:
    return FakeCa.make()


class TestAgain:
    def test_entries(self) -> None:
        """Entries are read as they were, with every field that a server gives."""
        found = kept_values.read_entries(kept_values.entries_text(NODE, Authorized({ENTRY.id: ENTRY})), NODE)
        assert {ENTRY.id: ENTRY} == found.entries

    def test_node(self, ca: FakeCa) -> None:
        """The node's own SVID is read with its key."""
        svid = ca.svid(NODE.path)
        text = kept_values.node_text(KeptNode(AttestedNode(svid, True), "d"))
        found = kept_values.read_node(text, DOMAIN)
        assert (svid.chain, svid.key_der, True, "d") == (
            found.node.svid.chain,
            found.node.svid.key_der,
            found.node.reattestable,
            found.joined_by,
        )

    def test_bundles(self, ca: FakeCa) -> None:
        """Bundles are read with what is tainted, and those of others with theirs."""
        own = Bundle(DOMAIN, (ca.root,), sequence=3, tainted=frozenset({"ab"}))
        partner = FakeCa.make("partner.example")
        theirs = Bundle(partner.trust_domain, (partner.root,))
        found, others = kept_values.read_bundles(kept_values.bundles_text(own, {partner.trust_domain: theirs}), DOMAIN)
        assert (own.x509_der, 3, {"ab"}) == (found.x509_der, found.sequence, found.tainted)
        assert {partner.trust_domain: theirs.x509_der} == {name: each.x509_der for name, each in others.items()}

    def test_svids(self, ca: FakeCa) -> None:
        """SVIDs of workloads are read with their keys."""
        svid = ca.svid("/web")
        kept = {"e-1": SignedSvid(ENTRY, svid).kept()}
        found = kept_values.read_svids(kept_values.svids_text(NODE, kept), NODE)
        assert kept == found
        assert svid.key_der == found["e-1"].svid().key_der


class TestRefused:
    @pytest.mark.parametrize("read", READERS)
    @given(text=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_whatever_it_is(self, read, text: bytes) -> None:
        """Whatever stands there is read, or refused with our own error."""
        with suppress(InvalidInput):
            read(text)

    def test_an_entry_of_another_trust_domain(self) -> None:
        """Entries that this node could not have been given are refused together."""
        text = kept_values.entries_text(NODE, Authorized({ENTRY.id: ENTRY})).replace(
            b"example.org/web", b"evil.org/web"
        )
        with pytest.raises(InvalidInput):
            kept_values.read_entries(text, NODE)

    def test_a_workload_s_svid_as_the_node_s(self, ca: FakeCa) -> None:
        """An SVID that is no agent's is not this node's."""
        with pytest.raises(InvalidInput, match="is no agent"):
            kept_values.read_node(kept_values.node_text(KeptNode(AttestedNode(ca.svid("/web"), True), "")), DOMAIN)

    def test_another_key(self, ca: FakeCa) -> None:
        """An SVID beside a key that is not its own is refused."""
        document = json.loads(kept_values.node_text(KeptNode(AttestedNode(ca.svid(NODE.path), True), "")))
        document["key"] = b64encode(ca.svid("/other").key_der).decode()
        with pytest.raises(InvalidInput, match="another one's"):
            kept_values.read_node(json.dumps(document).encode(), DOMAIN)

    def test_another_node_s(self) -> None:
        """What was given to another node is refused, and it is said whose it is."""
        other = SpiffeId.parse("spiffe://example.org/spire/agent/join_token/b")
        for text, read in (
            (kept_values.entries_text(other, Authorized()), kept_values.read_entries),
            (kept_values.svids_text(other, {}), kept_values.read_svids),
        ):
            with pytest.raises(InvalidInput, match="join_token/b"):
                read(text, NODE)
