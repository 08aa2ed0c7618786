"""ids.py: the grammar of SPIFFE IDs (SPIFFE-ID.md 2), byte for byte."""

import string

import pytest
from harness.examples import examples
from hypothesis import example, given
from hypothesis import strategies as st
from sojourn.errors import InvalidSpiffeId
from sojourn.limits import SPIFFE_ID_MAX_BYTES, TRUST_DOMAIN_MAX_BYTES
from sojourn.spiffe.ids import SpiffeId, TrustDomain, check_path

FREELY = examples(500)
HOST = string.ascii_lowercase + string.digits + ".-_"
SEGMENT = HOST + string.ascii_uppercase

names = st.text(HOST, min_size=1, max_size=TRUST_DOMAIN_MAX_BYTES)
segments = st.text(SEGMENT, min_size=1, max_size=40).filter(lambda text: text not in {".", ".."})
paths = st.lists(segments, max_size=6).map(lambda parts: "".join(f"/{part}" for part in parts))
PIECES = (
    *("spiffe", "SPIFFE", "://", ":/", ":", "/", "//", ".", "..", "a", "A", "9", "_", "-", "example.org", "spire"),
    *("%41", "\n", "\0", "\t", " ", "@", "?", "#", "*", "[::1]", "\u212a", "\u0130", "\u017f", "\u0430", "\uff41"),
)
near = st.lists(st.sampled_from(PIECES), max_size=10).map("".join)

# What looks like a letter, or becomes one by case folding or normalisation, is none (Kelvin sign: py-spiffe 0.3.2).
LOOKALIKES = {
    "kelvin-sign": "\u212a",
    "dotted-capital-i": "\u0130",
    "long-s": "\u017f",
    "cyrillic-a": "\u0430",
    "full-width-a": "\uff41",
    "full-width-stop": "\uff0e",
    "combining-accent": "e\u0301",
    "soft-hyphen": "\u00ad",
    "zero-width-space": "\u200b",
    "right-to-left-override": "\u202e",
    "line-separator": "\u2028",
    "next-line": "\u0085",
    "arabic-digit": "\u0661",
    "lone-surrogate": "\ud800",
}
FORBIDDEN = {
    "space": " ",
    "tab": "\t",
    "newline": "\n",
    "return": "\r",
    "nul": "\0",
    "delete": "\x7f",
    "percent": "%",
    "percent-encoded-slash": "%2f",
    "percent-encoded-dot": "%2e",
    "user": "@",
    "port": ":80",
    "query": "?a",
    "fragment": "#a",
    "bracket": "[",
    "backslash": "\\",
    "star": "*",
    "plus": "+",
    "tilde": "~",
    "comma": ",",
    "quote": "'",
    "dollar": "$",
    "brace": "{",
    **LOOKALIKES,
}


def is_spiffe_id(text):
    """The grammar once more, as the standard's sentences say it, to be compared with the parser."""
    if not text.startswith("spiffe://") or len(text.encode("utf-8", "surrogatepass")) > SPIFFE_ID_MAX_BYTES:
        return False
    name, *parts = text.removeprefix("spiffe://").split("/")
    return (
        1 <= len(name) <= TRUST_DOMAIN_MAX_BYTES
        and all(letter in HOST for letter in name)
        and all(part not in {"", ".", ".."} and all(letter in SEGMENT for letter in part) for part in parts)
    )


