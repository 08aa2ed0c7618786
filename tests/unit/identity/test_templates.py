"""templates.py: whatever is attested stays within its place in a SPIFFE ID, and different values make different IDs."""

import pytest
from fakes.registrations import TRUST_DOMAIN, selectors
from hypothesis import assume, given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidInput, InvalidSpiffeId
from sojourn.identity.templates import IdTemplate, Placeholder, Segment, Template, Unfilled, parse_id, values_of
from sojourn.limits import SPIFFE_ID_MAX_BYTES, TEMPLATE_PLACEHOLDERS
from sojourn.spiffe.ids import SpiffeId, TrustDomain

NS, SA = Placeholder("k8s", "ns"), Placeholder("k8s", "sa")
POD = "spiffe://example.org/ns/{k8s.ns}/sa/{k8s.sa}"
PLAIN = st.text("abcXYZ019._-", min_size=1, max_size=12)  # what a value may be
LITERAL = st.text("ab.-_", max_size=4)


@st.composite
def templates(draw):
    """Templates with at least one placeholder, each segment of any of the shapes that there are."""
    names = iter(f"k{number}" for number in range(10))
    segments = []
    for open_ in draw(st.lists(st.booleans(), min_size=1, max_size=5)):
        if open_:
            segments.append(f"{draw(LITERAL)}{{t.{next(names)}}}{draw(LITERAL)}")
        else:
            segments.append(draw(st.text("abc", min_size=1, max_size=4)))
    assume(any("{" in each for each in segments))
    return IdTemplate.parse("spiffe://example.org/" + "/".join(segments))


class TestPlaceholder:
    @pytest.mark.parametrize(
        ("text", "kind", "key"),
        [
            ("k8s.ns", "k8s", "ns"),
            ("systemd.id", "systemd", "id"),
            ("k8s.pod-label:app.kubernetes.io/name", "k8s", "pod-label:app.kubernetes.io/name"),
            ("docker.rootless:1000:label:team", "docker", "rootless:1000:label:team"),
        ],
    )
    def test_parts(self, text, kind, key):
        """The type ends at the first dot; the key may have dots, colons and slashes. It is written as it was read."""
        assert Placeholder(kind, key) == Placeholder.parse(text)
        assert f"{{{text}}}" == str(Placeholder.parse(text))

    @pytest.mark.parametrize(
        "text", ["", "k8s", ".ns", "k8s.", "k 8.ns", "k8s.n s", "k8s.ns:", "k8s.:ns", "k8s.n\nb", "k8s.é"]
    )
    def test_malformed(self, text):
        """What is no TYPE.KEY is refused."""
        with pytest.raises(InvalidInput, match="placeholder"):
            Placeholder.parse(text)


class TestValues:
    def test_the_rest(self):
        """A placeholder stands for what follows KEY: in the one selector that begins with it."""
        held = selectors("k8s:ns:prod", "k8s:sa:web", "unix:ns:other", "k8s:nsx:y")
        assert {NS: "prod", SA: "web"} == values_of([NS, SA, NS], held)

    @pytest.mark.parametrize(
        ("held", "says"),
        [
            ([], "no selector k8s:ns:… is attested"),
            (["k8s:n:s", "k8s:ns", "docker:ns:x"], "no selector k8s:ns:… is attested"),
            (["k8s:ns:a", "k8s:ns:b"], "2 selectors k8s:ns:… are attested, and one is wanted"),
            (["k8s:ns:a/b"], "has other characters"),
            (["k8s:ns:a:b"], "has other characters"),
            (["k8s:ns:ä"], "has other characters"),
            (["k8s:ns:a%2fb"], "has other characters"),
            (["k8s:ns:a\n"], "has other characters"),
            (["k8s:ns:{k8s.sa}"], "has other characters"),
            (["k8s:ns:."], "is a dot segment"),
            (["k8s:ns:.."], "is a dot segment"),
        ],
    )
    def test_none(self, held, says):
        """Unless there is one such selector, whose rest is a plain word, nothing is filled in, and the reason is told."""
        found = values_of([NS], selectors(*held))
        assert isinstance(found, Unfilled)
        assert says in found.reason
        assert "{k8s.ns}" in found.reason


