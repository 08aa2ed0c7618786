"""params.py: each parameter has its type and keeps its rules, or the request is refused and says which."""

import re
import unicodedata

import pytest
from fakes.task_types import TICKETS, task_type
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput, InvalidPolicy
from sojourn.limits import LONG_MAX, PARAM_MAX_BYTES, PATTERN_TEXT_MAX
from sojourn.policy.params import ParamRule, text_of


def kind_of(rule, **changes):
    return task_type(params=f"{{p = {rule}}}", **changes)


def read(rule, text):
    return kind_of(rule).read_params({"p": text})["p"]


def _is_composed(text):
    return unicodedata.is_normalized("NFC", text)


class TestRules:
    @pytest.mark.parametrize(
        ("rule", "good", "bad", "named"),
        [
            ('{type = "long", min = 0}', ["0", "1", "9" * 18], ["-1", "-" + "9" * 18], "min"),
            ('{type = "long", max = 10000}', ["10000", "-5", "00010000"], ["10001", "9" * 18], "max"),
            ('{type = "long", min = -5, max = -3}', ["-5", "-3", "-04"], ["-6", "-2", "0", "5"], "m"),
            ('{type = "long", one_of = [1, -2, 3]}', ["1", "-2", "03"], ["0", "2", "4"], "one_of"),
            ('{type = "string", one_of = ["EUR", ""]}', ["EUR", ""], ["eur", "EUR ", "EUR\n", "E"], "one_of"),
            ('{type = "string", max_length = 3}', ["", "abc", "ééé"], ["abcd", "ééé "], "max_length"),
            (
                '{type = "string", pattern = "T-[0-9]{1,3}"}',
                ["T-1", "T-123"],
                ["T-", "T-1234", "xT-1", "T-1\n"],
                "pattern",
            ),
            ('{type = "string", pattern = "\\\\d+"}', ["12"], ["٣", ""], "pattern"),
            (
                '{type = "string", pattern = "(dev|test)-[^/]+"}',
                ["dev-a", "test-["],
                ["prod-a", "dev-", "dev-/"],
                "pattern",
            ),
            ('{type = "string", pattern = "a*", max_length = 2}', ["", "aa"], ["aaa"], "max_length"),
        ],
    )
    def test_kept_or_refused(self, rule, good, bad, named):
        """What keeps the rule is read; what breaks it is refused with the names of parameter and rule."""
        for text in good:
            assert str(read(rule, text)) == (text if '"string"' in rule else str(int(text)))
        for text in bad:
            with pytest.raises(InvalidInput, match=rf"parameter 'p' breaks {named}"):
                read(rule, text)

    @pytest.mark.parametrize(
        "text", ["1.0", "1e3", "0x10", "1_000", "9" * 19, str(2**63), "-" + "9" * 19, "nan", "true", "", "--1", "1-"]
    )
    def test_whole_numbers_alone(self, text):
        """A number with a fraction, with an exponent or of more than 18 digits is refused, not rounded."""
        with pytest.raises(InvalidInput, match="'p' is not a whole number"):
            read('{type = "long", min = 0}', text)

    def test_required(self):
        """A required parameter must be there; others need not; one without a value is there."""
        kind = task_type(params='{need = {type = "string", required = true}, may = "long"}')
        with pytest.raises(InvalidInput, match="'need' is required"):
            kind.read_params({"may": "1"})
        assert {"need": ""} == kind.read_params({"need": ""})

    def test_a_value_without_a_pattern_has_the_old_limit(self):
        """Without rules a string may be as long as any parameter; with a pattern it is shorter."""
        assert PARAM_MAX_BYTES == len(read('"string"', "x" * PARAM_MAX_BYTES))
        with pytest.raises(InvalidInput, match="max_length"):
            read('{type = "string", pattern = "x+"}', "x" * (PATTERN_TEXT_MAX + 1))

    def test_a_lone_surrogate(self):
        """Text that is no UTF-8 is measured, not a crash."""
        with pytest.raises(InvalidInput, match="longer than"):
            read('"string"', "\ud800" * PARAM_MAX_BYTES)

    @pytest.mark.parametrize("text", ["e\u0301", "\u212b", "\u0958", "\u1100\u1161"])
    def test_another_way_to_write_the_same(self, text):
        """A text that Unicode also writes in another way is refused, unless it is the composed one."""
        composed = unicodedata.normalize("NFC", text)
        assert text != composed
        assert composed == ParamRule(type="string").read("p", composed)
        with pytest.raises(InvalidInput, match="composed form"):
            ParamRule(type="string").read("p", text)

    @given(st.integers(-LONG_MAX, LONG_MAX) | st.booleans() | st.text(max_size=20).filter(_is_composed))
    def test_there_and_back(self, value):
        """A value that was read is read again from its text."""
        rule = {int: '"long"', bool: '"boolean"', str: '"string"'}[type(value)]
        assert value == read(rule, text_of(value))


