"""http2/headers.py and server.py: what the head of a request says, and who answers it."""

import pytest
from fakes.http2host import LoneHost
from harness.http2 import literal
from hpack import Encoder
from sojourn.http2 import server as server_module
from sojourn.http2.headers import BadBlock, Head, Heads
from sojourn.http2.limits import (
    FIELD_HELD_BYTES,
    HEADER_BLOCK_MAX_BYTES,
    HEADS_KEPT,
    HEADS_KEPT_BYTES,
    METADATA_MAX_BYTES,
)

PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b")]
KIND = (b"content-type", b"application/grpc")


def head(*fields, pseudo=PSEUDO):
    return Heads().read(b"".join(literal(*field) for field in (*pseudo, *fields)))


class TestSays:
    def test_all_of_it(self):
        """Method, path, type, packing, length, deadline and all fields in order are told."""
        fields = (
            KIND, (b"grpc-encoding", b"gzip"), (b"content-length", b"12"), (b"grpc-timeout", b"2S"), (b"x", b"1"), (b"x", b"2"),
        )  # fmt: skip
        found = head(*fields)
        held = sum(len(name) + len(value) for name, value in (*PSEUDO, *fields)) + 3 * 32 + 6 * FIELD_HELD_BYTES
        expected = Head(b"POST", "/a/b", KIND[1], b"gzip", 12, 2.0, fields, held=held)
        assert expected == found
        assert ([b"1", b"2"], []) == (found.values(b"x"), found.values(b"y"))

    def test_the_least(self):
        """A head that says nothing else is of no type, not packed, and without length and deadline."""
        assert Head(b"POST", "/a/b", b"", b"identity", None, None, (), held=31 + 3 * 32) == head()

    def test_a_path_of_any_bytes(self):
        """Each byte of a path is one character."""
        assert "/\xff" == head(pseudo=[*PSEUDO[:2], (b":path", b"/\xff")]).path

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (b"3H", 10_800),
            (b"3M", 180),
            (b"3S", 3),
            (b"3m", 0.003),
            (b"3u", 3e-6),
            (b"3n", 3e-9),
            (b"99999999S", 99_999_999),
        ],
    )
    def test_units(self, value, seconds):
        """A deadline is told in seconds, whatever its unit."""
        assert pytest.approx(seconds) == head((b"grpc-timeout", value)).timeout

    @pytest.mark.parametrize("value", [b"3s", b"3", b"S", b"3 S", b"999999999S", b"3S3", b"0x3S"])
    def test_no_deadline(self, value):
        """What is no deadline is none."""
        assert head((b"grpc-timeout", value)).timeout is None

    @pytest.mark.parametrize(("beyond", "oversized"), [(0, False), (1, True)])
    def test_size(self, beyond, oversized):
        """Metadata has so many bytes at most: those of each name and value, and 32 for each field."""
        used = sum(len(name) + len(value) + 32 for name, value in PSEUDO) + 1 + 32
        assert oversized is head((b"x", b"a" * (METADATA_MAX_BYTES - used + beyond))).oversized

    def test_length(self):
        """A length has eighteen digits at most."""
        assert 10**18 - 1 == head((b"content-length", b"9" * 18)).length
        assert head((b"content-length", b"9" * 19)).malformed


