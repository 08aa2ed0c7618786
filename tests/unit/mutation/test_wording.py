"""tests/mutation: which changes of the code are wording, and which reasons for what lives are stale."""

import pytest
from explained import Reasons
from harness.trees import parsed
from mutants import Mutant
from wording import error_names, only_wording

BEFORE = '''
def check(value):
    """Say no."""
    log.info("checked", value=value)
    if value > 1:
        raise Refused("too much", reason_code="over", detail=str(value)) from None
    if value < 0:
        raise Refused("too little" if value < -1 else "nearly enough")
    raise Refused(f"{value} is too little") if value else made("no value")
    return Refused("never")
'''
SPOKEN = [
    ("Say no", "Say yes"),
    ('info("checked"', 'info("XXcheckedXX"'),
    ('Refused("too much"', 'Refused("TOO MUCH"'),
    ('Refused("too much"', "Refused(None"),
    ('"nearly enough"', '"XXnearly enoughXX"'),
    ('Refused("never")', 'Refused("XXneverXX")'),
]
DONE = [
    ("value=value", "value=None"),
    ("value > 1", "value >= 1"),
    ('reason_code="over"', 'reason_code="OVER"'),
    (', reason_code="over"', ""),
    ("str(value)", "str(None)"),
    ('"too much", ', ""),
    ("if value else", "if value or True else"),
    ("value < -1", "value <= -1"),
    ('"too little" if value < -1 else "nearly enough"', "None"),
    ("log.info", "log.error"),
    ('made("no value")', "made(None)"),
    ("from None", "from value"),
]


def is_wording(change):
    before, after = (parsed(text).body[0] for text in (BEFORE, BEFORE.replace(*change)))
    return only_wording(before, after, frozenset({"Refused"}))


class TestWording:
    @pytest.mark.parametrize("change", SPOKEN, ids=repr)
    def test_spoken(self, change):
        """A text that only a reader sees is wording: of an error, of a log event, a docstring."""
        assert is_wording(change)

    @pytest.mark.parametrize("change", DONE, ids=repr)
    def test_done(self, change):
        """What a program or an operator goes by is none, nor is a message that is not there at all."""
        assert not is_wording(change)

    def test_nothing_changed(self):
        """What is the same is no change in words."""
        assert not is_wording(("too much", "too much"))

    def test_errors(self):
        """Errors are known by where they are imported from, or what they are derived from."""
        text = "from sojourn.errors import Refused as No, quoted\nfrom sojourn.x import Y\nclass Never(No): ...\n"
        assert {"No", "Never"} == error_names(parsed(text))


LINE = {"function": "sojourn.a.f", "change": "x [< → <=] 1", "reason": "x is never 1"}


def mutant(fate, change=LINE["change"]):
    return Mutant("sojourn.a.x_f__mutmut_1", LINE["function"], change, fate)


class TestReasons:
    def test_explained(self):
        """A mutant with a line is explained, another is not, and the line is not stale."""
        reasons = Reasons([LINE])
        assert (True, False) == (reasons.explain(mutant("survived")), reasons.explain(mutant("survived", "y")))
        assert [] == list(reasons.stale())

    def test_without_a_mutant(self):
        """A line that fits no mutant is stale."""
        assert ["there is no such mutant: sojourn.a.f: x [< → <=] 1"] == list(Reasons([LINE]).stale())

    def test_killed(self):
        """A line for a mutant that a test kills is stale: it is not the same as what it was made from."""
        reasons = Reasons([LINE])
        reasons.explain(mutant("killed"))
        assert ["a test kills it, so it is not the same: sojourn.a.f: x [< → <=] 1"] == list(reasons.stale())

    def test_needs_a_reason(self):
        """A line without a reason explains nothing."""
        with pytest.raises(ValueError, match="no reason"):
            Reasons([{**LINE, "reason": " "}])
