"""Durations as people write them: `90s`, `15m`, `1h30m`, `7d`."""

import re
from datetime import timedelta

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(value: object) -> timedelta:
    """Parse `90s`, `15m`, `1h`, `7d` or `1h30m`; a bare whole number is seconds. Raise ValueError with the rule."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return timedelta(seconds=value)
    parts = _DURATION.findall(value) if isinstance(value, str) else []
    if not isinstance(value, str) or not value or "".join(number + unit for number, unit in parts) != value:
        raise ValueError("is not a duration such as 90s, 15m, 1h or 7d")
    try:
        return timedelta(seconds=sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError("is too long a duration") from None


def duration_text(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNIT_SECONDS[unit] == 0:
            return f"{int(seconds // _UNIT_SECONDS[unit])}{unit}"
    return f"{int(seconds * 1000)}ms"
