"""JSON, read strictly: what two parsers might read in two ways is none."""

import json
import math
import re
from typing import Any, Final

from sojourn.limits import JSON_DEPTH


class _Duplicated:
    """What an object says that has a member twice: nothing."""


DUPLICATED: Final = _Duplicated()
_STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def loads(text: str) -> Any:
    """Parse JSON that has no member twice, no number that is none or is out of range, and JSON_DEPTH levels at most.

    Nor has it -0, which is a whole number to some. Raise ValueError for any other.
    """
    if text.count("{") + text.count("[") > JSON_DEPTH:
        _check_depth(text)
    return _DECODER.decode(text)


def loads_marked(text: str) -> Any:
    """As `loads`, but an object that has a member twice is no error: DUPLICATED is in its place."""
    if text.count("{") + text.count("[") > JSON_DEPTH:
        _check_depth(text)
    return _MARKING.decode(text)


def _check_depth(text: str) -> None:
    """How deep the decoder itself goes is as this Python was built, and what it makes is gone through again."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in {"{", "["}:
            depth += 1
            if depth > JSON_DEPTH:
                raise ValueError("nested too deeply")
        elif found[0] in {"}", "]"}:
            depth -= 1


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Duplicated:
    members = dict(pairs)
    return members if len(members) == len(pairs) else DUPLICATED


def _no(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _whole(text: str) -> int:
    if text == "-0":
        raise ValueError("-0 is not a whole number to all who read JSON")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_no, parse_float=_finite, parse_int=_whole
)
_MARKING: Final = json.JSONDecoder(object_pairs_hook=_marked, parse_constant=_no, parse_float=_finite, parse_int=_whole)
