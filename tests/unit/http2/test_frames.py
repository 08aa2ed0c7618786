"""http2/frames.py: what is sent, as hyperframe and hpack read it."""

import pytest
from hpack import Decoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from sojourn.http2 import frames
from sojourn.http2.limits import METADATA_MAX_BYTES, REQUEST_WINDOW_BYTES, STREAMS_PER_CONNECTION

NUMBER = 2**31 - 1


def read(data):
    """The frames in some bytes."""
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


def one(data, kind):
    [frame] = read(data)
    assert kind is type(frame)
    return frame


def fields(frame):
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    return decoder.decode(frame.data)


class TestHeads:
    @pytest.mark.parametrize("stream", [1, 3, NUMBER])
    def test_begin_and_done(self, stream):
        """The head of an answer and its good end are what gRPC says, on their stream, and need no table."""
        begin, done = one(frames.begin(stream), HeadersFrame), one(frames.done(stream), HeadersFrame)
        assert (stream, {"END_HEADERS"}) == (begin.stream_id, set(begin.flags))
        assert [(":status", "200"), ("content-type", "application/grpc")] == fields(begin)
        assert (stream, {"END_HEADERS", "END_STREAM"}) == (done.stream_id, set(done.flags))
        assert [("grpc-status", "0")] == fields(done)

    def test_are_not_packed(self):
        """Fields are written as they are: packing each would cost more than its bytes."""
        assert frames.last(1, [("x-name", "value")]).endswith(b"\x06x-name\x05value")

    def test_last(self):
        """The last block has its fields in their order, and ends the stream."""
        said = [("grpc-status", "7"), ("grpc-message", "no"), ("x", "")]
        last = one(frames.last(5, said), HeadersFrame)
        assert (5, {"END_HEADERS", "END_STREAM"}, said) == (last.stream_id, set(last.flags), fields(last))


class TestData:
    @pytest.mark.parametrize("content", [b"", b"a", b"x" * (frames.FRAME_BYTES - 5)])
    def test_message(self, content):
        """A message has its five bytes before it, and leaves the stream open."""
        frame = one(frames.message(7, content), DataFrame)
        whole = b"\x00" + len(content).to_bytes(4, "big") + content
        assert (7, whole, set()) == (frame.stream_id, frame.data, set(frame.flags))

    def test_piece(self):
        """A piece is sent as it is."""
        frame = one(frames.data(7, b"piece"), DataFrame)
        assert (7, b"piece", set()) == (frame.stream_id, frame.data, set(frame.flags))


class TestControl:
    def test_greeting(self):
        """At first a peer is told how many streams, how much of metadata and how much ahead it may send."""
        settings, window = read(frames.GREETING)
        assert {
            SettingsFrame.MAX_CONCURRENT_STREAMS: STREAMS_PER_CONNECTION,
            SettingsFrame.INITIAL_WINDOW_SIZE: REQUEST_WINDOW_BYTES,
            SettingsFrame.MAX_HEADER_LIST_SIZE: METADATA_MAX_BYTES,
        } == settings.settings
        assert (0, frames.CONNECTION_WINDOW_BYTES - 65_535) == (window.stream_id, window.window_increment)

    def test_answers_to_frames(self):
        """Settings are acknowledged, and a PING is answered with its bytes."""
        assert {"ACK"} == set(one(frames.SETTINGS_ACK, SettingsFrame).flags)
        pong = one(frames.pong(b"12345678"), PingFrame)
        assert (0, b"12345678", {"ACK"}) == (pong.stream_id, pong.opaque_data, set(pong.flags))

    def test_ends(self):
        """A reset names its stream and code, and the end of a connection its last stream and code."""
        reset = one(frames.reset(9, frames.Code.REFUSED_STREAM), RstStreamFrame)
        assert (9, 7) == (reset.stream_id, reset.error_code)
        end = one(frames.go_away(9, frames.Code.ENHANCE_YOUR_CALM), GoAwayFrame)
        assert (0, 9, 11) == (end.stream_id, end.last_stream_id, end.error_code)

    @pytest.mark.parametrize("stream", [0, 9])
    def test_more(self, stream):
        """So many bytes more are allowed, on a stream or on the whole connection."""
        more = one(frames.more(stream, 77), WindowUpdateFrame)
        assert (stream, 77) == (more.stream_id, more.window_increment)
