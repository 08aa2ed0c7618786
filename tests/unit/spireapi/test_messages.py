"""messages.py: SPIRE's messages and our entries are the same thing."""

import contextlib
from dataclasses import replace

import pytest
from fakes.registrations import NODE, OTHER_NODE, entry, selectors
from hypothesis import given
from hypothesis import strategies as st
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import AlreadyExists, Bug, InvalidEntry, InvalidSpiffeId, NotFound, SojournError, StoreFailed
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entries import Entry
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi.messages import MASKED, entry_change, entry_message, new_entry, spiffe_id, status

FULL = entry(
    "/full",
    "unix:uid:1",
    "x:y:z",
    parent_id=OTHER_NODE,
    x509_svid_ttl=60,
    jwt_svid_ttl=30,
    hint="h",
    dns_names=("b", "a"),
    federates_with=(TrustDomain("other.example"),),
    admin=True,
    downstream=True,
    store_svid=True,
    disable_x509_svid_prefetch=True,
    jwt_svid_include_jti=True,
    expires_at=99,
    priority=-5,
    jwt_claims=JwtClaims.parse({"team": "{docker.label:team}", "level": 3, "more": {"a": [True, 1.5]}}),
    owner="support",
    sponsor="oidc:https://id.example.org#4711",
)


def mask(*names):
    return types.EntryMask(**dict.fromkeys(names, True))


class TestEntry:
    @pytest.mark.parametrize("given_entry", [FULL, entry("/web")])
    def test_there_and_back(self, given_entry):
        """An entry survives its message, but for revision and time, which are the registry's."""
        assert given_entry == new_entry(entry_message(given_entry), NODE)

    def test_message(self):
        """A message says everything of an entry, selectors sorted."""
        message = entry_message(replace(FULL, revision=3, created_at=5))
        assert ("entry-full", 3, 5) == (message.id, message.revision_number, message.created_at)
        assert ("example.org", "/full") == (message.spiffe_id.trust_domain, message.spiffe_id.path)
        assert [("unix", "uid:1"), ("x", "y:z")] == [(each.type, each.value) for each in message.selectors]
        assert not entry_message(entry("/web")).HasField("additional_attributes")

    @pytest.mark.parametrize("name", MASKED)
    def test_output_mask(self, name):
        """With a mask only the masked fields are shown, and always the ID."""
        message = entry_message(replace(FULL, revision=3, created_at=5, origin="/dir"), mask(name))
        assert {"id", name} == {field.name for field, _ in message.ListFields()}

    def test_an_empty_mask(self):
        """With an empty mask the ID alone is shown."""
        assert types.Entry(id="entry-full") == entry_message(FULL, types.EntryMask())

    def test_every_field_of_the_mask_is_known(self):
        """Every field that SPIRE's mask has is honoured."""
        assert {field.name for field in types.EntryMask.DESCRIPTOR.fields} == set(MASKED)


class TestOwners:
    """Who is responsible for an entry, which SPIRE's tools know nothing of."""

    def test_an_update_of_spires(self):
        """An update by SPIRE's own tools, with a mask of all that they know or without one, leaves both names."""
        message = entry_message(FULL)
        for name in ("owner", "sponsor"):
            message.ClearField(name)
        theirs = types.EntryMask(**{name: name not in {"owner", "sponsor"} for name in MASKED})
        for masked in (None, theirs):
            changed = entry_change(message, masked, NODE)(FULL)
            assert (FULL.owner, FULL.sponsor) == (changed.owner, changed.sponsor)

    def test_taken_away(self):
        """With a mask that has it, a name that is left out is taken away."""
        changed = entry_change(types.Entry(), mask("owner"), NODE)(FULL)
        assert ("", FULL.sponsor) == (changed.owner, changed.sponsor)


