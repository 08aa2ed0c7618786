"""selectors.py: one proved property of a process."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.attestation.selectors import Selector, text_of
from sojourn.errors import InvalidSelector
from sojourn.limits import SELECTOR_VALUE_MAX_BYTES


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("unix:uid:1000", "unix", "uid:1000"),
        ("unix:path:/a b:c", "unix", "path:/a b:c"),
        ("a::", "a", ":"),
        ("unix:" + "x" * SELECTOR_VALUE_MAX_BYTES, "unix", "x" * SELECTOR_VALUE_MAX_BYTES),
    ],
)
def test_parse(text, kind, value):
    """The type ends at the first colon; the rest is the value, whatever it holds."""
    assert Selector(kind, value) == Selector.parse(text)
    assert text == str(Selector(kind, value))


@pytest.mark.parametrize("text", ["", "unix", ":uid:1", "unix:", "unix:" + "é" * (SELECTOR_VALUE_MAX_BYTES // 2) + "x"])
def test_refused(text):
    """Without type or value, or with too long a value, it is no selector."""
    with pytest.raises(InvalidSelector):
        Selector.parse(text)


def test_a_colon_in_the_type():
    """A type with a colon would be read back as another selector."""
    with pytest.raises(InvalidSelector):
        Selector.from_parts("unix:uid", "0")


@given(st.text(max_size=30))
def test_ours_or_nothing(text):
    """Any text is a selector that reads back the same, or an error of ours."""
    with contextlib.suppress(InvalidSelector):
        assert text == str(Selector.parse(text))


def test_text_is_sorted():
    """Selectors are shown in one order."""
    assert ["a:1", "b:1", "b:2"] == text_of({Selector("b", "2"), Selector("a", "1"), Selector("b", "1")})