class TestTemplate:
    @pytest.mark.parametrize(
        "text", ["{k8s.ns}:{k8s.sa}", "a {k8s.ns}, {k8s.sa}", "{k8s.ns}", "plain", "", "é{k8s.ns}é"]
    )
    def test_there_and_back(self, text):
        """What was read is what is written."""
        template = Template.parse(text)
        assert text == template.fill({each: str(each) for each in template.placeholders})

    @pytest.mark.parametrize(
        "text", ["{k8s.ns}{k8s.sa}", "{k8s.ns}-{k8s.sa}", "{k8s.ns}a.b_c{k8s.sa}", "{a.b}/{k8s.ns}0{k8s.sa}"]
    )
    def test_values_that_could_run_together(self, text):
        """Between two placeholders there must be a character that no value can have."""
        with pytest.raises(InvalidInput, match="between"):
            Template.parse(text)

    @pytest.mark.parametrize("text", ["{", "}", "a{b", "{{k8s.ns}}", "{k8s.ns", "k8s.ns}", "{k8s.{ns}}", "{k8s.ns}}"])
    def test_stray_braces(self, text):
        """A brace that is no placeholder's is refused: it may be a slip."""
        with pytest.raises(InvalidInput):
            Template.parse(text)

    def test_a_limit(self):
        """There are so many placeholders at most."""
        Template.parse("/".join(["{a.b}"] * TEMPLATE_PLACEHOLDERS))
        with pytest.raises(InvalidInput, match="more than"):
            Template.parse("/".join(["{a.b}"] * (TEMPLATE_PLACEHOLDERS + 1)))

    @given(st.text("{}a.b:/", max_size=20))
    def test_any_text(self, text):
        """Any text is a template or a fault of ours, and a template without placeholders is its text."""
        try:
            made = Template.parse(text)
        except InvalidInput:
            return
        if not made.placeholders:
            assert text == made.fill({})


