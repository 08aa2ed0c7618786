"""http2/received_frames.py: frames are read as hyperframe reads them, and refused where it refuses them."""

import random

import pytest
from harness.http2 import frame
from hyperframe.exceptions import HyperframeError, InvalidDataError
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame
from sojourn.http2.frames import FIXED_SIZES, pong
from sojourn.http2.received_frames import Data, Ping, Window, parse

DATA, PING, WINDOW_UPDATE = 0, 6, 8


def by_the_library(whole):
    read, _ = Frame.parse_frame_header(memoryview(whole)[:9])
    read.parse_body(memoryview(whole)[9:])
    return read


def ours(read, size):
    """The same frame as ours."""
    if isinstance(read, DataFrame):
        return Data(read.stream_id, read.data, size, "END_STREAM" in read.flags)
    if isinstance(read, PingFrame):
        return Ping("ACK" in read.flags, read.opaque_data)
    if isinstance(read, WindowUpdateFrame):
        return Window(read.stream_id, read.window_increment)
    return (type(read), read.stream_id, read.flags, read.body_len)


def outcome(action):
    try:
        return action()
    except HyperframeError as error:
        return type(error)


@pytest.mark.parametrize("seed", range(8))
def test_as_the_library_says(seed):
    """Whatever comes is what the library says that it is, and is refused where the library refuses it."""
    chance, refused = random.Random(seed), 0
    for _ in range(2_000):
        kind = chance.choice([DATA, DATA, PING, WINDOW_UPDATE, *range(11)])
        size = FIXED_SIZES.get(kind, chance.choice([0, 1, 5, 6, 8, 24, 300]))
        body = chance.choice([bytes(size), chance.randbytes(size)])
        if kind == WINDOW_UPDATE:
            body = bytes((body[0] & 0x7F, *body[1:]))
        whole = frame(kind, chance.choice([0, 1, 4, 8, 9, chance.randrange(256)]), chance.choice([0, 1, 7]), body)
        expected = outcome(lambda whole=whole, size=size: ours(by_the_library(whole), size))
        found = outcome(lambda whole=whole: parse(memoryview(whole)))
        assert expected == (ours(found, size) if isinstance(found, Frame) else found)
        refused += isinstance(found, type)
    assert 20 < refused < 1_500


def test_what_is_ours():
    """Those that come with every call are not left to the library."""
    whole = [frame(DATA, 1, 3, b"abc"), frame(PING, 0, 0, b"12345678"), frame(WINDOW_UPDATE, 0, 5, b"\0\0\1\0")]
    assert [Data(3, b"abc", 3, True), Ping(False, b"12345678"), Window(5, 256)] == [parse(memoryview(x)) for x in whole]


def test_others():
    """All others are the library's."""
    settings, headers = frame(4, 0, 0, b"\0\4\0\0\1\0"), frame(1, 4, 1, b"\x82")
    assert isinstance(parse(memoryview(settings)), SettingsFrame)
    assert isinstance(parse(memoryview(headers)), HeadersFrame)


def test_padding():
    """Padding is no data, and counts."""
    assert Data(1, b"abc", 6, False) == parse(memoryview(frame(DATA, 8, 1, b"\2abc\0\0")))


def test_reserved_bits():
    """The reserved bit of a stream's number and of an increment says nothing (RFC 9113, 4.1 and 6.9)."""
    whole = frame(WINDOW_UPDATE, 0, 5, b"\x80\0\1\0")
    whole = whole[:5] + bytes((whole[5] | 0x80,)) + whole[6:]
    assert Window(5, 256) == parse(memoryview(whole))


@pytest.mark.parametrize("increment", [b"\0\0\0\0", b"\x80\0\0\0"])
def test_an_increment_of_nothing(increment):
    """A window that grows by nothing is refused."""
    with pytest.raises(InvalidDataError):
        parse(memoryview(frame(WINDOW_UPDATE, 0, 0, increment)))


def test_pings_are_answered():
    """The answer to a PING is a PING with its content, as the library reads it."""
    answer = by_the_library(pong(b"12345678"))
    assert (PingFrame, {"ACK"}, b"12345678") == (type(answer), set(answer.flags), answer.opaque_data)
