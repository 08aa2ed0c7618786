"""http2/: calls that are made and answered, and what is no call."""

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.http2site import MESSAGE_MAX, PATH, answer, site
from harness.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    WINDOW_UPDATE,
    Connection,
    call_headers,
    frame,
    literal,
    message,
)
from hpack import Decoder
from sojourn.http2.frames import FRAME_BYTES
from sojourn.http2.limits import (
    METADATA_MAX_BYTES,
    STATUS_TEXT_MAX_BYTES,
)
from sojourn.http2.stream import Stream


class TestCalls:
    async def test_one(self, tmp_path: Path) -> None:
        """A call is answered with its head, its message and its status."""
        async with site(tmp_path) as here:
            data, fields = await here.within(lambda c: (c.call(PATH, b"hello"), answer(c))[1])
        assert message(b"hello") == data
        assert ("200", "application/grpc", "0") == (fields[":status"], fields["content-type"], fields["grpc-status"])

    @pytest.mark.parametrize("size", [0, 1, 9_000, 16_379, 16_380, 70_000, MESSAGE_MAX])
    async def test_sizes(self, tmp_path: Path, size: int) -> None:
        """Messages come whole and go whole, in as many frames as they take, through windows that open bit by bit."""
        content = os.urandom(size)

        def work(connection: Connection) -> tuple[bytes, int]:
            connection.send(frame(HEADERS, END_HEADERS, 1, call_headers(PATH)))
            whole = message(content)
            for start in range(0, len(whole), 10_000):
                connection.send(frame(DATA, 0, 1, whole[start : start + 10_000]))
            connection.send(frame(DATA, END_STREAM, 1))
            got, most = b"", 0
            for kind, flags, stream, body in connection.frames():
                if kind == DATA:
                    got, most = got + body, max(most, len(body))
                    if body:
                        more = len(body).to_bytes(4, "big")
                        connection.send(frame(WINDOW_UPDATE, 0, 0, more), frame(WINDOW_UPDATE, 0, 1, more))
                if flags & END_STREAM and stream == 1:
                    break
            return got, most

        async with site(tmp_path) as here:
            got, most = await here.within(work, b"\x00\x04" + (5_000).to_bytes(4, "big"))
            assert not here.server.held
        assert message(content) == got
        assert most <= 5_000

    async def test_at_once(self, tmp_path: Path) -> None:
        """What is sent at once is what there is room for then, on the stream and on the connection, and nothing later."""
        told: list[bool] = []

        async def try_all(stream: Stream) -> None:
            await stream.message()
            told.extend(
                stream.send_now(bytes(size)) for size in (96, 95, 1)
            )  # five bytes more with what is before each
            stream.window += 1_000
            told.append(stream.send_now(bytes(FRAME_BYTES)))
            stream.end()
            told.append(stream.send_now(b"x"))

        async with site(tmp_path, try_all) as here:
            data, fields = await here.within(
                lambda c: (c.call(PATH, b""), answer(c))[1], b"\x00\x04" + (100).to_bytes(4, "big")
            )
            assert [False, True, False, False, False] == told
            assert (message(bytes(95)), "0") == (data, fields["grpc-status"])
            await here.within(lambda c: (c.call(PATH, b""), answer(c))[1])
            assert [True, True, True, False, False] == told[5:]

    async def test_at_once_on_a_full_connection(self, tmp_path: Path) -> None:
        """A stream with room on a connection that has none sends nothing at once, and what it waits to send later."""
        told: list[bool] = []

        async def fill(stream: Stream) -> None:
            await stream.message()
            told.extend(stream.send_now(bytes(FRAME_BYTES - 5)) for _ in range(5))
            await stream.answer(b"behind")

        def work(connection: Connection) -> bytes:
            connection.call(PATH, b"")
            got = b""
            for kind, flags, stream, body in connection.frames():
                got += body if kind == DATA else b""
                if kind == DATA and len(got) == 3 * FRAME_BYTES:
                    connection.send(frame(WINDOW_UPDATE, 0, 0, (100).to_bytes(4, "big")))
                if flags & END_STREAM and stream == 1 and kind in {DATA, HEADERS}:
                    break
            return got

        async with site(tmp_path, fill) as here:
            got = await here.within(work, b"\x00\x04" + (1 << 20).to_bytes(4, "big"))
        assert [True, True, True, False, False] == told
        assert message(b"behind") == got[3 * FRAME_BYTES :]

    async def test_messages_in_any_pieces(self, tmp_path: Path) -> None:
        """A stream of messages is read as sent, however its frames cut it."""
        sent = [os.urandom(size) for size in (0, 3, 70, 0, 500)]

        async def count(stream: Stream) -> None:
            while (content := await stream.message()) is not None:
                await stream.send(content)
            stream.end()

        async with site(tmp_path, count) as here:
            for size in (1, 4, 5, 6, 100):

                def work(connection: Connection, size: int = size) -> bytes:
                    connection.send(frame(HEADERS, END_HEADERS, 1, call_headers(PATH)))
                    whole = b"".join(map(message, sent))
                    for start in range(0, len(whole), size):
                        connection.send(frame(DATA, 0, 1, whole[start : start + size]))
                    connection.send(frame(DATA, END_STREAM, 1))
                    return answer(connection)[0]

                assert b"".join(map(message, sent)) == await here.within(work)

    async def test_a_peer_without_a_table(self, tmp_path: Path) -> None:
        """A client that allows no table is told in the first block that there is none, as it must be (RFC 7541, 4.2)."""

        def work(connection: Connection) -> list[tuple[str, str]]:
            connection.call(PATH, b"a")
            connection.call("/a/c", b"a", 3)
            decoder, fields = Decoder(), []
            decoder.max_allowed_table_size = 0
            for kind, flags, stream, body in connection.frames():
                fields += [(str(n), str(v)) for n, v in decoder.decode(body)] if kind == HEADERS else []
                if stream == 3 and flags & END_STREAM:
                    break
            return fields

        async with site(tmp_path) as here:
            fields = await here.within(work, b"\x00\x01" + bytes(4))
        assert ["0", "12"] == [value for name, value in fields if name == "grpc-status"]

    async def test_statuses(self, tmp_path: Path) -> None:
        """An error's text comes as it is, percent-encoded on the wire, and cut where it is long."""
        text = "Grüße: 100 %\n" + "é" * STATUS_TEXT_MAX_BYTES

        async def refuse(stream: Stream) -> None:
            stream.fail(7, text, [("sojourn-code", "refused")])

        async with site(tmp_path, refuse) as here:
            _, fields = await here.within(lambda c: (c.call(PATH, b""), answer(c))[1])
        assert ("7", "refused") == (fields["grpc-status"], fields["sojourn-code"])
        assert fields["grpc-message"].startswith("Gr%C3%BC%C3%9Fe: 100 %25%0A%C3%A9")
        assert fields["grpc-message"].isascii()

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({b":method": b"GET"}, "405"),
            ({b"content-type": b"text/html"}, "415"),
            ({b"content-type": b"application/grpc-web+proto"}, "415"),
            ({b"content-type": b"application/grpc+proto"}, "200"),
        ],
    )
    async def test_what_is_no_call(self, tmp_path: Path, fields: dict[bytes, bytes], status: str) -> None:
        """Requests that are none of gRPC are answered by HTTP's own statuses."""
        async with site(tmp_path) as here:
            assert status == (await here.within(lambda c: (c.call(PATH, b"", 1, fields), answer(c))[1]))[1][":status"]

    async def test_texts_that_are_no_unicode(self, tmp_path: Path) -> None:
        """Half of a surrogate pair, which JSON may hold, keeps no error from being told."""

        async def refuse(stream: Stream) -> None:
            stream.fail(7, "a\ud800b")

        async with site(tmp_path, refuse) as here:
            assert "a?b" == (await here.within(lambda c: (c.call(PATH, b""), answer(c))[1]))[1]["grpc-message"]

    async def test_unknown_methods(self, tmp_path: Path) -> None:
        """A method that is not there is UNIMPLEMENTED."""
        async with site(tmp_path) as here:
            assert "12" == (await here.within(lambda c: (c.call("/a/c", b""), answer(c))[1]))[1]["grpc-status"]

    async def test_packed_requests(self, tmp_path: Path) -> None:
        """gzip and deflate are unpacked up to the limit; what is not whole, or packed otherwise, is refused."""
        packed = {b"grpc-encoding": b"gzip"}

        def asking(content: bytes, extra: dict[bytes, bytes]) -> Callable[[Connection], Any]:
            def work(connection: Connection) -> Any:
                connection.send(
                    frame(HEADERS, END_HEADERS, 1, call_headers(PATH, extra)),
                    frame(DATA, END_STREAM, 1, message(content, flag=1)),
                )
                return answer(connection)

            return work

        async with site(tmp_path) as here:
            for content, extra in (
                (gzip.compress(b"a" * 60_000), packed),
                (zlib.compress(b"a" * 60_000), {b"grpc-encoding": b"deflate"}),
            ):
                assert message(b"a" * 60_000) == (await here.within(asking(content, extra)))[0]
            for content, extra, status in (
                (gzip.compress(b"a" * (MESSAGE_MAX + 1)), packed, "8"),
                (b"no gzip", packed, "3"),
                (gzip.compress(b"abc")[:-3], packed, "3"),
                (gzip.compress(b"a"), {}, "12"),
                (gzip.compress(b"a"), {b"grpc-encoding": b"br"}, "12"),
            ):
                assert status == (await here.within(asking(content, extra)))[1]["grpc-status"]
            assert not here.server.held

    async def test_too_much_metadata(self, tmp_path: Path) -> None:
        """A call with too much metadata is refused, and the next on the connection is answered."""

        def work(connection: Connection) -> Any:
            connection.send(
                frame(HEADERS, 0, 1, call_headers(PATH)),
                frame(9, END_HEADERS, 1, literal(b"x", b"a" * (METADATA_MAX_BYTES - 200), first=0x40)),
            )
            first = answer(connection)
            connection.call(PATH, b"next", 3)
            return first[1]["grpc-status"], answer(connection, 3)[0]

        async with site(tmp_path) as here:
            assert ("8", message(b"next")) == await here.within(work)
