"""Messages of the key process, as they are and as they are not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.authority.token import messages
from sojourn.limits import KEY_MESSAGE_MAX_BYTES


@given(st.binary(max_size=300), st.integers(1, 40))
def test_broken(data, step):
    """Whatever comes, in whatever pieces, is a message or is refused by ValueError, and nothing else happens."""
    frames = messages.Frames()
    try:
        for at in range(0, len(data), step):
            for message in frames.feed(data[at : at + step]):
                assert isinstance(message, dict)
    except ValueError:
        pass


@given(st.lists(st.dictionaries(st.text(max_size=9), st.integers(0, 9), max_size=4), max_size=5), st.integers(1, 50))
def test_in_pieces(told, step):
    """Messages are read as they were sent, however they are cut."""
    sent, frames = b"".join(map(messages.frame_of, told)), messages.Frames()
    read = [each for at in range(0, len(sent), step) for each in frames.feed(sent[at : at + step])]
    assert told == read


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"1", b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff\xfe", b"[" * 10_000],
    ids=["empty", "array", "number", "cut", "twice", "nan", "no-text", "deep"],
)
def test_no_object(content):
    """What is no JSON object, or could be read in two ways, is refused."""
    with pytest.raises(ValueError, match="a message that is no JSON"):
        messages.read(content)


def test_too_long():
    """A message that is longer than any good one is neither sent nor waited for."""
    with pytest.raises(ValueError, match="bytes"):
        messages.frame_of({"a": "x" * KEY_MESSAGE_MAX_BYTES})
    with pytest.raises(ValueError, match="bytes"):
        list(messages.Frames().feed(b"\xff\xff\xff\xff"))


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"n": 1},
        {"n": True, "b": ""},
        {"n": 1, "b": "%"},
        {"n": 1, "b": 5},
        {"n": 1, "b": "", "c": 1},
        {"n": "1", "b": ""},
    ],
)
def test_other_members(message):
    """A message has the members that it should have, each of its kind; a truth value is no number."""
    with pytest.raises(ValueError):
        messages.fields(message, n=int, b=bytes)


def test_members():
    """What is right is given in the order that was asked for."""
    message = json.loads(json.dumps({"b": messages.encoded(b"\0\xff"), "n": 4}))
    assert [4, b"\0\xff"] == messages.fields(message, n=int, b=bytes)
    with pytest.raises(ValueError, match="too long"):
        messages.fields({"t": "x" * 5_000}, t=str)
