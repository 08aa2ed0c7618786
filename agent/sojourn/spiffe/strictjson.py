"""JSON, read strictly: what two parsers might read in two ways is none."""

import json
import math
from typing import Any, Final


def loads(text: str) -> Any:
    """Parse JSON that has no member twice, and no number that is none or is out of range.

    Raise ValueError, or RecursionError for what is nested too deeply.
    """
    return _DECODER.decode(text)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no, parse_float=_finite)
