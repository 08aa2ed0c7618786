"""The heads of requests: what their header blocks say (RFC 9113, 8.3; gRPC over HTTP/2)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hpack import Decoder
from hpack.exceptions import HPACKError

from sojourn.http2.limits import (
    FIELD_HELD_BYTES,
    HEADER_BLOCK_FRAMES,
    HEADER_BLOCK_MAX_BYTES,
    HEADS_KEPT,
    HEADS_KEPT_BYTES,
    METADATA_MAX_BYTES,
)

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+", re.ASCII)
_VALUE = re.compile(rb"[^\x00\r\n]*")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])", re.ASCII)
_RESIZED_OFTEN = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")  # RFC 7541, 4.2: twice at most
_LENGTH = re.compile(rb"[0-9]{1,18}", re.ASCII)
_FIELD_OVERHEAD = 32  # RFC 9113, 6.5.2: what a field counts beyond its name and value
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTIONS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


class BadBlock(Exception):
    """A header block that cannot be decoded: what follows on the connection could not be either."""


@dataclass(frozen=True, slots=True)
class Head:
    """`method` and `path` as sent, and `fields` in order. `timeout`: in how many seconds the caller wants its answer.

    `length`: of the request in bytes, if it says. `malformed`: it is no request of HTTP/2; the rest is empty then.
    `oversized`: it says more than a caller may. `held`: the bytes that it takes in memory, about.
    """

    method: bytes = b""
    path: str = ""
    content_type: bytes = b""
    encoding: bytes = b""
    length: int | None = None
    timeout: float | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()
    malformed: bool = False
    oversized: bool = False
    held: int = 0

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]


@dataclass(slots=True)
class Block:
    """A header block that comes in several frames: of which stream, and whether nothing follows it on that."""

    number: int
    ended: bool
    parts: list[bytes]

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return sum(map(len, self.parts))

    def add(self, part: bytes) -> bool:
        """Take what another frame has of it. Return whether it may still have so much."""
        self.parts.append(part)
        return len(self.parts) <= HEADER_BLOCK_FRAMES and self.size <= HEADER_BLOCK_MAX_BYTES


class Heads:
    """Decodes the header blocks of one connection, each of which may change the table that the next are read by.

    A block of nothing but references to the table says the same as long as the table stays as it is; callers that ask
    the same again and again send such blocks, and what they say is kept.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEADER_BLOCK_MAX_BYTES)
        self._kept: dict[bytes, Head] = {}

    def read(self, block: bytes) -> Head:
        """Raise BadBlock."""
        found = self._kept.get(block)
        if found is not None:
            return found
        if _RESIZED_OFTEN.match(block):
            raise BadBlock("the size of the table is changed more than twice at once")
        try:
            fields = self._decoder.decode(block, raw=True)
        except (HPACKError, ValueError, IndexError) as error:
            raise BadBlock(str(error)) from error
        head = _head(fields)
        if not _only_references(block):
            self._kept.clear()
        elif len(block) <= HEADS_KEPT_BYTES:
            if len(self._kept) >= HEADS_KEPT:
                self._kept.clear()
            self._kept[block] = head
        return head


def _only_references(block: bytes) -> bool:
    """Whether each byte is an indexed field of its own (RFC 7541, 6.1): the first bit set, and no longer index."""
    return len(block) > 0 and min(block) > 0x80 and 0xFF not in block


def _head(fields: Iterable[tuple[bytes, bytes]]) -> Head:
    pseudo: dict[bytes, bytes] = {}
    others: list[tuple[bytes, bytes]] = []
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + _FIELD_OVERHEAD
        if name[:1] == b":":
            if others or name not in _PSEUDO or name in pseudo:
                return Head(malformed=True)
            pseudo[name] = value
        elif not _NAME.fullmatch(name) or name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            return Head(malformed=True)
        else:
            others.append((name, value))
        if not _VALUE.fullmatch(value):
            return Head(malformed=True)
    if not {b":method", b":scheme", b":path"} <= pseudo.keys() or not pseudo[b":path"]:
        return Head(malformed=True)
    said = dict(others)
    length = said.get(b"content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        return Head(malformed=True)
    return Head(
        pseudo[b":method"],
        pseudo[b":path"].decode("latin-1"),
        said.get(b"content-type", b""),
        said.get(b"grpc-encoding", b"identity"),
        None if length is None else int(length),
        _timeout(said.get(b"grpc-timeout")),
        tuple(others),
        oversized=size > METADATA_MAX_BYTES,
        held=size + len(others) * (FIELD_HELD_BYTES - _FIELD_OVERHEAD),
    )


def _timeout(value: bytes | None) -> float | None:
    """Seconds; None if there is none or it is none."""
    match = _TIMEOUT.fullmatch(value) if value is not None else None
    return None if match is None else int(match[1]) * _UNITS[match[2]]
