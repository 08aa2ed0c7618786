"""grants.py: what a task may do, and that it only ever shrinks."""

import json

import pytest
from harness.examples import examples
from hypothesis import example, given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput
from sojourn.limits import ACTIONS_PER_GRANT, AUDIENCE_MAX_BYTES, GRANTS_PER_TASK
from sojourn.tasktoken import grants as module
from sojourn.tasktoken.grants import Authority, Grant, from_details

FREELY = examples(300)
DB, MAIL = "https://db.example/rows", "urn:mail"

resources = st.sampled_from(
    [DB, MAIL, "https://db.example/rows/", "https://DB.example/rows", "spiffe://example.org/db"]
)
actions = st.sampled_from(["read", "Read", "write", "read:all", "rea", "delete"])
grants = st.builds(Grant.parse, resources, st.sets(actions, min_size=1))
authorities = st.builds(Authority.of, st.lists(grants, max_size=5))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | resources | actions,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "actions", "locations", "x"]) | st.text(max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)
elements = st.fixed_dictionaries(
    {"type": st.just("report") | json_values},
    optional={
        "actions": st.lists(actions | json_values, max_size=3) | json_values,
        "locations": st.lists(resources | json_values, max_size=3) | json_values,
    },
)


def pairs(authority):
    return {(grant.resource, action) for grant in authority.grants for action in grant.actions}


class TestGrant:
    def test_good(self):
        """A grant has its resource as it stands, and its actions sorted and once each."""
        grant = Grant.parse(DB, ["write", "read", "write"])
        expected = Grant(DB, ("read", "write"))
        assert expected == grant

    @pytest.mark.parametrize(
        "resource",
        [
            *("https://db.example", "https://db.example/a?b=c", "urn:a", "spiffe://example.org/db", "a:b", "x-y.z+1:/"),
            *("https://[::1]:8080/", "https://db.example/%20", "HTTPS://db.example", "mcp://tools/~a_b"),
        ],
    )
    def test_good_resources(self, resource):
        """An absolute URI without fragment is a resource, whatever its scheme (RFC 8707 2)."""
        assert resource == Grant.parse(resource, ["read"]).resource

    @pytest.mark.parametrize(
        "resource",
        [
            pytest.param("", id="empty"),
            pytest.param("db", id="no-scheme"),
            pytest.param("/rows", id="path-only"),
            pytest.param("//db.example/rows", id="no-scheme-but-host"),
            pytest.param("https:", id="scheme-only"),
            pytest.param(":a", id="empty-scheme"),
            pytest.param("1a:b", id="scheme-begins-with-digit"),
            pytest.param("a_b:c", id="underscore-in-scheme"),
            pytest.param("https://db.example/#a", id="fragment"),
            pytest.param("https://db.example/#", id="empty-fragment"),
            pytest.param("https://db.example/a b", id="space"),
            pytest.param("https://db.example/\n", id="newline-behind"),
            pytest.param("\nhttps://db.example/", id="newline-before"),
            pytest.param("https://db.example/\0", id="nul"),
            pytest.param("https://db.example/\t", id="tab"),
            pytest.param("https://db.example/\x7f", id="delete"),
            pytest.param("https://db.example/\\", id="backslash"),
            pytest.param('https://db.example/"', id="quote"),
            pytest.param("https://db.example/<a>", id="angle"),
            pytest.param("https://db.example/{a}", id="brace"),
            pytest.param("https://db.example/|", id="bar"),
            pytest.param("https://db.example/^", id="caret"),
            pytest.param("https://db.example/`", id="backtick"),
            pytest.param("https://b\u00fccher.example/", id="umlaut"),
            pytest.param("https://d\u212a.example/", id="kelvin-sign"),
            pytest.param("\uff48ttps://db.example/", id="full-width-scheme"),
            pytest.param("https://db.example/\ud800", id="lone-surrogate"),
            pytest.param("https://db.example/".ljust(AUDIENCE_MAX_BYTES + 1, "a"), id="too-long"),
        ],
    )
    def test_bad_resources(self, resource):
        """A resource that is no absolute URI without fragment is refused."""
        with pytest.raises(InvalidInput, match="resource"):
            Grant.parse(resource, ["read"])

    def test_longest_resource(self):
        """A resource of AUDIENCE_MAX_BYTES is good."""
        resource = "https://db.example/".ljust(AUDIENCE_MAX_BYTES, "a")
        assert resource == Grant.parse(resource, ["read"]).resource

    @pytest.mark.parametrize("action", ["a", "9", "read:all", "a/b.c_d-e", "A" * 128])
    def test_good_actions(self, action):
        """An action is a name of letters, digits and some marks."""
        expected = (action,)
        assert expected == Grant.parse(DB, [action]).actions

    @pytest.mark.parametrize(
        "action",
        [
            pytest.param("", id="empty"),
            pytest.param("*", id="star"),
            pytest.param("read *", id="space"),
            pytest.param("read\n", id="newline-behind"),
            pytest.param("-read", id="mark-first"),
            pytest.param("read,write", id="comma"),
            pytest.param("read\0", id="nul"),
            pytest.param("re\u00e4d", id="umlaut"),
            pytest.param("\u0661", id="arabic-digit"),
            pytest.param("a" * 129, id="too-long"),
        ],
    )
    def test_bad_actions(self, action):
        """An action of another form is refused, also among good ones."""
        with pytest.raises(InvalidInput, match="action"):
            Grant.parse(DB, ["read", action])

    @pytest.mark.parametrize(
        ("count", "good"), [(0, False), (1, True), (ACTIONS_PER_GRANT, True), (ACTIONS_PER_GRANT + 1, False)]
    )
    def test_count_of_actions(self, count, good):
        """A grant has 1 to ACTIONS_PER_GRANT actions."""
        names = [f"a{number}" for number in range(count)]
        if good:
            assert count == len(Grant.parse(DB, names).actions)
            return
        with pytest.raises(InvalidInput, match="1 to 50 actions"):
            Grant.parse(DB, names)

    @FREELY
    @given(st.text() | st.text().map("a:".__add__), st.lists(st.text(max_size=5), max_size=3))
    @example("https://db.example/\n", ["read"])
    def test_ours_or_nothing(self, resource, names):
        """Any text and actions are a grant that says the same, or InvalidInput."""
        try:
            grant = Grant.parse(resource, names)
        except InvalidInput:
            return
        assert resource == grant.resource
        assert set(names) == set(grant.actions)

    def test_detail(self):
        """A grant is written as one element of authorization_details (RFC 9396 2)."""
        expected = {"type": "report", "actions": ["read", "write"], "locations": [DB]}
        assert expected == Grant.parse(DB, ["write", "read"]).detail("report")


