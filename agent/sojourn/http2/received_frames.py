"""Frames that are received (RFC 9113, 6). Those that come with every call are read here, all others by hyperframe.

A client of gRPC sends a PING and a WINDOW_UPDATE for nearly each answer, and hyperframe takes several times as long.
"""

import struct
from dataclasses import dataclass

from hyperframe.frame import DataFrame, Frame

_HEAD = struct.Struct(">xxxBBL")  # behind the length: type, flags, stream
_INCREMENT = struct.Struct(">L")
HEADERS = 1
_DATA, _PING, _WINDOW_UPDATE = 0, 6, 8
_END_STREAM, _ACK, _PADDED = 0x01, 0x01, 0x08
_WITHOUT_RESERVED = 2**31 - 1


@dataclass(slots=True)
class Data:
    """A DATA frame. `size`: bytes with its padding, which count against the windows."""

    stream_id: int
    data: bytes
    size: int
    ended: bool


@dataclass(slots=True)
class Ping:
    """A PING frame with its eight bytes."""

    ack: bool
    content: bytes


@dataclass(slots=True)
class Window:
    """A WINDOW_UPDATE frame. `increment` is not 0."""

    stream_id: int
    increment: int


def parse(view: memoryview) -> Data | Ping | Window | Frame:
    """A whole frame, which has the size that its type has, if that is fixed. Raise hyperframe's exceptions."""
    kind, flags, stream = _HEAD.unpack_from(view)
    stream &= _WITHOUT_RESERVED
    if kind == _DATA and stream and not flags & _PADDED:
        return Data(stream, bytes(view[9:]), len(view) - 9, bool(flags & _END_STREAM))
    if kind == _PING and not stream:
        return Ping(bool(flags & _ACK), bytes(view[9:]))
    if kind == _WINDOW_UPDATE and (increment := _INCREMENT.unpack_from(view, 9)[0] & _WITHOUT_RESERVED):
        return Window(stream, increment)
    frame, _ = Frame.parse_frame_header(view[:9])  # the rest, and what is wrong with these
    frame.parse_body(view[9:])
    if isinstance(frame, DataFrame):
        return Data(stream, frame.data, len(view) - 9, bool(flags & _END_STREAM))
    return frame