class TestMalformed:
    @pytest.mark.parametrize(
        "field",
        [
            *((name, b"x") for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")),
            *((name, b"x") for name in (b"", b"A", b"a b", b"a:", b"\xc3\xa4", b"a\0")),
            *((b"x", value) for value in (b"a\rb", b"a\nb", b"a\0b", b"\n")),
            *((b"content-length", value) for value in (b"", b"+1", b"1 ", b"0x1", b"1,1")),
            (b"te", b"deflate"),
            (b":path", b"/again"),
            (b":status", b"200"),
            (b":authority", b"behind others"),
        ],
    )  # fmt: skip
    def test_field(self, field):
        """A field that no request of HTTP/2 has makes it malformed, and nothing else is told of it."""
        fields = [(b"x", b"1"), field] if field[0] == b":authority" else [field]
        assert Head(malformed=True) == head(*fields)

    @pytest.mark.parametrize("field", [(b"te", b"trailers"), (b"!#$%&'*+-.^_`|~09az", b""), (b"x", b"\x01\xff\t ")])
    def test_good_field(self, field):
        """Any other field is taken as it is."""
        assert (field,) == head(field).fields

    @pytest.mark.parametrize("name", [name for name, _ in PSEUDO])
    def test_lacking(self, name):
        """A request has a method, a scheme and a path."""
        assert head(pseudo=[each for each in PSEUDO if each[0] != name]).malformed

    def test_an_empty_path(self):
        """A path is not empty."""
        assert head(pseudo=[*PSEUDO[:2], (b":path", b"")]).malformed

    def test_bad_value_of_a_pseudo_field(self):
        """A line end within a path makes it malformed, too."""
        assert head(pseudo=[*PSEUDO[:2], (b":path", b"/\r\n")]).malformed


class TestBlocks:
    def test_too_large(self):
        """A block that says more than any call may ends the connection."""
        with pytest.raises(BadBlock, match=str(HEADER_BLOCK_MAX_BYTES)):
            head((b"x", b"a" * (HEADER_BLOCK_MAX_BYTES + 1)))

    def test_kept(self):
        """So many heads of short blocks are kept, those of nothing but references, until the table changes."""
        heads = Heads()
        heads.read(literal(b"x", b"1", first=0x40))
        blocks = [b"\x83\x86\x84" + b"\xbe" * number for number in range(HEADS_KEPT + 1)]
        found = [heads.read(block) for block in blocks[:-1]]
        assert all(one is heads.read(block) for one, block in zip(found, blocks, strict=False))
        heads.read(blocks[-1])
        assert heads.read(blocks[0]) is not found[0]
        long = b"\x83\x86\x84" + b"\xbe" * (HEADS_KEPT_BYTES - 3)
        assert heads.read(long) is heads.read(long)
        assert heads.read(long + b"\xbe") is not heads.read(long + b"\xbe")
        kept = heads.read(long)
        heads.read(blocks[0] + b"\x00\x01x\x011")
        assert heads.read(long) is not kept

    def test_that_are_not_only_references(self):
        """A block with anything but references is read each time: it may change the table."""
        for block in (literal(*PSEUDO[0]) + b"\x86\x84", b"\x20\x83\x86\x84"):
            heads = Heads()
            assert heads.read(block) is not heads.read(block)
        with pytest.raises(BadBlock):
            Heads().read(b"\x83\x86\x84\xff\x00\x80")

    def test_nothing(self):
        """A block of nothing is a malformed request, each time."""
        heads = Heads()
        assert (Head(malformed=True), Head(malformed=True)) == (heads.read(b""), heads.read(b""))

    def test_huffman(self):
        """What is packed by Huffman's code reads the same."""
        assert head(KIND) == Heads().read(Encoder().encode([*PSEUDO, KIND], huffman=True))


async def ours(_stream):
    raise AssertionError


class TestServer:
    @pytest.mark.parametrize(
        ("said", "handler"),
        [
            ({}, ours),
            ({"content_type": b"application/grpc+proto"}, ours),
            ({"content_type": b"application/grpc;charset=utf-8"}, ours),
            ({"content_type": b"application/grpc-web"}, server_module._no_grpc),
            ({"content_type": b"application/grpcx"}, server_module._no_grpc),
            ({"content_type": b"text/application/grpc"}, server_module._no_grpc),
            ({"content_type": b""}, server_module._no_grpc),
            ({"method": b"GET"}, server_module._no_grpc),
            ({"method": b"post"}, server_module._no_grpc),
            ({"oversized": True}, server_module._oversized),
            ({"oversized": True, "method": b"GET"}, server_module._no_grpc),
            ({"path": "/a/c"}, server_module._unknown),
            ({"path": "/a/b/"}, server_module._unknown),
        ],
    )
    def test_who_answers(self, said, handler):
        """A call of gRPC is answered by the handler of its path, and what is none by the reason for which it is none."""
        fields = {"method": b"POST", "path": "/a/b", "content_type": KIND[1], **said}
        assert handler is LoneHost({"/a/b": ours}).server.handler(Head(**fields))

    async def test_what_is_said(self):
        """What is no call, too large or unknown is told by status and text."""

        class Stream:
            def __init__(self, **fields):
                self.head, self.said = Head(**fields), None

            def refuse(self, status):
                self.said = status

            def fail(self, status, text):
                self.said = status, text

        for handler, fields, said in (
            (server_module._no_grpc, {"method": b"GET"}, 405),
            (server_module._no_grpc, {"method": b"POST"}, 415),
            (server_module._oversized, {}, (8, f"the call's metadata takes more than {METADATA_MAX_BYTES} bytes")),
            (server_module._unknown, {"path": "/" + "x" * 300}, (12, f"unknown method /{'x' * 199}")),
        ):
            stream = Stream(**fields)
            await handler(stream)
            assert said == stream.said
