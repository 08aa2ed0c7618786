"""audit/leaves.py: a record's line, and the leaf that is made of it."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.audit.journal import FIRST, Event, Record, digest_of
from sojourn.audit.leaves import LEAF_MAX_BYTES, chained, leaf_of, line_of, record_of
from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import canonical


def record(fields):
    event = Event(5, "task_begun", canonical(fields))
    return Record(1, 5, event.event, event.fields, digest_of(FIRST, 1, event))


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=5))
def test_there_and_back(fields):
    """A line has all of a record, whatever its texts are, and is canonical JSON."""
    made = record(fields)
    line = line_of(made)
    assert made == record_of(line)
    assert canonical(json.loads(line)).encode() == line
    assert chained(record_of(line), FIRST)
    assert leaf_of(line) == line


def test_a_long_one():
    """The leaf of a record that is too long has the length and the digest of its fields; its line has all of them."""
    made = record({"text": "x" * 70_000})
    line = line_of(made)
    leaf = json.loads(leaf_of(line))
    fields = {"fields_bytes": len(made.fields), "fields_sha256": hashlib.sha256(made.fields.encode()).hexdigest()}
    assert {**json.loads(line), "fields": fields} == leaf
    assert len(leaf_of(line)) < 1_000 < LEAF_MAX_BYTES < len(line)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b'{"seq":1}', line_of(record({})) + b" ", line_of(record({})).replace(b'"seq":1', b'"seq":01'),
     line_of(record({})).replace(b'"at_ms":5', b'"at_ms": 5'), line_of(record({})).replace(b"task", b"ta\\u0073k")],
)  # fmt: skip
def test_what_is_no_line(line):
    """What is written otherwise than the agent writes it is no record."""
    with pytest.raises(InvalidInput):
        record_of(line)
