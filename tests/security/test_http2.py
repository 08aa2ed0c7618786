"""HTTP/2 against the real agent, frame by frame: whoever sends it harms nobody but himself."""

import contextlib
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.borrowed import wire_of
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
    Connection,
    call_headers,
    frame,
    integer,
    literal,
    message,
)
from harness.looking import PIDFD, until
from harness.raw import WORKLOAD_API, Admin, Wire, module_agent
from sojourn.limits import STREAMS_PER_UID

pytestmark = pytest.mark.full

JWT, X509 = WORKLOAD_API + "FetchJWTSVID", WORKLOAD_API + "FetchX509SVID"
FLOODER, OTHER = 4810, 4811
BEGIN = frame(HEADERS, END_HEADERS, 1, call_headers(JWT))
FLOOD_SECONDS = 2.0
MEMORY = 48 * 1024 * 1024  # what an attack may make the agent grow by, all connections together


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/self", f"unix:uid:{os.getuid()}")
        admin.register("/other", f"unix:uid:{OTHER}")
        yield running


@pytest.fixture(scope="module")
def other(agent: AgentProcess) -> Iterator[Wire]:
    """Calls of another user, where there can be one."""
    with contextlib.ExitStack() as stack:
        root = os.geteuid() == 0
        yield stack.enter_context(wire_of(agent.socket, OTHER) if root else Wire(agent.socket))


def is_served(wire: Wire) -> bool:
    return [wire.x509_ids()] in ([["spiffe://example.org/other"]], [["spiffe://example.org/self"]])


def resident(agent: AgentProcess) -> int:
    return int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flood(connection: Connection, data: bytes, rounds: int) -> bool:
    """Send the same bytes again and again, reading what comes back. Whether the connection was closed meanwhile."""
    end = connection.socket
    end.setblocking(False)
    for _ in range(rounds):
        left = memoryview(data)
        while left:
            readable, writable, _ = select.select([end], [end], [], FLOOD_SECONDS)
            try:
                if readable and not end.recv(1 << 20):
                    return True
                if writable:
                    left = left[end.send(left) :]
            except BlockingIOError:
                continue
            except ConnectionError:
                return True
            if not readable and not writable:  # it takes no more: as good as closed
                return True
    return False


