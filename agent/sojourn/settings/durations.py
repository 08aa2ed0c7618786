"""Durations as people write them: `90s`, `15m`, `1h30m`, `7d`."""

import re
from datetime import timedelta

_PART = re.compile(r"([0-9]+)(ms|s|m|h|d)")
_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DIGITS_MAX = 15


def parse_duration(value: object) -> timedelta:
    """Parse `90s`, `15m`, `1h`, `7d` or `1h30m`; a bare whole number is seconds. Raise ValueError with the rule."""
    if isinstance(value, timedelta):
        return value
    text = f"{value}s" if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError("is not a duration such as 90s, 15m, 1h or 7d")  # noqa: TRY004  # pydantic shows only those
    if text.isascii() and text.isdecimal():
        text += "s"
    parts = _PART.findall(text)
    if not text or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("is not a duration such as 90s, 15m, 1h or 7d")
    if any(len(number) > _DIGITS_MAX for number, _ in parts):
        raise ValueError("is too long a duration")
    try:
        return timedelta(milliseconds=sum(int(number) * _UNIT_MS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError("is too long a duration") from None


def duration_text(value: timedelta) -> str:
    """A duration in the largest unit that it is a whole number of; what is below a millisecond is cut off."""
    milliseconds = value // timedelta(milliseconds=1)
    for unit, size in _UNIT_MS.items():
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return "0s"
