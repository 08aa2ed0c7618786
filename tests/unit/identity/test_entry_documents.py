"""entry_documents.py: what files say of entries."""

import contextlib
import json

import pytest
from fakes.registrations import selectors
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.identity import entry_documents
from sojourn.limits import ENTRIES_PER_BATCH
from sojourn.spiffe.ids import SpiffeId, TrustDomain

WEB = SpiffeId.parse("spiffe://example.org/web")
ENOUGH = "spiffe_id: spiffe://example.org/web\nselectors: ['unix:uid:1']\n"


def read(text):
    return [each.fields for each in entry_documents.collect([("f", lambda: text)])]


def faults(*texts):
    with pytest.raises(InvalidConfig) as caught:
        entry_documents.collect((f"f{number}", lambda text=text: text) for number, text in enumerate(texts, 1))
    return caught.value.faults


def test_everything():
    """Each field of an entry can be declared, and becomes what an Entry has."""
    text = """
    id: one
    spiffe_id: spiffe://example.org/web
    parent_id: spiffe://example.org/node
    selectors: ["unix:uid:1", {type: unix, value: "gid:1"}]
    x509_svid_ttl: 30m
    jwt_svid_ttl: 60
    hint: h
    dns_names: [b.example, a.example]
    federates_with: [other.example, "spiffe://third.example"]
    expires_at: 4102444800
    priority: -7
    admin: true
    downstream: true
    store_svid: true
    additional_attributes: {disable_x509_svid_prefetch: true, jwt_svid_include_jti: false}
    revision: 3
    created_at: 4
    origin: elsewhere
    """
    expected = {
        "id": "one",
        "spiffe_id": WEB,
        "parent_id": SpiffeId.parse("spiffe://example.org/node"),
        "selectors": selectors("unix:uid:1", "unix:gid:1"),
        "x509_svid_ttl": 1800,
        "jwt_svid_ttl": 60,
        "hint": "h",
        "dns_names": ("b.example", "a.example"),
        "federates_with": (TrustDomain("other.example"), TrustDomain("third.example")),
        "expires_at": 4102444800,
        "priority": -7,
        "admin": True,
        "downstream": True,
        "store_svid": True,
        "disable_x509_svid_prefetch": True,
        "jwt_svid_include_jti": False,
    }
    assert [expected] == read(text)


SPIRES = {
    "entries": [
        {
            "selectors": [{"type": "unix", "value": "uid:1"}],
            "spiffe_id": "spiffe://example.org/web",
            "parent_id": "spiffe://example.org/node",
            "entry_id": "e",
            "entryExpiry": 9,
            "additional_attributes": {"jwt_svid_include_jti": True},
        }
    ]
}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_spires_data(indent):
    """SPIRE's `-data` JSON is understood, however it is indented."""
    [found] = read(json.dumps(SPIRES, indent=indent))
    assert ("e", 9, True) == (found["id"], found["expires_at"], found["jwt_svid_include_jti"])
    assert selectors("unix:uid:1") == found["selectors"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (ENOUGH, 1),
        (f"{ENOUGH}---\n---\n{ENOUGH}", 2),
        (json.dumps([*SPIRES["entries"], *SPIRES["entries"]]), 2),
        ("entries: []", 0),
        ("", 0),
        ("# nothing yet\n", 0),
    ],
)
def test_forms(text, count):
    """A text is one entry, several documents, a list, or a document with `entries`."""
    assert count == len(read(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "f1: neither YAML nor JSON"),
        ("entries: 5", "beside a list"),
        ("entries: []\nmore: 1", "beside a list"),
        ("[" * 100_000, "f1: is nested too deeply"),
        ("x: " + "[" * 100_000, "f1: neither YAML nor JSON"),
        ("!!python/object:os.x {}", "f1: neither YAML nor JSON"),
        ("5", "f1: entry 1: is not a mapping"),
        ("a: b", "f1: entry 1: unknown key 'a'"),
        ("1: b", "unknown key '1'"),
        ("hint: x", "spiffe_id and selectors are needed"),
        (ENOUGH.replace("spiffe://", "http://"), "scheme is missing or invalid"),
        (ENOUGH.replace("'unix:uid:1'", "unix"), "is not TYPE:VALUE"),
        (ENOUGH.replace("'unix:uid:1'", "{type: unix, value: 5}"), "value is not of the right type"),
        (ENOUGH.replace("'unix:uid:1'", "5"), "a selector is neither"),
        (ENOUGH.replace("['unix:uid:1']", "unix:uid:1"), "selectors is not a list"),
        (ENOUGH + "hint: 5", "hint is not of the right type: str"),
        (ENOUGH + "admin: 1", "admin is not of the right type: bool"),
        (ENOUGH + "priority: true", "priority is not of the right type: int"),
        (ENOUGH + "priority: 2147483648", "priority is too large"),
        (ENOUGH + "expires_at: 2030-01-01", "expires_at is not of the right type: int"),
        (ENOUGH + "x509_svid_ttl: soon", "x509_svid_ttl is not a duration"),
        (ENOUGH + "x509_svid_ttl: 1500ms", "x509_svid_ttl is not a whole number"),
        (ENOUGH + "dns_names: [5]", "dns_names is not a list of strings"),
        (ENOUGH + "federates_with: [NO]", "entry 1: "),
        (ENOUGH + "additional_attributes: {other: true}", "additional_attributes is not a mapping with"),
        (ENOUGH + "additional_attributes: {jwt_svid_include_jti: 1}", "jwt_svid_include_jti is not of the right type"),
        (ENOUGH + "hint: a\nhint: b", '"hint" is given twice, in the mapping at line 1'),
        ("entries:\n- selectors: [{type: a, value: b, type: c}]", '"type" is given twice, in the mapping at line 2'),
        ('{"hint": "a", "hint": "b"}', '"hint" is given twice'),
        (ENOUGH + "entry_expiry: 5\nexpires_at: 6", "expires_at is given twice"),
        (json.dumps({**SPIRES["entries"][0], "hint": "\ud800"}), "hint is not Unicode text"),
    ],
)
def test_refused(text, says):
    """What is no entry is refused with its place and the rule."""
    [fault] = faults(text)
    assert says in fault