class TestParse:
    @pytest.mark.parametrize(
        ("text", "name", "path"),
        [
            pytest.param("spiffe://example.org/web", "example.org", "/web", id="one-segment"),
            pytest.param("spiffe://example.org/a/B/c", "example.org", "/a/B/c", id="segments"),
            pytest.param("spiffe://example.org", "example.org", "", id="trust-domain"),
            pytest.param("spiffe://10.0.0.1/web", "10.0.0.1", "/web", id="dotted-quad"),
            pytest.param("spiffe://a_b-c.9/web", "a_b-c.9", "/web", id="all-host-characters"),
            pytest.param("spiffe://example.org/A_b-c.9", "example.org", "/A_b-c.9", id="all-path-characters"),
            pytest.param("spiffe://example.org/...", "example.org", "/...", id="three-dots"),
            pytest.param("spiffe://example.org/.a/a.", "example.org", "/.a/a.", id="dots-beside-letters"),
            pytest.param("spiffe://xn--bcher-kva.example/a", "xn--bcher-kva.example", "/a", id="punycode-is-letters"),
            pytest.param("spiffe://example.org./a", "example.org.", "/a", id="trailing-dot-is-another-name"),
            pytest.param("spiffe://example.org/spire/agent", "example.org", "/spire/agent", id="reserved"),
        ],
    )
    def test_good(self, text, name, path):
        """A good ID has the trust domain and the path that stand in it."""
        parsed = SpiffeId.parse(text)
        assert name == parsed.trust_domain.name
        assert path == parsed.path
        assert text == str(parsed)

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            pytest.param("", "cannot be empty", id="empty"),
            pytest.param("example.org/web", "scheme is missing or invalid", id="no-scheme"),
            pytest.param("https://example.org/web", "scheme is missing or invalid", id="https"),
            pytest.param("SPIFFE://example.org/web", "scheme is missing or invalid", id="upper-case-scheme"),
            pytest.param("Spiffe://example.org/web", "scheme is missing or invalid", id="capital-scheme"),
            pytest.param("spiffe:/example.org/web", "scheme is missing or invalid", id="one-slash"),
            pytest.param("spiffe:example.org", "scheme is missing or invalid", id="no-slash"),
            pytest.param(" spiffe://example.org/web", "scheme is missing or invalid", id="leading-space"),
            pytest.param("\ufeffspiffe://example.org/web", "scheme is missing or invalid", id="byte-order-mark"),
            pytest.param("spi\ufb00e://example.org/web", "scheme is missing or invalid", id="ligature-in-scheme"),
            pytest.param("spiffe://", "trust domain is missing", id="nothing-behind-scheme"),
            pytest.param("spiffe:///web", "trust domain is missing", id="no-trust-domain"),
            pytest.param("spiffe://example.org/", "path cannot have a trailing slash", id="slash-only"),
            pytest.param("spiffe://example.org/web/", "path cannot have a trailing slash", id="trailing-slash"),
            pytest.param("spiffe://example.org//web", "path cannot contain empty segments", id="empty-segment"),
            pytest.param("spiffe://example.org/a//b", "path cannot contain empty segments", id="empty-segment-inside"),
            pytest.param("spiffe://example.org/.", "path cannot contain dot segments", id="dot"),
            pytest.param("spiffe://example.org/a/..", "path cannot contain dot segments", id="dot-dot"),
            pytest.param("spiffe://example.org/../a", "path cannot contain dot segments", id="dot-dot-first"),
        ],
    )
    def test_bad_says_the_rule(self, text, rule):
        """An ID that breaks a rule is refused with that rule."""
        with pytest.raises(InvalidSpiffeId) as caught:
            SpiffeId.parse(text)
        assert rule == caught.value.public

    @pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in FORBIDDEN.items()])
    @pytest.mark.parametrize(
        "where", ["spiffe://{}", "spiffe://{}/web", "spiffe://exam{}ple/web", "spiffe://example{}"]
    )
    def test_trust_domain_characters(self, fault, where):
        """A trust domain has no character that is not on the list, at its begin, in it, or at its end."""
        with pytest.raises(InvalidSpiffeId, match="trust domain characters are limited"):
            SpiffeId.parse(where.format(fault))

    @pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in FORBIDDEN.items()])
    @pytest.mark.parametrize("where", ["/{}", "/a{}", "/{}a", "/a/{}/b"])
    def test_path_characters(self, fault, where):
        """A path segment has no character that is not on the list, at its begin, in it, or at its end."""
        with pytest.raises(InvalidSpiffeId, match="path segment characters are limited"):
            SpiffeId.parse("spiffe://example.org" + where.format(fault))

    @pytest.mark.parametrize("letter", string.ascii_uppercase)
    def test_upper_case_trust_domain(self, letter):
        """A trust domain with an upper-case letter is refused, and not folded."""
        with pytest.raises(InvalidSpiffeId, match="lowercase"):
            SpiffeId.parse(f"spiffe://e{letter}/web")

    @pytest.mark.parametrize(("size", "good"), [(2047, True), (2048, True), (2049, False)])
    def test_length(self, size, good):
        """An ID has 2048 bytes at most, the scheme among them."""
        text = "spiffe://example.org/".ljust(size, "a")
        if good:
            assert text == str(SpiffeId.parse(text))
            return
        with pytest.raises(InvalidSpiffeId, match="longer than 2048 bytes"):
            SpiffeId.parse(text)

    @pytest.mark.parametrize(("size", "good"), [(254, True), (255, True), (256, False)])
    def test_trust_domain_length(self, size, good):
        """A trust domain has 255 bytes at most, alone or in an ID."""
        name = "a" * size
        if good:
            assert name == SpiffeId.parse(f"spiffe://{name}/web").trust_domain.name
            assert name == TrustDomain.parse(name).name
            return
        with pytest.raises(InvalidSpiffeId, match="longer than 255 bytes"):
            SpiffeId.parse(f"spiffe://{name}/web")
        with pytest.raises(InvalidSpiffeId, match="longer than 255 bytes"):
            TrustDomain.parse(name)

    def test_path_is_case_sensitive(self):
        """Two IDs that differ in the case of a path are two."""
        assert SpiffeId.parse("spiffe://example.org/Web") != SpiffeId.parse("spiffe://example.org/web")

    @FREELY
    @given(st.one_of(st.text(), near, near.map("spiffe://".__add__)))
    @example("spiffe://example.org/foo\n")
    @example("spiffe://example.org\n")
    @example("spiffe://\u212aube/web")
    def test_ours_or_nothing(self, text):
        """Any text is an ID by the standard's sentences, and written as it was, or InvalidSpiffeId."""
        try:
            parsed = SpiffeId.parse(text)
        except InvalidSpiffeId:
            assert not is_spiffe_id(text)
        else:
            assert is_spiffe_id(text)
            assert text == str(parsed)

    @FREELY
    @given(names, paths)
    def test_round_trip(self, name, path):
        """Parsing what an ID is written as gives the same ID."""
        made = SpiffeId.from_parts(name, path)
        assert made == SpiffeId.parse(str(made))
        assert hash(made) == hash(SpiffeId.parse(str(made)))
        assert (name, path) == (made.trust_domain.name, made.path)

    @FREELY
    @given(st.tuples(names, paths), st.tuples(names, paths))
    def test_different_parts_are_different_ids(self, one, other):
        """Two IDs are the same only if both their parts are, byte for byte."""
        assert (one == other) == (SpiffeId.from_parts(*one) == SpiffeId.from_parts(*other))


