"""HTTP/2 by hand: the frames that no client library would send (RFC 9113, with RFC 7541's literals)."""

import contextlib
import socket
import struct
from collections.abc import Iterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WAIT_SECONDS = 60.0
_FRAME = struct.Struct(">BHBBI")


def frame(kind: int, flags: int = 0, stream: int = 0, body: bytes = b"", *, size: int | None = None) -> bytes:
    """A frame; `size` is what it says of its own length, if that is not the truth."""
    length = len(body) if size is None else size
    return _FRAME.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + body


def setting(name: int, value: int) -> bytes:
    """A frame with one setting."""
    return frame(SETTINGS, body=name.to_bytes(2, "big") + value.to_bytes(4, "big"))


def window(stream: int, more: int) -> bytes:
    """A frame that opens the window of a stream, or of the connection (0), by so many bytes."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """An HPACK integer with a prefix of so many bits (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    made, value = bytearray([first | most]), value - most
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def literal(name: bytes, value: bytes, *, first: int = 0x00) -> bytes:
    """A header as two literals; `first` 0x40 puts it into the table, 0x10 forbids that."""
    return bytes([first]) + integer(len(name), 7) + name + integer(len(value), 7) + value


def call_headers(path: str, extra: Mapping[bytes, bytes] | None = None) -> bytes:
    """The header block of a gRPC call with the security header."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path.encode("latin-1"),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        b"workload.spiffe.io": b"true",
        **(extra or {}),
    }
    return b"".join(literal(name, value) for name, value in fields.items())


def message(body: bytes, *, flag: int = 0, size: int | None = None) -> bytes:
    """A gRPC message with its prefix; `size` is what it says of its own length, if that is not the truth."""
    return struct.pack(">BI", flag, len(body) if size is None else size) + body


class Connection:
    """A connection on which frames are written and read as they are."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)  # without a time limit, so that it waits its turn
        self.socket.settimeout(WAIT_SECONDS)
        self._got = b""

    def open(self, settings: bytes = b"") -> None:
        """Send the preface and our settings."""
        self.socket.sendall(PREFACE + frame(SETTINGS, body=settings))

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def call(self, path: str, body: bytes, stream: int = 1, extra: Mapping[bytes, bytes] | None = None) -> None:
        """Send a whole call with one message."""
        self.send(
            frame(HEADERS, END_HEADERS, stream, call_headers(path, extra)),
            frame(DATA, END_STREAM, stream, message(body)),
        )

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and body of each frame that comes until the other side closes."""
        while True:
            while len(self._got) >= 9:
                high, low, kind, flags, stream = _FRAME.unpack_from(self._got)
                end = 9 + (high << 16 | low)
                if len(self._got) < end:
                    break
                body, self._got = self._got[9:end], self._got[end:]
                yield kind, flags, stream, body
            try:
                data = self.socket.recv(65_536)
            except ConnectionResetError:
                return
            if not data:
                return
            self._got += data

    def until(self, kind: int, stream: int | None = None) -> bytes:
        """The body of the next frame of a kind. Raise AssertionError if the other side closes before."""
        for found, _, of, body in self.frames():
            if found == kind and stream in {None, of}:
                return body
        raise AssertionError(f"closed before a frame of kind {kind}")

    def ended(self) -> bool:
        """Whether the other side closes, within the time that a read may take."""
        with contextlib.suppress(TimeoutError):
            for _ in self.frames():
                pass
            return True
        return False

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