def test_anchors():
    """What YAML lets a file say once and use often may be used, and a key of it replaced."""
    text = (
        f"- &one\n  {ENOUGH.strip().replace(chr(10), chr(10) + '  ')}\n  hint: h\n- <<: *one\n  hint: other\n- *one\n"
    )
    assert ["h", "other", "h"] == [each["hint"] for each in read(text)]


def test_all_faults():
    """The faults of all files and entries are told at once."""

    def unreadable():
        raise InvalidInput("cannot be read: gone")

    files = [("a", unreadable), ("b", lambda: f"{ENOUGH}---\nx: 1\n---\n5"), ("c", lambda: "entries: 1")]
    with pytest.raises(InvalidConfig) as caught:
        entry_documents.collect(files)
    assert [
        "a: cannot be read: gone",
        "b: entry 2: unknown key 'x'",
        "b: entry 3: is not a mapping",
        "c: beside a list `entries` there is nothing else in a document",
    ] == caught.value.faults


def test_too_many():
    """There is a limit to what one set declares."""
    assert [f"more than {ENTRIES_PER_BATCH} entries"] == faults(json.dumps(SPIRES["entries"] * (ENTRIES_PER_BATCH + 1)))


def test_places():
    """Each entry knows where it stands."""
    found = entry_documents.collect([("a.yaml", lambda: ENOUGH), ("b.yaml", lambda: f"{ENOUGH}---\n{ENOUGH}")])
    assert ["a.yaml: entry 1", "b.yaml: entry 1", "b.yaml: entry 2"] == [each.place for each in found]


@pytest.mark.parametrize(
    ("name", "ours"), [("a.yaml", True), ("a.yml", True), ("a.json", True), ("a.txt", False), (".a.yaml", False)]
)
def test_names(name, ours):
    """Which files of a folder count is told by their names."""
    assert ours == entry_documents.is_ours(name)


@given(st.text(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(str))
def test_any_text(text):
    """Any text is entries, or faults of ours."""
    with contextlib.suppress(InvalidConfig):
        read(text)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "spiffe_id",
                "selectors",
                "hint",
                "priority",
                "dns_names",
                "x509_svid_ttl",
                "id",
                "parent_id",
                "jwt_claims",
            ]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "value", "path"]), inner)
            ),
            max_leaves=5,
        ),
    )
)
def test_any_document(document):
    """Any values of the right keys are an entry, or faults of ours."""
    with contextlib.suppress(InvalidConfig):
        read(json.dumps({"spiffe_id": "spiffe://example.org/x", "selectors": ["a:b"], **document}))
