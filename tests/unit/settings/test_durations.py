"""durations.py: durations as people write them."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.settings.durations import duration_text, parse_duration

NOT_TEXT = [1.5, True, None, [], b"1h"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h", 3600),
        ("7d", 604_800),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1m1ms", 60.001),
        ("0s", 0),
        (90, 90),
        (0, 0),
        (timedelta(minutes=2), 120),
    ],
)
def test_good(text, seconds):
    """A number with a unit, several of them, or a bare whole number of seconds is a duration."""
    assert timedelta(seconds=seconds) == parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "h",
        "1 h",
        " 1h",
        "1h ",
        "1h\n",
        "-1h",
        "+1h",
        "1.5h",
        "1H",
        "1w",
        "1h30",
        "1hm",
        "1e3s",
        "٣s",
        *NOT_TEXT,
    ],
)
def test_refused(text, request):
    """Anything else is refused with the rule."""
    with pytest.raises(ValueError, match="such as 90s"):
        parse_duration(text)


@pytest.mark.parametrize("value", ["9" * 30 + "d", "1000000000d", 10**20])
def test_too_long(value, request):
    """A duration beyond all bounds is refused, not an overflow."""
    with pytest.raises(ValueError, match="too long"):
        parse_duration(value)


@given(st.text(alphabet="0123456789msdhx. -", max_size=12) | st.text(max_size=8))
def test_ours_or_nothing(text):
    """Any text is a duration or a ValueError."""
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90, "90s"), (3600, "1h"), (86_400, "1d"), (60, "1m"), (5400, "90m"), (0.25, "250ms"), (0, "0s")],
)
def test_text(seconds, text):
    """A duration is written with the largest unit that fits."""
    assert text == duration_text(timedelta(seconds=seconds))


@given(st.integers(0, 10**9).map(lambda number: timedelta(seconds=number)))
def test_round_trip(value):
    """What is written is read as the same."""
    assert value == parse_duration(duration_text(value))


def test_round_trip_of_milliseconds():
    """Milliseconds are written as they are."""
    assert "1001ms" == duration_text(timedelta(milliseconds=1001))