class TestAuthority:
    def test_merges_by_resource(self):
        """Grants for one resource become one, in the order of first mention."""
        authority = Authority.of([Grant.parse(DB, ["read"]), Grant.parse(MAIL, ["send"]), Grant.parse(DB, ["write"])])
        expected = (Grant(DB, ("read", "write")), Grant(MAIL, ("send",)))
        assert expected == authority.grants
        expected = (DB, MAIL)
        assert expected == tuple(authority.resources)

    def test_at(self):
        """The actions at a resource are its grant's; elsewhere there are none."""
        authority = Authority.of([Grant.parse(DB, ["read"])])
        expected, nothing = ("read",), ()
        assert expected == authority.at(DB)
        for other in (DB + "/", DB.upper(), DB[:-1], DB + "/1", ""):
            assert nothing == authority.at(other)

    @pytest.mark.parametrize(("count", "good"), [(GRANTS_PER_TASK, True), (GRANTS_PER_TASK + 1, False)])
    def test_count_of_grants(self, count, good):
        """A task has grants for GRANTS_PER_TASK resources at most; several for one resource count once."""
        many = [Grant.parse(f"urn:{number}", ["read"]) for number in range(count)]
        if good:
            assert count == len(Authority.of(many + many).grants)
            return
        with pytest.raises(InvalidInput, match="at most 50 grants"):
            Authority.of(many)

    def test_count_of_actions_after_merging(self):
        """Grants for one resource that are merged keep the limit of ACTIONS_PER_GRANT."""
        halves = [
            Grant.parse(DB, [f"{letter}{number}" for number in range(ACTIONS_PER_GRANT)]) for letter in ("a", "b")
        ]
        with pytest.raises(InvalidInput, match="1 to 50 actions"):
            Authority.of(halves)

    @FREELY
    @given(authorities, authorities)
    def test_excess_is_empty_iff_subset(self, held, wanted):
        """There is no excess exactly when everything that is wanted is held."""
        assert (pairs(wanted) <= pairs(held)) == (not held.excess(wanted))

    @FREELY
    @given(authorities, authorities)
    def test_excess_is_the_difference(self, held, wanted):
        """The excess is what is wanted and not held, each pair once."""
        excess = held.excess(wanted)
        assert pairs(wanted) - pairs(held) == set(excess)
        assert len(set(excess)) == len(excess)

    @FREELY
    @given(authorities)
    def test_nothing_exceeds_itself(self, authority):
        """No authority exceeds itself, and the empty one exceeds none."""
        assert not authority.excess(authority)
        assert not authority.excess(Authority(()))

    @FREELY
    @given(authorities)
    def test_all_exceeds_nothing(self, authority):
        """Over the empty authority everything is excess."""
        assert pairs(authority) == set(Authority(()).excess(authority))

    @FREELY
    @given(authorities, authorities, authorities)
    def test_shrinking_is_transitive(self, first, second, third):
        """What fits in a part of an authority fits in the authority."""
        if not first.excess(second) and not second.excess(third):
            assert not first.excess(third)

    @FREELY
    @given(authorities, authorities)
    def test_what_is_left_does_not_exceed(self, held, wanted):
        """What is wanted without its excess is held: the result is the intersection."""
        excess = set(held.excess(wanted))
        kept = Authority.of(Grant.parse(*pair) for pair in ((r, [a]) for r, a in sorted(pairs(wanted) - excess)))
        assert pairs(held) & pairs(wanted) == pairs(kept)
        assert not held.excess(kept)

    @FREELY
    @given(st.lists(grants, max_size=6))
    def test_merging_loses_and_adds_nothing(self, parts):
        """Merged grants say what the parts said, with one grant for each resource, and merging again changes nothing."""
        merged = Authority.of(parts)
        assert {(grant.resource, action) for grant in parts for action in grant.actions} == pairs(merged)
        assert len(set(merged.resources)) == len(merged.resources)
        assert merged == Authority.of(merged.grants)


