"""strict_json.py: how deep JSON may be, whichever Python reads it. What else is refused is tested with its readers."""

import json

import pytest
from sojourn.jose import strict_json
from sojourn.jose.strict_json import DUPLICATED
from sojourn.limits import JSON_DEPTH


def nested(depth, *, within=""):
    return "[" * depth + within + "]" * depth


@pytest.mark.parametrize("within", ["", '"\\"]"', "[],{}"])
def test_as_deep_as_may_be(within):
    """As many levels as the limit are read, and one more is refused."""
    levels = JSON_DEPTH - (1 if within.startswith("[") else 0)
    assert json.loads(nested(levels, within=within)) == strict_json.loads(nested(levels, within=within))
    with pytest.raises(ValueError, match="nested too deeply"):
        strict_json.loads(nested(levels + 1, within=within))


def test_objects_and_lists():
    """Objects and lists within each other count alike."""
    half = JSON_DEPTH // 2
    assert strict_json.loads('[{"a":' * half + "1" + "}]" * half)
    with pytest.raises(ValueError, match="nested too deeply"):
        strict_json.loads('[{"a":' * (half + 1) + "1" + "}]" * (half + 1))


def test_many_beside_each_other():
    """However many lists stand beside each other: that is no depth."""
    assert [[]] * 10_000 == strict_json.loads("[" + ",".join(["[]"] * 10_000) + "]")


@pytest.mark.parametrize("text", ["[" * 1_000, '\\"[' * 1_000, "{" * 1_000 + '"', "\\[{]}\\\\"])
def test_brackets_in_strings(text):
    """Brackets in a string, escaped quotes or not, are text."""
    document = json.dumps({text: [text]})
    assert {text: [text]} == strict_json.loads(document)


@pytest.mark.parametrize("text", ['["', '[\\"', '["\\', '["[\\"', "[]", "]["])
def test_what_is_no_json(text):
    """What is no JSON is refused, also where no string ends, and in no time that grows faster than its length."""
    with pytest.raises(ValueError, match=r".+"):
        strict_json.loads(text * 400_000)  # by its square that would be hours


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"a": 1, "b": [2]}', {"a": 1, "b": [2]}),
        ('{"a": 1, "a": 1}', DUPLICATED),
        ('{"a": {"b": 1, "b": 2}, "c": [{"d": 1, "d": {}}]}', {"a": DUPLICATED, "c": [DUPLICATED]}),
        ('{"a": {"b": 1}, "a": {"b": 1, "b": 2}}', DUPLICATED),
    ],
)
def test_marked(text, read):
    """An object that has a member twice is marked where its reader asks for that, whatever else is around it."""
    assert read == strict_json.loads_marked(text)
    if read is DUPLICATED:
        with pytest.raises(ValueError, match="duplicate member"):
            strict_json.loads(text)


@pytest.mark.parametrize("text", ["-0", "NaN", "1e999", "{", nested(JSON_DEPTH + 1)])
def test_marked_is_as_strict(text):
    """What is no JSON otherwise is none there either."""
    with pytest.raises(ValueError, match=r".+"):
        strict_json.loads_marked(text)
