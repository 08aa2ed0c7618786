"""Asks the agent for its health, by the calls that any gRPC health checker makes (grpc.health.v1, RFC 9113), without a
gRPC library: to import one takes several times as long as to ask.
"""

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Final

from sojourn.errors import Unavailable, Unreachable
from sojourn.limits import HEALTH_ANSWER_MAX_BYTES
from sojourn.sdk.client.agent_socket import connect

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 0x1, 0x4, 0x1, 0x8
_PATH: Final = b"/grpc.health.v1.Health/Check"
# RFC 7541: indexed fields of the static table, and literals that are not indexed, none of them packed.
_HEAD: Final = b"".join(
    (
        b"\x83\x86",  # :method POST, :scheme http
        b"\x04" + bytes([len(_PATH)]) + _PATH,  # :path
        b"\x01\x09localhost",  # :authority
        b"\x0f\x10\x10application/grpc",  # content-type
        b"\x00\x02te\x08trailers",
    )
)
_SERVING: Final = b"\x08\x01"  # HealthCheckResponse with status SERVING


def ask(path: str, services: Sequence[str], seconds: float) -> dict[str, bool]:
    """Whether each of these services serves, by name; one that the agent does not know is left out.

    Raise Unreachable if nobody answers within `seconds`, Unavailable if what answers does not tell its health.
    """
    ends = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connect(connection, path, seconds)
            connection.sendall(_requests(services))
            answers = _answers(connection, len(services), ends)
        except OSError as error:
            raise _unreachable(path, error) from error
    told = {services[number // 2]: content[5:] == _SERVING for number, content in answers.items() if content}
    if not told:
        raise Unavailable(f"what answers at {path!r} does not tell its health: it is no agent, or refuses to be asked")
    return told


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _requests(services: Sequence[str]) -> bytes:
    sent = [_PREFACE, _frame(_SETTINGS, 0, 0)]
    for index, service in enumerate(services):
        name = service.encode()
        message = b"\x0a" + bytes([len(name)]) + name if name else b""
        sent.append(_frame(_HEADERS, _END_HEADERS, index * 2 + 1, _HEAD))
        sent.append(_frame(_DATA, _END_STREAM, index * 2 + 1, b"\0" + struct.pack(">I", len(message)) + message))
    return b"".join(sent)


def _answers(connection: socket.socket, count: int, ends: float) -> dict[int, bytes]:
    """What came on each stream until all have ended, by stream."""
    answers = {index * 2 + 1: b"" for index in range(count)}
    left = set(answers)
    for kind, flags, stream, content in _frames(connection, ends):
        if kind == _SETTINGS and not flags & _ACK:
            connection.sendall(_frame(_SETTINGS, _ACK, 0))
        elif kind == _DATA and stream in left:
            answers[stream] += content[1 : len(content) - content[0]] if flags & _PADDED else content
        ended = kind == _RST_STREAM or (kind in {_DATA, _HEADERS} and flags & _END_STREAM)
        if ended:
            left.discard(stream)
        if not left or kind == _GOAWAY:
            break
    return answers


def _frames(connection: socket.socket, ends: float) -> Iterator[tuple[int, int, int, bytes]]:
    """Frames as they come: kind, flags, stream, content. Raise OSError if time or the connection ends first."""
    kept, size = b"", 0
    while True:
        while len(kept) >= 9:
            length = int.from_bytes(kept[:3], "big")
            if len(kept) < 9 + length:
                break
            kind, flags, stream = struct.unpack(">BBI", kept[3:9])
            yield kind, flags, stream & 0x7FFFFFFF, kept[9 : 9 + length]
            kept = kept[9 + length :]
        connection.settimeout(max(0.001, ends - time.monotonic()))
        came = connection.recv(4096)
        size += len(came)
        if not came or size > HEALTH_ANSWER_MAX_BYTES:
            return
        kept += came


def _unreachable(path: str, error: OSError) -> Unreachable:
    from sojourn.sdk.client.grpc_status import unreachable_sentence

    return Unreachable(unreachable_sentence(path), detail=str(error))