class TestNew:
    def test_parent_left_out(self):
        """An entry without parent is this node's."""
        message = entry_message(entry("/web"))
        message.ClearField("parent_id")
        assert NODE == new_entry(message, NODE).parent_id

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda m: m.ClearField("spiffe_id"), "failed to convert entry: invalid spiffe ID"),
            (lambda m: m.spiffe_id.CopyFrom(types.SPIFFEID()), "failed to convert entry: invalid spiffe ID"),
            (lambda m: setattr(m.spiffe_id, "path", "no-slash"), "failed to convert entry: invalid spiffe ID"),
            (lambda m: setattr(m.parent_id, "trust_domain", "NO"), "failed to convert entry: invalid parent ID"),
            (lambda m: m.selectors.add(type="", value="x"), "failed to convert entry: missing selector type"),
            (lambda m: m.selectors.add(type="a:b", value="x"), "failed to convert entry: selector type contains"),
            (lambda m: m.selectors.add(type="a", value=""), "failed to convert entry: missing selector value"),
            (lambda m: m.federates_with.append("NO"), "failed to convert entry: invalid federated trust domain"),
        ],
    )
    def test_refused(self, change, says):
        """What is no entry is refused with SPIRE's words."""
        message = entry_message(entry("/web"))
        change(message)
        with pytest.raises(InvalidEntry, match=says):
            new_entry(message, NODE)

    @given(st.binary(max_size=80))
    def test_ours_or_nothing(self, data):
        """Any message is an entry or an error of ours."""
        try:
            message = types.Entry.FromString(data)
        except Exception:
            return
        with contextlib.suppress(SojournError):
            assert isinstance(new_entry(message, NODE), Entry)


class TestChange:
    OLD = replace(FULL, id="old", revision=4, created_at=7)

    def test_without_mask_all(self):
        """Without a mask everything is replaced; a parent that is left out is this node."""
        message = entry_message(entry("/web"))
        message.ClearField("parent_id")
        message.priority = 0
        message.owner = message.sponsor = ""
        message.jwt_claims.SetInParent()
        assert replace(entry("/web"), id="old", revision=4, created_at=7) == entry_change(message, None, NODE)(self.OLD)

    def test_without_mask_and_priority(self):
        """A client that knows nothing of priorities, as SPIRE's tools, leaves an entry's as it is."""
        assert -5 == entry_change(entry_message(entry("/web")), None, NODE)(self.OLD).priority

    @pytest.mark.parametrize("given_mask", [None, mask("origin")])
    def test_origin_cannot_be_set(self, given_mask):
        """Where an entry comes from is not the caller's to say."""
        message = entry_message(replace(entry("/web"), origin="/elsewhere"))
        assert "" == new_entry(message, NODE).origin
        followed = replace(self.OLD, origin="/dir")
        assert "/dir" == entry_change(message, given_mask, NODE)(followed).origin

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("hint", {"hint": ""}),
            ("dns_names", {"dns_names": ()}),
            ("selectors", {"selectors": selectors("unix:uid:1000")}),
            ("x509_svid_ttl", {"x509_svid_ttl": 0}),
            ("priority", {"priority": 0}),
            ("spiffe_id", {"spiffe_id": SpiffeId.parse("spiffe://example.org/web")}),
            ("parent_id", {"parent_id": NODE}),
            ("federates_with", {"federates_with": ()}),
            ("additional_attributes", {"disable_x509_svid_prefetch": False, "jwt_svid_include_jti": False}),
            ("revision_number", {}),
            ("created_at", {}),
        ],
    )
    def test_with_mask_only_that(self, name, expected):
        """With a mask only the masked field changes; revision and time never do."""
        message = entry_message(replace(entry("/web"), revision=40, created_at=50))
        assert replace(self.OLD, **expected) == entry_change(message, mask(name), NODE)(self.OLD)

    @pytest.mark.parametrize("given_mask", [None, mask("spiffe_id")])
    def test_spiffe_id_cannot_be_taken_away(self, given_mask):
        """An entry never loses its SPIFFE ID."""
        with pytest.raises(InvalidEntry):
            entry_change(types.Entry(id="old"), given_mask, NODE)(self.OLD)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (InvalidEntry("x"), 3),
        (NotFound("x"), 5),
        (AlreadyExists("x"), 6),
        (StoreFailed("x"), 14),
        (Bug("x", detail="secret"), 13),
    ],
)
def test_status(error, code):
    """An item's status has gRPC's code and the public text only."""
    found = status(error)
    assert (code, "OK" if error is None else "x") == (found.code, found.message)


@pytest.mark.parametrize("message", [types.SPIFFEID(), types.SPIFFEID(path="/x"), types.SPIFFEID(trust_domain="a b")])
def test_spiffe_id(message):
    """A message that is no SPIFFE ID is refused."""
    with pytest.raises(InvalidSpiffeId):
        spiffe_id(message)
