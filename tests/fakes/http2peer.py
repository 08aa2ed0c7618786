"""Peers of an HTTP/2 server, as hypothesis makes them up: calls that go on and end, frames that are odd, and mutated bytes.

It needs nothing of Sojourn.
"""

import gzip
from itertools import pairwise
from typing import Any

from harness.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    call_headers,
    frame,
    literal,
    message,
    setting,
    window,
)
from hypothesis import strategies as st

FRAME_BYTES = 16_384  # the most that a frame may have, unless it is said otherwise
WINDOW_BYTES = 65_535  # with which all windows begin
FIRST_WINDOW = 4  # the setting's number
HANDLED = ("/echo", "/once", "/at_once", "/large", "/unread", "/over_and_over", "/refused", "/never")
ODD_STREAMS = st.sampled_from([0, 1, 2, 3, 4, 5, 99, 2**31 - 1, 2**31])
EXTRA: list[dict[bytes, bytes]] = [
    *[{}] * 6,
    *[{b"grpc-encoding": b"gzip"}] * 3,
    {b"grpc-timeout": b"1n"},
    {b"content-length": b"12"},
    {b"x": b"a" * 17_000},
    {b":method": b"GET"},
    {b"content-type": b"text/html"},
    {b"connection": b"close"},
]
PATHS = st.sampled_from([*HANDLED, *HANDLED, "/unknown"])
# A head whose fields go into the table, and the same head by references to what is there then.
TAUGHT = (
    b"\x83\x86" + literal(b":path", b"/once", first=0x40) + literal(b"content-type", b"application/grpc", first=0x40)
)
KNOWN = b"\x83\x86\xbf\xbe"
CONTENTS = st.sampled_from(
    [
        *[message(b"x" * size) for size in (0, 1, 7, 300, 300, 20_000, 20_000)],
        message(b"two") + message(b"of them")[:-3],
        *[message(gzip.compress(b"packed" * 100), flag=1)] * 3,
        message(gzip.compress(bytes(40_000)), flag=1),
        message(gzip.compress(b"packed")[:-3], flag=1),
        message(b"not packed", flag=1),
        message(b"", flag=2),
        message(b"too large", size=1 << 24),
        b"",
        b"\0\0",
    ]
)
INCREMENTS = st.sampled_from([1, 100, 5_000, 65_535, 1 << 20])
WHICH = st.integers(0, 3)
ENDED = st.sampled_from([0, END_STREAM])


class Script:
    """What a peer sends that knows its streams."""

    def __init__(self) -> None:
        self.next = 1
        self.open: list[int] = []  # those on which it may send more

    def call(self, path: str, extra: dict[bytes, bytes], contents: list[bytes], ended: int, cut: int) -> bytes:
        """A call that begins, and how it goes on. `cut`: where its head is cut in two; 0: nowhere."""
        return self._begun(call_headers(path, extra), contents, ended, cut)

    def known(self, block: bytes, contents: list[bytes], ended: int) -> bytes:
        return self._begun(block, contents, ended, 0)

    def _begun(self, block: bytes, contents: list[bytes], ended: int, cut: int) -> bytes:
        number, self.next = self.next, self.next + 2
        last = 0 if contents else ended
        places = [0, *([cut % len(block)] if cut else []), *range(FRAME_BYTES, len(block), FRAME_BYTES), len(block)]
        pieces = [block[one:other] for one, other in pairwise(sorted(places))]
        sent = b"".join(
            frame(
                CONTINUATION if at else HEADERS,
                (0 if at else last) | (END_HEADERS if at == len(pieces) - 1 else 0),
                number,
                piece,
            )
            for at, piece in enumerate(pieces)
        )
        if not ended:
            self.open.append(number)
        return sent + b"".join(
            in_frames(number, content, ended if at == len(contents) - 1 else 0) for at, content in enumerate(contents)
        )

    def data(self, which: int, content: bytes, ended: int) -> bytes:
        if not self.open:
            return b""
        number = self.open[which % len(self.open)]
        if ended:
            self.open.remove(number)
        return in_frames(number, content, ended)

    def bulk(self, which: int, count: int) -> bytes:
        """Much on one stream, more than may be held, and more than half of its window."""
        return b"".join(self.data(which, message(bytes(FRAME_BYTES - 5)), 0) for _ in range(count))

    def trailers(self, which: int) -> bytes:
        if not self.open:
            return b""
        number = self.open.pop(which % len(self.open))
        return frame(HEADERS, END_HEADERS | END_STREAM, number, literal(b"x", b"1"))

    def reset(self, which: int) -> bytes:
        """The end of a stream, of one that it has ended itself too."""
        number = self._any(which)
        if number in self.open:
            self.open.remove(number)
        return frame(RST_STREAM, 0, number, (8).to_bytes(4, "big")) if number else b""

    def window(self, which: int, more: int) -> bytes:
        number = self._any(which)
        return window(number, more) if number else b""

    def _any(self, which: int) -> int:
        """A stream that it has opened; 0: there is none."""
        return max(0, self.next - 2 - 2 * which)


def in_frames(number: int, content: bytes, ended: int) -> bytes:
    """DATA frames with this content, of which the last has the flag."""
    cuts = range(0, max(1, len(content)), FRAME_BYTES)
    return b"".join(
        frame(DATA, ended if at + FRAME_BYTES >= len(content) else 0, number, content[at : at + FRAME_BYTES])
        for at in cuts
    )