class TestFromParts:
    @pytest.mark.parametrize(
        ("name", "path"),
        [
            pytest.param("", "/web", id="no-name"),
            pytest.param("example.org/a", "/web", id="slash-in-name"),
            pytest.param("example.org", "web", id="no-leading-slash"),
            pytest.param("example.org", "/", id="slash-only"),
            pytest.param("example.org", "/a/../b", id="dot-dot"),
            pytest.param("spiffe://example.org", "/web", id="id-as-name"),
            pytest.param("example.org", "/" + "a" * SPIFFE_ID_MAX_BYTES, id="too-long"),
        ],
    )
    def test_bad(self, name, path):
        """Parts that make no ID are refused, and never moved over the border between them."""
        with pytest.raises(InvalidSpiffeId):
            SpiffeId.from_parts(name, path)

    @FREELY
    @given(st.one_of(st.text(), near), st.one_of(st.text(), near))
    def test_ours_or_nothing(self, name, path):
        """Any two texts make an ID with just these parts, or InvalidSpiffeId."""
        try:
            made = SpiffeId.from_parts(name, path)
        except InvalidSpiffeId:
            return
        assert (name, path) == (made.trust_domain.name, made.path)
        assert made == SpiffeId.parse(str(made))


class TestTrustDomain:
    def test_parses_a_name(self):
        """A trust domain is parsed from its name."""
        name = "example.org"
        assert name == TrustDomain.parse("example.org").name
        assert name == str(TrustDomain.parse("example.org"))

    @pytest.mark.parametrize("text", ["spiffe://example.org", "spiffe://example.org/web/a"])
    def test_parses_an_id(self, text):
        """A trust domain is parsed from any ID in it."""
        assert TrustDomain("example.org") == TrustDomain.parse(text)

    def test_is_written_as_an_id(self):
        """A trust domain's own ID has its name and no path."""
        assert SpiffeId.parse("spiffe://example.org") == TrustDomain("example.org").id

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            pytest.param("", "trust domain is missing", id="empty"),
            pytest.param("EXAMPLE.org", "trust domain characters", id="upper-case"),
            pytest.param("example.org/web", "trust domain characters", id="path-without-scheme"),
            pytest.param("example.org:80", "trust domain characters", id="port"),
            pytest.param("[::1]", "trust domain characters", id="ipv6"),
            pytest.param("*.example.org", "trust domain characters", id="wildcard"),
            pytest.param("http://example.org", "scheme is missing or invalid", id="https"),
            pytest.param("spiffe:/example.org", "scheme is missing or invalid", id="typo-in-scheme"),
            pytest.param("spiffe://example.org/", "path cannot have a trailing slash", id="trailing-slash"),
            pytest.param("spiffe://example.org/a/../b", "path cannot contain dot segments", id="bad-path"),
        ],
    )
    def test_bad_says_the_rule(self, text, rule):
        """A text that is neither a name nor an ID is refused with the rule."""
        with pytest.raises(InvalidSpiffeId, match=rule):
            TrustDomain.parse(text)

    @pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in FORBIDDEN.items()])
    def test_characters(self, fault):
        """A name has no character that is not on the list, not even as its last."""
        with pytest.raises(InvalidSpiffeId):
            TrustDomain.parse("example.org" + fault)

    @FREELY
    @given(st.one_of(st.text(), near))
    def test_ours_or_nothing(self, text):
        """Any text is a name as it stands, or an ID, or InvalidSpiffeId."""
        try:
            parsed = TrustDomain.parse(text)
        except InvalidSpiffeId:
            return
        assert parsed.name in {text, SpiffeId.parse(text).trust_domain.name if ":/" in text else text}
        assert parsed == TrustDomain.parse(str(parsed))
        assert parsed == TrustDomain.parse(str(parsed.id))


