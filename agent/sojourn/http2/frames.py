"""Frames that are sent, as bytes (RFC 9113, 6). Header blocks need no table: what is in them stands there whole."""

from collections.abc import Iterable

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from sojourn.http2.limits import METADATA_MAX_BYTES, REQUEST_WINDOW_BYTES, STREAMS_PER_CONNECTION

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16_384  # the smallest maximum that there may be, and ours
WINDOW_BYTES = 65_535  # what all windows begin with
WINDOW_MAX_BYTES = 2**31 - 1
LAST_STREAM = 2**31 - 1  # that there may be
CONNECTION_WINDOW_BYTES = 4 * REQUEST_WINDOW_BYTES  # that a peer may send ahead on all its streams
_DATA, _HEADERS, _END_STREAM, _END_HEADERS = b"\x00", b"\x01", 1, 4
# The table's size is 0: a peer that allows less than what it begins with waits to hear that (RFC 7541, 4.2).
_NO_TABLE = b"\x20"
_ENCODER = Encoder()  # fields that are never indexed leave it as it is: one for all connections


class Code:
    """Error codes (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


SETTINGS_ACK = SettingsFrame(0, flags=["ACK"]).serialize()
GREETING = (
    SettingsFrame(
        0,
        settings={
            SettingsFrame.MAX_CONCURRENT_STREAMS: STREAMS_PER_CONNECTION,
            SettingsFrame.INITIAL_WINDOW_SIZE: REQUEST_WINDOW_BYTES,
            SettingsFrame.MAX_HEADER_LIST_SIZE: METADATA_MAX_BYTES,
        },
    ).serialize()
    + WindowUpdateFrame(0, window_increment=CONNECTION_WINDOW_BYTES - WINDOW_BYTES).serialize()
)


def _header_block(fields: Iterable[tuple[str, str]]) -> bytes:
    pairs = [NeverIndexedHeaderTuple(name.encode(), value.encode("ascii")) for name, value in fields]
    return _NO_TABLE + _ENCODER.encode(pairs, huffman=False)


def _frame(kind: bytes, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3) + kind + bytes((flags,)) + stream.to_bytes(4) + body


_BEGIN = _header_block([(":status", "200"), ("content-type", "application/grpc")])
_BEGIN_HEAD = len(_BEGIN).to_bytes(3) + _HEADERS + bytes((_END_HEADERS,))
_DONE = _header_block([("grpc-status", "0")])
_DONE_HEAD = len(_DONE).to_bytes(3) + _HEADERS + bytes((_END_HEADERS | _END_STREAM,))
_PONG_HEAD = b"\x00\x00\x08\x06\x01" + bytes(4)


def begin(stream: int) -> bytes:
    """The head of an answer of gRPC."""
    return _BEGIN_HEAD + stream.to_bytes(4) + _BEGIN


def done(stream: int) -> bytes:
    """The end of an answer of gRPC: status OK."""
    return _DONE_HEAD + stream.to_bytes(4) + _DONE


def message(stream: int, content: bytes) -> bytes:
    """One message of gRPC that is no longer than a frame allows."""
    return _frame(_DATA, 0, stream, b"\x00" + len(content).to_bytes(4) + content)


def data(stream: int, content: bytes) -> bytes:
    """A piece of a message with its five bytes, which the caller has put before it."""
    return _frame(_DATA, 0, stream, content)


def last(stream: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """The last header block of an answer. Values are ASCII, and fit into a frame."""
    return _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _header_block(fields))


def reset(stream: int, code: int) -> bytes:
    return RstStreamFrame(stream, error_code=code).serialize()


def go_away(stream: int, code: int) -> bytes:
    return GoAwayFrame(0, last_stream_id=stream, error_code=code).serialize()


def pong(content: bytes) -> bytes:
    """The answer to a PING with these eight bytes."""
    return _PONG_HEAD + content


def more(stream: int, increment: int) -> bytes:
    """The peer may send so many bytes more; on the whole connection if `stream` is 0."""
    return WindowUpdateFrame(stream, window_increment=increment).serialize()


FIXED_SIZES = {2: 5, 3: 4, 6: 8, 8: 4}  # of PRIORITY, RST_STREAM, PING and WINDOW_UPDATE