class TestRefused:
    @pytest.mark.parametrize(
        ("rule", "says"),
        [
            ('{type = "float"}', "params.p.type"),
            ("{min = 1}", "params.p.type"),
            ('{type = "long", min = 0.5}', "params.p.min"),
            ('{type = "long", max = 1e3}', "params.p.max"),
            ('{type = "long", max = true}', "params.p.max"),
            (f'{{type = "long", max = {10**18}}}', "params.p.max"),
            (f'{{type = "long", min = {-(10**18)}}}', "params.p.min"),
            ('{type = "long", min = 2, max = 1}', "min is more than max"),
            ('{type = "string", min = 2}', "min and max are for long"),
            ('{type = "boolean", max = 2}', "min and max are for long"),
            ('{type = "long", pattern = "1"}', "pattern and max_length are for string"),
            ('{type = "long", max_length = 1}', "pattern and max_length are for string"),
            ('{type = "string", max_length = 0}', "params.p.max_length"),
            ('{type = "string", one_of = []}', "params.p.one_of"),
            ('{type = "string", one_of = [1]}', "one_of does not list values of type string"),
            ('{type = "long", one_of = ["1"]}', "one_of does not list values of type long"),
            ('{type = "long", one_of = [1.5]}', "params.p.one_of"),
            ('{type = "boolean", one_of = ["true"]}', "one_of does not list values of type boolean"),
            ('{type = "long", one_of = [1], max = 2}', "one_of says all"),
            ('{type = "string", pattern = "("}', "not a regular expression"),
            ('{type = "string", required = "yes"}', "params.p.required"),
            ('{type = "string", surprise = 1}', "unknown key"),
        ],
    )
    def test_rules_that_say_nothing_sound(self, rule, says):
        """A rule that contradicts itself, or is of another type, is refused when the type is loaded, with its place."""
        with pytest.raises(InvalidPolicy, match=re.escape(says)):
            kind_of(rule)

    @pytest.mark.parametrize(
        "pattern",
        [
            "(a+)+",
            "(a|a)*",
            "(a){2,}",
            "a*a*a*a*",
            "(?:a)",
            "(?=a)",
            "(a)\\\\1",
            "a?" * 22,
            "(a|b)" * 22,
            "a{1,99}" * 4,
        ],
    )
    def test_patterns_that_could_hang(self, pattern):
        """A pattern that some text could keep the agent busy with is refused."""
        with pytest.raises(InvalidPolicy, match=r"params\.p: pattern"):
            kind_of(f'{{type = "string", pattern = "{pattern}"}}')

    @pytest.mark.parametrize(
        ("pattern", "text"),
        [
            ("[a-z]+(/[a-z]+|-[0-9]{4})", "apps/web"),
            ("[*+?(){}|]{9}", "*+?(){}|*"),
            ("\\\\(\\\\*\\\\)\\\\+", "(*)+"),
            ("[]a]+", "a]a"),
            ("[^]]+", "abc"),
            ("[a-z0-9._-]+@[a-z0-9-]+\\\\.[a-z]+", "a.b@example.org"),
        ],
    )
    def test_patterns_that_cannot(self, pattern, text):
        """Classes, alternatives, escapes and some repeats of characters are understood."""
        assert text == read(f'{{type = "string", pattern = "{pattern}"}}', text)

    @pytest.mark.parametrize(
        ("piece", "longest", "most"),
        [
            pytest.param("a{3}", 100, 200, id="exact"),
            pytest.param("a?", 100, 20, id="optional"),
            pytest.param("a|", 100, 20, id="alternatives"),
            pytest.param("a*", 124, 3, id="any-number"),
            pytest.param("a+", 124, 3, id="some"),
            pytest.param("a{,}", 124, 3, id="from-none-on"),
            pytest.param("a{24,}", 148, 3, id="from-some-on"),
            pytest.param("a{2,5}", 100, 10, id="between"),
            pytest.param("a{,3}", 100, 10, id="at-most"),
            pytest.param("a{2,999}", 10, 6, id="more-than-there-can-be"),
            pytest.param("[?*+|{2,9}]", 100, 200, id="in-a-class"),
            pytest.param(r"\\+\\*\\?", 100, 60, id="escaped"),
        ],
    )
    def test_ways_through(self, piece, longest, most):
        """The ways through a pattern are the product of what each repeat leaves open for a text of that length."""
        table = f'{{type = "string", max_length = {longest}, pattern = "'
        kind_of(table + piece * most + '"}')
        if most < 60:
            ways = piece * (most + 1) if piece != "a+" else "a*a*a+a?"
            with pytest.raises(InvalidPolicy, match="too many variable repeats"):
                kind_of(table + ways + '"}')
            if longest in {124, 148}:
                with pytest.raises(InvalidPolicy, match="too many variable repeats"):
                    kind_of(table.replace(str(longest), str(longest + 1)) + piece * most + '"}')

    def test_the_dearest_pattern(self):
        """The dearest pattern that is taken comes to an end on the text that suits it least."""
        with pytest.raises(InvalidInput, match="pattern"):
            read('{type = "string", pattern = "a*a*a*b"}', "a" * PATTERN_TEXT_MAX)


def test_a_rule_is_kept_by_the_line(tmp_path):
    """A fault in the table of a parameter has the line of its key."""
    from sojourn.policy.task_types import parse

    text = f"""allowed_workloads = ["spiffe://example.org/a"]
ceiling = [{{resource = "{TICKETS}", actions = ["a"]}}]
[params]
one = "string"
[params.two]
type = "long"
min = "x"
"""
    with pytest.raises(InvalidPolicy) as caught:
        parse("x", text, "")
    assert [("x.toml", 7)] == [(fault.file, fault.line) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        (None, {"stream", "process", "session", "one-shot"}),
        ('["stream"]', {"stream"}),
        ('["process", "session"]', {"process", "session"}),
    ],
)
def test_bindings(binding, expected):
    """A task type names the bindings that it allows; without, all."""
    assert expected == task_type(binding=binding).bindings


@pytest.mark.parametrize("binding", ["[]", '["thread"]', '"stream"'])
def test_bindings_that_are_none(binding):
    """A binding that there is not is refused."""
    with pytest.raises(InvalidPolicy, match="binding"):
        task_type(binding=binding)