def parsed(details):
    found = from_details(details)
    return found.type_name, found.authority, found.params, found.params_digest


DIGEST = "A" * 43
GOOD = {"type": "report", "actions": ["read"], "locations": [DB]}


class TestFromDetails:
    def test_good(self):
        """Task type and authority are read; each location gets the element's actions."""
        name, authority, *_ = parsed([{"type": "report", "actions": ["read", "list"], "locations": [DB, MAIL]}])
        expected = "report"
        assert expected == name
        assert Authority((Grant(DB, ("list", "read")), Grant(MAIL, ("list", "read")))) == authority

    def test_parameters(self):
        """Parameters and the digest of a request are read, each with its type."""
        params = {"ticket": "42", "amount": 7, "dry": True}
        _, _, *found = parsed([{**GOOD, "params": params, "params_digest": DIGEST}] * 2)
        assert [params, DIGEST] == found
        assert found[0]["dry"] is True

    @pytest.mark.parametrize(
        "other", [{}, {"params": {"a": True}}, {"params": {"a": 1, "b": 1}}, {"params": {"a": "1"}}]
    )
    def test_elements_with_different_parameters(self, other):
        """Elements that differ in parameters, also in a type alone, are refused: which of them counts?"""
        with pytest.raises(InvalidInput, match="different params"):
            parsed([{**GOOD, "params": {"a": 1}}, {**GOOD, **other}])

    def test_elements_are_merged(self):
        """Two elements for one location are one grant."""
        _, authority, *_ = parsed([GOOD, {**GOOD, "actions": ["write"]}])
        expected = ("read", "write")
        assert expected == authority.at(DB)

    @pytest.mark.parametrize(
        "details",
        [
            pytest.param([], id="no-element"),
            pytest.param({}, id="object-empty"),
            pytest.param(GOOD, id="object"),
            pytest.param(None, id="null"),
            pytest.param(True, id="true"),
            pytest.param(1, id="number"),
            pytest.param("report", id="string"),
            pytest.param("", id="string-empty"),
            pytest.param([[]], id="list-in-list"),
            pytest.param([GOOD, None], id="null-element"),
            pytest.param([GOOD, "x"], id="string-element"),
            pytest.param([{}], id="empty-element"),
        ],
    )
    def test_form(self, details):
        """What is not a list of objects is refused."""
        with pytest.raises(InvalidInput):
            from_details(details)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"type": None}, id="type-null"),
            pytest.param({"type": 1}, id="type-number"),
            pytest.param({"type": ["report"]}, id="type-list"),
            pytest.param({"actions": None}, id="actions-null"),
            pytest.param({"actions": []}, id="actions-empty"),
            pytest.param({"actions": "read"}, id="actions-string"),
            pytest.param({"actions": {"read": 1}}, id="actions-object"),
            pytest.param({"actions": ["read", 1]}, id="actions-number"),
            pytest.param({"actions": ["read", None]}, id="actions-null-inside"),
            pytest.param({"actions": [["read"]]}, id="actions-list-inside"),
            pytest.param({"actions": ["read", "*"]}, id="actions-star"),
            pytest.param({"locations": None}, id="locations-null"),
            pytest.param({"locations": []}, id="locations-empty"),
            pytest.param({"locations": DB}, id="locations-string"),
            pytest.param({"locations": [DB, 1]}, id="locations-number"),
            pytest.param({"locations": [DB, ""]}, id="locations-empty-text"),
            pytest.param({"locations": [DB + "#a"]}, id="locations-fragment"),
            pytest.param({"datatypes": ["rows"]}, id="datatypes"),
            pytest.param({"identifier": "x"}, id="identifier"),
            pytest.param({"privileges": ["admin"]}, id="privileges"),
            pytest.param({"params": None}, id="params-null"),
            pytest.param({"params": [1]}, id="params-list"),
            pytest.param({"params": {"a": 1.5}}, id="param-fraction"),
            pytest.param({"params": {"a": 1e300}}, id="param-huge-fraction"),
            pytest.param({"params": {"a": 10**18}}, id="param-too-large"),
            pytest.param({"params": {"a": -(10**18)}}, id="param-too-small"),
            pytest.param({"params": {"a": {}}}, id="param-object"),
            pytest.param({"params": {"a": None}}, id="param-null"),
            pytest.param({"params": {str(each): each for each in range(51)}}, id="params-many"),
            pytest.param({"params_digest": ""}, id="digest-empty"),
            pytest.param({"params_digest": None}, id="digest-null"),
            pytest.param({"params_digest": DIGEST + "A"}, id="digest-long"),
            pytest.param({"params_digest": DIGEST + "\n"}, id="digest-newline"),
            pytest.param({"params_digest": "=" * 43}, id="digest-not-base64url"),
            pytest.param({"x": None}, id="unknown-null"),
            pytest.param({"Actions": ["read"]}, id="unknown-case"),
        ],
    )
    def test_bad(self, change):
        """An element with one fault is refused, first or last; what is not understood is never ignored."""
        for details in ([{**GOOD, **change}], [GOOD, {**GOOD, **change}]):
            with pytest.raises(InvalidInput):
                from_details(details)

    @pytest.mark.parametrize("name", ["type", "actions", "locations"])
    def test_member_missing(self, name):
        """An element without one of its members is refused."""
        with pytest.raises(InvalidInput):
            from_details([{key: value for key, value in GOOD.items() if key != name}])

    @pytest.mark.parametrize("other", ["Report", "report ", "reports", ""])
    def test_one_type(self, other):
        """Elements of two types are refused, byte for byte."""
        with pytest.raises(InvalidInput, match="more than one type"):
            from_details([GOOD, {**GOOD, "type": other}])

    def test_limit_of_grants(self):
        """More locations than a task may have grants are refused."""
        with pytest.raises(InvalidInput, match="at most 50 grants"):
            from_details([{**GOOD, "locations": [f"urn:{number}" for number in range(GRANTS_PER_TASK + 1)]}])

    @pytest.mark.parametrize(
        "details",
        [
            pytest.param([{**GOOD, "actions": ["a"] * 5_000}], id="actions"),
            pytest.param([{**GOOD, "locations": ["urn:a"] * 5_000}], id="locations"),
            pytest.param([{**GOOD, "locations": [f"urn:{number}"]} for number in range(1_400)], id="elements"),
        ],
    )
    def test_what_is_too_much_is_counted_and_not_read(self, monkeypatch, details):
        """No more grants are read of a request than a task may have, and none whose actions are too many: each action of
        thousands at each location of thousands would keep all others waiting for half a second.
        """
        read = []
        monkeypatch.setattr(module, "parsed", lambda *asked: read.append(asked) or Grant.parse(*asked))
        with pytest.raises(InvalidInput, match=r"at most 50 grants|1 to 50 actions"):
            from_details(details)
        assert len(read) <= GRANTS_PER_TASK

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"x" * 10_000: 1}, id="member"),
            pytest.param({"actions": ["\n" * 10_000]}, id="action"),
            pytest.param({"locations": ["\n" * 10_000]}, id="location"),
        ],
    )
    def test_public_text_is_short(self, change):
        """What is refused does not make the error's public text long."""
        with pytest.raises(InvalidInput) as caught:
            from_details([{**GOOD, **change}])
        assert len(caught.value.public) <= 1024

    @FREELY
    @given(authorities.filter(lambda authority: authority.grants))
    def test_round_trip(self, authority):
        """What grants are written as reads back as the same authority."""
        details = json.loads(json.dumps([grant.detail("report") for grant in authority.grants]))
        expected = ("report", authority)
        assert expected == parsed(details)[:2]

    @FREELY
    @given(st.lists(elements, max_size=3) | json_values)
    def test_ours_or_nothing(self, details):
        """Any JSON value is an authority with what stands in it and no more, or InvalidInput."""
        try:
            name, authority, *_ = parsed(details)
        except InvalidInput:
            return
        said = {
            (location, action)
            for element in details
            for location in element["locations"]
            for action in element["actions"]
            if element["type"] == name
        }
        assert said == pairs(authority)