class TestIdTemplate:
    @pytest.mark.parametrize(
        "text",
        [
            POD,
            "spiffe://example.org/{systemd.id}",
            "spiffe://example.org/a-{systemd.id}.b/c",
            "spiffe://example.org/{k8s.pod-label:app.kubernetes.io/name}",
            "spiffe://example.org/{k8s.ns}/{k8s.ns}",
            "spiffe://example.org/.{k8s.ns}",
        ],
    )
    def test_there_and_back(self, text):
        """What was read is what is written, whole or in its parts."""
        made = parse_id(text)
        assert isinstance(made, IdTemplate)
        assert (text, made) == (str(made), IdTemplate.from_parts(made.trust_domain.name, made.path))

    def test_segments(self):
        """Slashes in a key are no slashes of the path."""
        label = Placeholder("k8s", "pod-label:a.b/c")
        assert (Segment("ns"), Segment("a-", label, ".b"), Segment("c"), Segment("", NS)) == IdTemplate.parse(
            "spiffe://example.org/ns/a-{k8s.pod-label:a.b/c}.b/c/{k8s.ns}"
        ).segments

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("spiffe://{k8s.ns}.example/a", "trust domain"),
            ("spiffe://example.org{k8s.ns}", "trust domain"),
            ("spiffe://{k8s.ns}", "trust domain"),
            ("https://example.org/{k8s.ns}", "scheme"),
            ("SPIFFE://example.org/{k8s.ns}", "scheme"),
            ("spiffe://example.org/{k8s.ns}/", "trailing slash"),
            ("spiffe://example.org//{k8s.ns}", "empty segments"),
            ("spiffe://example.org/../{k8s.ns}", "dot segments"),
            ("spiffe://example.org/a b/{k8s.ns}", "characters are limited"),
            ("spiffe://example.org/%2e/{k8s.ns}", "characters are limited"),
            ("spiffe://example.org/{k8s.ns}{k8s.sa}", "nothing between"),
            ("spiffe://example.org/{k8s.ns}-{k8s.sa}", "could have that too"),
            ("spiffe://example.org/{k8s.ns", "brace"),
            ("spiffe://example.org/k8s.ns}", "brace"),
            ("spiffe://example.org/{}", "placeholder"),
            ("spiffe://example.org/{k8s.ns}/" + "x" * SPIFFE_ID_MAX_BYTES, "longer than"),
        ],
    )
    def test_malformed(self, text, says):
        """What surrounds the placeholders is held to the grammar of SPIFFE IDs; the trust domain has none."""
        with pytest.raises(InvalidSpiffeId, match=says):
            parse_id(text)

    @pytest.mark.parametrize(
        ("domain", "path"), [("example.org", "evil/{k8s.ns}"), ("example.org/x", "/{k8s.ns}"), ("", "/{a.b}")]
    )
    def test_parts_that_run_together(self, domain, path):
        """A trust domain and a path are no less two things for having a placeholder."""
        with pytest.raises(InvalidSpiffeId):
            IdTemplate.from_parts(domain, path)

    def test_without_a_brace(self):
        """A text without placeholders is a SPIFFE ID."""
        assert SpiffeId.parse("spiffe://example.org/a") == parse_id("spiffe://example.org/a")

    @pytest.mark.parametrize("value", [".", ".."])
    def test_no_dot_segment(self, value):
        """A value that would be a dot segment makes no ID."""
        assert isinstance(parse_id(POD).fill({NS: value, SA: "a"}), Unfilled)
        assert isinstance(parse_id("spiffe://example.org/.{k8s.ns}").fill({NS: "."}), Unfilled)
        assert "spiffe://example.org/.a" == str(parse_id("spiffe://example.org/.{k8s.ns}").fill({NS: "a"}))

    @pytest.mark.parametrize("path", ["/{k8s.ns}", "/{k8s.ns}/agent"])
    def test_no_reserved_path(self, path):
        """A value that would make an ID of the agent's own makes none."""
        found = IdTemplate.from_parts("example.org", path).fill({NS: "spire"})
        assert isinstance(found, Unfilled)
        assert "reserved" in found.reason

    def test_no_longer_than_an_id(self):
        """Values that would make an ID too long make none."""
        assert isinstance(parse_id(POD).fill({NS: "n" * SPIFFE_ID_MAX_BYTES, SA: "a"}), Unfilled)

    def test_of_a_workload(self):
        """A template is for workloads of its own trust domain."""
        parse_id(POD).check_workload_of(TRUST_DOMAIN)
        for text, domain in [(POD, "other.example"), ("spiffe://example.org/spire/{k8s.ns}", "example.org")]:
            with pytest.raises(InvalidSpiffeId):
                parse_id(text).check_workload_of(TrustDomain(domain))

    @pytest.mark.parametrize(
        ("path", "answer"),
        [
            ("/ns/prod/sa/web", True),
            ("/ns/prod/sa", False),
            ("/ns/prod/sa/web/x", False),
            ("/nx/prod/sa/web", False),
            ("", False),
        ],
    )
    def test_makes(self, path, answer):
        """An ID is a template's if there are values that make it."""
        assert answer is parse_id(POD).makes(SpiffeId.from_parts("example.org", path))
        assert not parse_id(POD).makes(SpiffeId.from_parts("other.example", path))

    def test_makes_no_more_than_it_fills(self):
        """A placeholder has one value at all its places, and what cannot be filled is not made."""
        both = parse_id("spiffe://example.org/{k8s.ns}/{k8s.ns}")
        assert [True, False] == [both.makes(SpiffeId.from_parts("example.org", each)) for each in ("/a/a", "/a/b")]
        assert not parse_id("spiffe://example.org/{k8s.ns}/x").makes(SpiffeId.from_parts("example.org", "/spire/x"))

    @given(templates(), st.data())
    def test_the_shape_holds(self, template, data):
        """No value of any characters adds a segment, makes a dot segment or brings in a foreign character."""
        held = frozenset(
            Selector(
                each.type, f"{each.key}:{data.draw(st.text(max_size=8) | PLAIN | st.sampled_from(['.', '..', 'a/b']))}"
            )
            for each in template.placeholders
        )
        values = values_of(template.placeholders, held)
        made = values if isinstance(values, Unfilled) else template.fill(values)
        if isinstance(made, Unfilled):
            return
        assert made == SpiffeId.parse(str(made))
        texts = made.path[1:].split("/")
        assert len(template.segments) == len(texts)
        assert not {".", ".."} & set(texts)
        assert set(made.path) <= set("/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for segment, text in zip(template.segments, texts, strict=True):
            assert text.startswith(segment.prefix)
            assert text.endswith(segment.suffix)
            assert segment.placeholder is not None or text == segment.prefix

    @given(templates(), st.data())
    def test_no_two_sets_of_values_make_the_same(self, template, data):
        """Different values make different IDs, and an ID that was made is known as the template's."""
        ones, others = ({each: data.draw(PLAIN) for each in template.placeholders} for _ in range(2))
        one, other = template.fill(ones), template.fill(others)
        assume(not isinstance(one, Unfilled) and not isinstance(other, Unfilled))
        assert (ones == others) is (one == other)
        assert template.makes(one)

    @given(templates(), st.lists(PLAIN, min_size=1, max_size=5))
    def test_makes_says_the_truth(self, template, texts):
        """An ID is called the template's only if its values, read back from it, make it."""
        path = "/" + "/".join(texts)
        assume(not {".", ".."} & set(texts))
        spiffe_id = SpiffeId.from_parts("example.org", path)
        if template.makes(spiffe_id):
            values = {
                segment.placeholder: segment.value_in(text)
                for segment, text in zip(template.segments, texts, strict=True)
                if segment.placeholder is not None
            }
            assert spiffe_id == template.fill(values)

    @given(st.text("spife:/{}.ab\n", max_size=40).map(lambda text: "spiffe://example.org/" + text))
    def test_any_text(self, text):
        """Any text is an ID, a template or a fault of ours, and a template is what it was read from."""
        try:
            made = parse_id(text)
        except InvalidSpiffeId:
            return
        assert text == str(made)