# What breaks HTTP/2 itself: the connection is at an end.
BROKEN: dict[str, bytes] = {
    "DATA on stream 0": frame(DATA, 0, 0, b"x"),
    "DATA on a stream that was never opened": frame(DATA, 0, 5, b"x"),
    "HEADERS on stream 0": frame(HEADERS, END_HEADERS, 0, call_headers(JWT)),
    "HEADERS on an even stream": frame(HEADERS, END_HEADERS, 2, call_headers(JWT)),
    "SETTINGS of seven bytes": frame(SETTINGS, body=b"\0" * 7),
    "SETTINGS on a stream": frame(SETTINGS, 0, 1, b""),
    "SETTINGS with a window over the greatest": frame(SETTINGS, body=b"\x00\x04\xff\xff\xff\xff"),
    "SETTINGS with frames under the smallest": frame(SETTINGS, body=b"\x00\x05\x00\x00\x00\x01"),
    "an acknowledgement with a body": frame(SETTINGS, ACK, 0, b"\0" * 6),
    "PING of seven bytes": frame(PING, body=b"\0" * 7),
    "RST_STREAM of three bytes": frame(RST_STREAM, 0, 1, b"\0" * 3),
    "WINDOW_UPDATE of nothing": frame(WINDOW_UPDATE, 0, 0, b"\0" * 4),
    "WINDOW_UPDATE of three bytes": frame(WINDOW_UPDATE, 0, 0, b"\0" * 3),
    "a window over the greatest": frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "CONTINUATION after nothing": frame(CONTINUATION, END_HEADERS, 1, b""),
    "another frame between HEADERS and CONTINUATION": frame(HEADERS, 0, 1, call_headers(JWT))
    + frame(PING, body=b"\0" * 8),
    "CONTINUATION of another stream": frame(HEADERS, 0, 1, call_headers(JWT))
    + frame(CONTINUATION, END_HEADERS, 3, b""),
    "a frame over the greatest size": frame(DATA, 0, 1, b"", size=0xFFFFFF) + b"\0" * 70_000,
    "more padding than frame": frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + call_headers(JWT)),
    "an index far beyond the HPACK table": frame(HEADERS, END_HEADERS, 1, integer(1 << 20, 7, 0x80)),
    "index 0": frame(HEADERS, END_HEADERS, 1, b"\x80"),
    "an HPACK integer without end": frame(HEADERS, END_HEADERS, 1, b"\xff" + b"\x80" * 40),
    "an HPACK literal longer than its frame": frame(HEADERS, END_HEADERS, 1, b"\x00" + integer(1 << 30, 7)),
    "Huffman code that ends in the middle": frame(HEADERS, END_HEADERS, 1, b"\x00\x81\xff\x81\xff"),
    "a table size over the agreed one": frame(HEADERS, END_HEADERS, 1, integer(1 << 28, 5, 0x20) + call_headers(JWT)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_CVE_2017_8359_broken_frames(agent: AgentProcess, other: Wire, name: str) -> None:
    """A frame that HTTP/2 does not allow is answered with no identity; the agent lives and others are served."""
    with Connection(agent.socket) as connection:
        connection.open()
        connection.send(BROKEN[name], frame(PING, body=b"the end!"))
        connection.socket.settimeout(2.0)
        answers = []
        with contextlib.suppress(TimeoutError):
            for kind, flags, _stream, body in connection.frames():
                answers += [body] if kind == DATA and body else []
                if kind == PING and flags & ACK:
                    break
    assert [] == answers
    assert is_served(other)
    assert agent.process is not None
    assert agent.process.poll() is None


def test_a_second_preface(agent: AgentProcess, other: Wire) -> None:
    """A preface in the middle of a connection ends it."""
    with Connection(agent.socket) as connection:
        connection.open()
        connection.send(PREFACE)
        assert connection.ended()
    assert is_served(other)


FLOODS: dict[str, tuple[bytes, int]] = {
    "PING": (frame(PING, body=b"\0" * 8) * 1_000, 100),
    "acknowledged PING": (frame(PING, ACK, 0, b"\0" * 8) * 1_000, 100),
    "SETTINGS": (frame(SETTINGS) * 1_000, 100),
    "SETTINGS that change": (frame(SETTINGS, body=b"\x00\x04\x00\x00\x00\x01") * 1_000, 50),
    "WINDOW_UPDATE": (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01") * 1_000, 100),
    "PRIORITY": (frame(PRIORITY, 0, 1, b"\0" * 5) * 1_000, 100),
    "empty DATA": (BEGIN + frame(DATA, 0, 1) * 1_000, 100),
    "empty CONTINUATION": (frame(HEADERS, 0, 1, call_headers(JWT)) + frame(CONTINUATION, 0, 1) * 1_000, 100),
    "unknown frames": (frame(0x77, 0xFF, 1, b"x" * 100) * 1_000, 100),
    "PUSH_PROMISE": (frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02") * 1_000, 10),
    "GOAWAY": (frame(GOAWAY, body=b"\0" * 8 + b"x" * 1_000) * 100, 100),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_frames(agent: AgentProcess, other: Wire, name: str) -> None:
    """A flood of small frames costs the agent little memory, and another user is served in the midst of it."""
    data, rounds = FLOODS[name]
    before = resident(agent)
    with Connection(agent.socket) as connection:
        connection.open()
        flood(connection, data, rounds // 2)
        assert is_served(other)
        flood(connection, data, rounds // 2)
    assert resident(agent) - before < MEMORY
    assert is_served(other)


def many(make: Callable[[int], bytes], count: int) -> list[bytes]:
    """`count` streams in pieces of a hundred."""
    return [b"".join(make(1 + 2 * number) for number in range(first, first + 100)) for first in range(0, count, 100)]


def test_CVE_2023_44487_rapid_reset(agent: AgentProcess, other: Wire) -> None:
    """Streams that are opened and reset at once, tens of thousands of them, keep nobody else from being served."""
    before = resident(agent)
    headers = call_headers(X509)
    reset = (8).to_bytes(4, "big")
    for _ in range(5):
        with Connection(agent.socket) as connection:
            connection.open()
            for piece in many(
                lambda stream: (
                    frame(HEADERS, END_HEADERS, stream, headers)
                    + frame(DATA, END_STREAM, stream, message(b""))
                    + frame(RST_STREAM, 0, stream, reset)
                ),
                5_000,
            ):
                if flood(connection, piece, 1):
                    break
            assert is_served(other)
    with Admin(agent.admin_socket) as admin:
        until(lambda: [] == [each for each in admin.streams() if each.uid == os.getuid()])
    assert resident(agent) - before < MEMORY


def test_streams_over_the_limit(agent: AgentProcess, other: Wire) -> None:
    """Of thousands of streams on one connection only so many are open at once."""
    with Connection(agent.socket) as connection, Admin(agent.admin_socket) as admin:
        connection.open()
        for piece in many(
            lambda stream: (
                frame(HEADERS, END_HEADERS, stream, call_headers(X509)) + frame(DATA, END_STREAM, stream, message(b""))
            ),
            1_000,
        ):
            if flood(connection, piece, 1):
                break
        assert len(admin.streams()) <= 100
        assert is_served(other)


def test_CVE_2024_2758_continuation_flood(agent: AgentProcess, other: Wire) -> None:
    """Headers that go on and on in CONTINUATION frames are not collected: the stream or its connection ends."""
    before = resident(agent)
    with Connection(agent.socket) as connection:
        connection.open()
        connection.send(frame(HEADERS, 0, 1, call_headers(JWT)))
        flood(connection, frame(CONTINUATION, 0, 1, literal(b"x-" + b"a" * 100, b"b" * 8_000)), 5_000)
    assert resident(agent) - before < MEMORY
    assert is_served(other)


def test_CVE_2023_33953_header_bomb(agent: AgentProcess, other: Wire) -> None:
    """A header in the table that is named thousands of times in a few bytes is not unpacked without limit."""
    before = resident(agent)
    stuffed = literal(b"x-bomb", b"a" * 3_900, first=0x40)
    for _ in range(3):
        with Connection(agent.socket) as connection:
            connection.open()
            connection.send(frame(HEADERS, END_HEADERS, 1, call_headers(JWT) + stuffed))
            bomb = call_headers(JWT) + b"\xbe" * 15_000  # index 62: the newest in the table
            for stream in range(3, 41, 2):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.send(
                        frame(HEADERS, END_HEADERS, stream, bomb),
                        frame(DATA, END_STREAM, stream, message(b"\x0a\x01a")),
                    )
            assert is_served(other)
    # Unpacked, each of the 57 calls would be 58 MB. gRPC's own buffers come and go by some tens.
    assert resident(agent) - before < 3 * MEMORY


@pytest.mark.parametrize("size", [8_000, 9_000, 15_000, 64_000])
def test_CVE_2023_1428_CVE_2023_32731_odd_headers_over_eight_kilobytes(
    agent: AgentProcess, other: Wire, size: int
) -> None:
    """Large headers that are no gRPC do not end the process."""
    extra = {b"te": b"x" * size, b"grpc-timeout": b"9" * 100, b"content-type": b"\xff" * 200}
    with Connection(agent.socket) as connection:
        connection.open()
        block = call_headers(JWT, extra)
        pieces = [block[start : start + 16_000] for start in range(0, len(block), 16_000)]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(frame(HEADERS, END_HEADERS if len(pieces) == 1 else 0, 1, pieces[0]))
            for place, piece in enumerate(pieces[1:], 2):
                connection.send(frame(CONTINUATION, END_HEADERS if place == len(pieces) else 0, 1, piece))
            connection.send(frame(DATA, END_STREAM, 1, message(b"\x0a\x01a")))
        assert is_served(other)


@pytest.mark.parametrize("value", [b"====", b"\xff\xff", b"a", b"!" * 3_000, b"AAAA,,AAAA", b""])
def test_CVE_2023_32732_binary_headers_that_are_not_base64(agent: AgentProcess, other: Wire, value: bytes) -> None:
    """Binary metadata that is not base64 ends its own call at most."""
    with Connection(agent.socket) as connection:
        connection.open()
        for stream in range(1, 21, 2):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.call(JWT, b"\x0a\x01a", stream, {b"x-bin": value, b"grpc-trace-bin": value})
        assert is_served(other)


def test_CVE_2024_7246_table_poisoning(agent: AgentProcess) -> None:
    """A header that was refused leaves the table as both sides know it: no caller is taken for another."""
    with Connection(agent.socket) as connection:
        connection.open()
        poison = literal(b"x-poison-bin", b"!" * 200, first=0x40)
        connection.send(
            frame(HEADERS, END_HEADERS, 1, poison + call_headers(JWT)),
            frame(DATA, END_STREAM, 1, message(b"\x0a\x01a")),
        )
        kept = literal(b"workload.spiffe.io", b"false", first=0x40)
        bare = call_headers(JWT).replace(literal(b"workload.spiffe.io", b"true"), b"")
        connection.send(frame(HEADERS, END_HEADERS, 3, bare + kept), frame(DATA, END_STREAM, 3, message(b"\x0a\x01a")))
        connection.send(
            frame(HEADERS, END_HEADERS, 5, bare + b"\xbe"), frame(DATA, END_STREAM, 5, message(b"\x0a\x01a"))
        )
        connection.socket.settimeout(2.0)
        answered: set[int] = set()
        with contextlib.suppress(TimeoutError):
            for kind, _flags, stream, _body in connection.frames():
                if kind == DATA:
                    answered.add(stream)
    assert answered.isdisjoint({3, 5})


def test_CVE_2023_4785_connections_that_end_at_once(agent: AgentProcess, other: Wire) -> None:
    """Two thousand connections that are aborted after their preface leave no descriptor behind."""
    assert is_served(other)
    before = agent.open_files()
    for number in range(2_000):
        with Connection(agent.socket) as connection:
            connection.socket.send((PREFACE + frame(SETTINGS) + BEGIN)[: 24 + number % 100])
    assert is_served(other)
    before.await_closed("socket:", *PIDFD)


@pytest.mark.parametrize("window", [0, 1])
def test_windows_that_let_nothing_through(agent: AgentProcess, other: Wire, window: int) -> None:
    """Callers whose window takes no answer are held at little cost, and their end frees everything."""
    before = resident(agent)
    settings = b"\x00\x04" + window.to_bytes(4, "big")
    with contextlib.ExitStack() as stack, Admin(agent.admin_socket) as admin:
        for _ in range(10):
            connection = stack.enter_context(Connection(agent.socket))
            connection.open(settings)
            connection.send(
                *(
                    frame(HEADERS, END_HEADERS, stream, call_headers(X509))
                    + frame(DATA, END_STREAM, stream, message(b""))
                    for stream in range(1, 101, 2)
                )
            )
        until(lambda: len(admin.streams()) >= 500)
        assert is_served(other)
        assert resident(agent) - before < MEMORY
        stack.close()
        until(lambda: [] == admin.streams()[1:])


def test_answers_that_nobody_takes(agent: AgentProcess, other: Wire) -> None:
    """Calls whose answers wait for a window count among their user's streams: over those they are refused."""
    before = resident(agent)
    calls = b"".join(
        frame(HEADERS, END_HEADERS, stream, call_headers("/grpc.health.v1.Health/Check"))
        + frame(DATA, END_STREAM, stream, message(b""))
        for stream in range(1, 201, 2)
    )
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Connection(agent.socket)) for _ in range(STREAMS_PER_UID // 100 + 1)]
        for connection in held:
            connection.open(b"\x00\x04\x00\x00\x00\x00")
            connection.send(calls)
            assert ended(connection) == (100 if connection is held[-1] else 0)
        assert is_served(other)
        assert resident(agent) - before < MEMORY


def ended(connection: Connection) -> int:
    """How many streams have ended when what was sent has been worked off."""
    count = 0
    for _ in range(2):  # an answer to a PING may come before the last steps of calls that were sent before it
        connection.send(frame(PING, body=b"12345678"))
        for kind, flags, _, _ in connection.frames():
            if kind == PING:
                break
            count += kind == HEADERS and bool(flags & END_STREAM)
    return count


def test_a_window_that_wavers(agent: AgentProcess, other: Wire) -> None:
    """A window that is opened byte by byte and taken away again keeps nobody else waiting."""
    with Connection(agent.socket) as connection:
        connection.open(b"\x00\x04\x00\x00\x00\x00")
        connection.call(X509, b"")
        wavering = b"".join(
            frame(SETTINGS, body=b"\x00\x04" + size.to_bytes(4, "big")) + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01")
            for size in (1, 0, 65_535, 0)
        )
        flood(connection, wavering * 250, 20)
        assert is_served(other)


@pytest.mark.parametrize(
    ("flag", "size", "body"),
    [
        pytest.param(0, 0xFFFFFFFF, b"\x0a\x01a", id="four gigabytes said"),
        pytest.param(0, 300_000, b"\x0a\x01a", id="over the limit said"),
        pytest.param(0, 5, b"\x0a\x01a", id="cut short"),
        pytest.param(1, None, b"\x0a\x01a", id="compressed by nothing"),
        pytest.param(255, None, b"\x0a\x01a", id="unknown flags"),
        pytest.param(0, 1, b"\x0a\x01a", id="more than said"),
    ],
)
def test_message_prefixes(agent: AgentProcess, other: Wire, flag: int, size: int | None, body: bytes) -> None:
    """A message whose prefix is not true gets no identity."""
    with Connection(agent.socket) as connection:
        connection.open()
        connection.send(
            frame(HEADERS, END_HEADERS, 1, call_headers(JWT)),
            frame(DATA, END_STREAM, 1, message(body, flag=flag, size=size)),
        )
        connection.socket.settimeout(2.0)
        answers = []
        with contextlib.suppress(TimeoutError):
            answers = [body for kind, _, _, body in connection.frames() if kind == DATA and body]
    assert [] == answers
    assert is_served(other)


def test_silent_calls(agent: AgentProcess, other: Wire) -> None:
    """Calls that begin and never send their request are ended after a while, and keep nobody from being served."""
    paths = (JWT, X509, "/grpc.health.v1.Health/Check", "/sojourn.v1.Validation/ValidateToken")
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Connection(agent.socket)) for _ in paths]
        for connection, path in zip(held, paths, strict=True):
            connection.open()
            for stream in range(1, 101, 2):
                connection.send(frame(HEADERS, END_HEADERS, stream, call_headers(path)))
        assert is_served(other)
        for connection in held:
            ended = {
                stream for kind, flags, stream, _ in _some(connection, 50) if kind == HEADERS and flags & END_STREAM
            }
            assert set(range(1, 101, 2)) == ended


def _some(connection: Connection, ends: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Frames until so many streams have ended."""
    for each in connection.frames():
        yield each
        ends -= each[0] == HEADERS and bool(each[1] & END_STREAM)
        if not ends:
            return