# What should not be, or means nothing to a server.
ODD = st.one_of(
    st.builds(
        frame,
        st.sampled_from([*range(10), 99, 255]),
        st.sampled_from([0, 1, 4, 5, 8, 32, 255]),
        ODD_STREAMS,
        st.one_of(st.binary(max_size=20), st.just(call_headers("/once"))),
    ),
    st.builds(lambda block: frame(HEADERS, END_HEADERS, 99, block), st.binary(max_size=30)),
    st.builds(
        setting, st.sampled_from([FIRST_WINDOW, 2, 5, 99]), st.sampled_from([0, 1, FRAME_BYTES, 2**31 - 1, 2**32 - 1])
    ),
    st.builds(lambda number: frame(WINDOW_UPDATE, 0, number, b"\x7f\xff\xff\xff"), ODD_STREAMS),
    st.builds(lambda number: frame(DATA, PADDED, number, b"\x02" + message(b"x") + b"\0\0"), ODD_STREAMS),
    st.sampled_from(
        [
            frame(SETTINGS, ACK),
            frame(GOAWAY, body=bytes(8)),
            frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
            frame(PRIORITY, 0, 1, bytes(4) + b"\0"),
            frame(PING, ACK, 0, b"12345678"),
        ]
    ),
)
CALLS = st.tuples(st.just(Script.call), PATHS, st.sampled_from(EXTRA), st.lists(CONTENTS, max_size=3), ENDED, WHICH)
KNOWN_CALLS = st.tuples(
    st.just(Script.known), st.sampled_from([TAUGHT, TAUGHT, KNOWN, KNOWN, b"\x20"]), st.lists(CONTENTS, max_size=1), ENDED
)  # fmt: skip
MOVES: st.SearchStrategy[Any] = st.one_of(
    *[CALLS] * 6,
    KNOWN_CALLS,
    *[st.tuples(st.just(Script.data), WHICH, CONTENTS, ENDED)] * 3,
    st.tuples(st.just(Script.bulk), WHICH, st.integers(1, 10)),
    st.tuples(st.just(Script.trailers), WHICH),
    st.tuples(st.just(Script.reset), WHICH),
    *[st.tuples(st.just(Script.window), WHICH, INCREMENTS)] * 2,
    st.builds(window, st.just(0), INCREMENTS),
    st.builds(setting, st.just(FIRST_WINDOW), st.sampled_from([0, 1, 100, 20_000, WINDOW_BYTES, 1 << 20])),
    st.just(frame(PING, body=b"12345678")),
)
# What happens beside frames: rounds of the loop, and what the transport and the server do.
EVENTS = st.sampled_from([*["round"] * 7, *["rounds"] * 7, *["full"] * 3, *["drained"] * 6, *["go away", "lost"] * 2])
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "insert", "cut", "repeat"]), st.floats(0, 1), st.integers(0, 255)),
    min_size=1,
    max_size=3,
)


def written(moves: list[Any]) -> list[bytes | str]:
    """Moves as a peer's bytes, behind its greeting; events as they are."""
    script = Script()
    acts = [move if isinstance(move, str | bytes) else move[0](script, *move[1:]) for move in moves]
    return [PREFACE + frame(SETTINGS), *acts]


def mutated(data: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    """Bytes that are like these. The place of a change is a share of their length."""
    made = bytearray(data)
    for how, share, value in changes:
        place = int(share * len(made))
        match how:
            case "flip" if place < len(made):
                made[place] ^= 1 << value % 8
            case "set" if place < len(made):
                made[place] = value
            case "insert":
                made.insert(place, value)
            case "cut":
                del made[place : place + 1 + value % 20]
            case "repeat":
                made[place:place] = made[place : place + value]
    return bytes(made)


FRAMES = st.lists(st.one_of(MOVES, MOVES, MOVES, EVENTS, EVENTS), min_size=4, max_size=30).map(written)
FRAMES_AND_ODD_ONES = st.lists(st.one_of(*[MOVES] * 6, *[EVENTS] * 4, ODD), min_size=4, max_size=30).map(written)


@st.composite
def mutated_frames(draw: st.DrawFn) -> list[bytes | str]:
    """Pieces of what a peer sends, changed somewhere, with events in between."""
    sent = mutated(b"".join(written(draw(st.lists(MOVES, min_size=2, max_size=12)))), draw(MUTATIONS))  # type: ignore[arg-type]  # no event
    acts: list[bytes | str] = []
    for size in draw(st.lists(st.sampled_from([1, 5, 30, 200, 5_000]), max_size=20)):
        acts += [sent[:size], draw(EVENTS)]
        sent = sent[size:]
    return [*acts, sent]


# Header blocks, most of which can be read.
BLOCKS = st.one_of(
    *[st.sampled_from([TAUGHT, KNOWN, KNOWN, KNOWN + b"\xbe", literal(b"x", b"1", first=0x40), b"\x20" + KNOWN])] * 9,
    st.builds(call_headers, PATHS, st.sampled_from(EXTRA)),
    st.sampled_from([b"", b"\x3f\xe1\x1f" + KNOWN, b"\x20\x20\x20", b"\x83\x86\xff\x00"]),
    st.binary(max_size=30),
)