class TestCheckPath:
    def test_empty_is_good(self):
        """The empty path is a path."""
        check_path("")

    @FREELY
    @given(st.one_of(st.text(), near, near.map("/".__add__)))
    def test_same_as_in_an_id(self, path):
        """A path is good alone exactly when it is good behind a trust domain."""
        text = "spiffe://example.org" + path
        try:
            check_path(path)
        except InvalidSpiffeId:
            # behind a name, a text without leading slash would go on with the name
            assert not path.startswith("/") or not is_spiffe_id(text)
        else:
            assert is_spiffe_id(text)


class TestCheckWorkloadOf:
    @pytest.mark.parametrize("path", ["/web", "/spirex", "/spire-agent", "/a/spire", "/SPIRE/agent", "/Spire"])
    def test_good(self, path):
        """A workload has a path in the trust domain that is not in the reserved namespace."""
        SpiffeId.from_parts("example.org", path).check_workload_of(TrustDomain("example.org"))

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            pytest.param("spiffe://example.org", "path is empty", id="trust-domain-itself"),
            pytest.param("spiffe://other.org/web", "not a member", id="other-domain"),
            pytest.param("spiffe://example.org.evil/web", "not a member", id="domain-as-prefix"),
            pytest.param("spiffe://evil.example.org/web", "not a member", id="domain-as-suffix"),
            pytest.param("spiffe://example.org./web", "not a member", id="trailing-dot"),
            pytest.param("spiffe://example.org/spire", "reserved", id="reserved"),
            pytest.param("spiffe://example.org/spire/agent/x", "reserved", id="below-reserved"),
        ],
    )
    def test_bad(self, text, rule):
        """An ID that no workload of the trust domain may have is refused with the rule."""
        with pytest.raises(InvalidSpiffeId, match=rule):
            SpiffeId.parse(text).check_workload_of(TrustDomain("example.org"))


class TestValues:
    def test_are_frozen(self):
        """An ID cannot be changed."""
        with pytest.raises(AttributeError):
            SpiffeId.parse("spiffe://example.org/web").path = "/root"

    def test_are_ordered_as_their_parts(self):
        """IDs sort by trust domain, then path."""
        texts = ["spiffe://a/b", "spiffe://a/c", "spiffe://b/a"]
        assert texts == [str(each) for each in sorted(SpiffeId.parse(text) for text in reversed(texts))]