class TestParts:
    BOTH = Authority.of([Grant.parse(DB, ["read", "write"]), Grant.parse(MAIL, ["send"])])

    def test_within(self):
        """What is left within another authority is what both have: whole grants, parts of them, or nothing."""
        assert self.BOTH == self.BOTH.within(self.BOTH)
        some = Authority.of([Grant.parse(DB, ["read", "delete"])])
        assert Authority.of([Grant.parse(DB, ["read"])]) == self.BOTH.within(some) == some.within(self.BOTH)
        assert Authority(()) == self.BOTH.within(Authority.of([Grant.parse(MAIL, ["read"])]))

    @given(authorities, authorities)
    def test_never_more(self, one, other):
        """What is left within another authority exceeds neither of the two, and nothing that both have is lost."""
        left = one.within(other)
        assert ([], []) == (one.excess(left), other.excess(left))
        assert left == left.within(one)
        assert set(one.excess(other)) | {(g.resource, a) for g in left.grants for a in g.actions} >= {
            (grant.resource, action) for grant in other.grants for action in grant.actions
        }

    def test_named(self):
        """A resource that is not named is the only one that there is, and none where there are several."""
        one = Authority.of([Grant.parse(DB, ["read"])])
        assert (DB, "", "") == (one.named(""), self.BOTH.named(""), Authority(()).named(""))
        assert (MAIL, MAIL) == (one.named(MAIL), self.BOTH.named(MAIL))

    def test_document(self):
        """As JSON a grant has its resource and its actions."""
        assert [
            {"resource": DB, "actions": ["read", "write"]},
            {"resource": MAIL, "actions": ["send"]},
        ] == self.BOTH.document()
