"""http2/: heads of calls, packed as HPACK has it."""

import random

import pytest
from fakes.http2site import REQUEST
from harness.http2 import (
    literal,
)
from hpack import Decoder, Encoder
from sojourn.http2.headers import BadBlock, Heads


class TestHeads:
    def block(self, encoder: Encoder, *more: tuple[bytes, bytes]) -> bytes:
        return encoder.encode([*REQUEST, *more])

    def test_the_same_block_again(self) -> None:
        """A block of references alone is read once, and says the same while the table stays as it is."""
        heads, encoder = Heads(), Encoder()
        first = heads.read(self.block(encoder))
        again = self.block(encoder)
        assert first == heads.read(again)
        assert heads.read(again) is heads.read(again)

    @pytest.mark.parametrize("seed", range(20))
    def test_as_the_library_says(self, seed: int) -> None:
        """Whatever a caller repeats and changes, each block is read as hpack itself reads it."""
        dice = random.Random(seed)
        heads, encoder, decoder = Heads(), Encoder(), Decoder()
        for _ in range(200):
            size = dice.choice([None, None, None, 0, 64, 4096])
            if size is not None:
                encoder.header_table_size = size
            more = [(b"x-" + bytes([dice.choice(b"abc")]), dice.choice([b"1", b"2"])) for _ in range(dice.randrange(3))]
            block = self.block(encoder, *more)
            found, fields = heads.read(block), decoder.decode(block, raw=True)
            assert [field for field in fields if not field[0].startswith(b":")] == list(found.fields)
            assert ("/a/b", b"POST") == (found.path, found.method)

    def test_a_table_that_has_changed(self) -> None:
        """The very same bytes say something else when the table has changed in between."""
        heads = Heads()
        heads.read(literal(b"x", b"1", first=0x40))
        bare = b"\x83\x86\x84"  # POST, http, /
        assert ((b"x", b"1"),) == heads.read(bare + b"\xbe").fields
        heads.read(literal(b"x", b"2", first=0x40))
        assert ((b"x", b"2"),) == heads.read(bare + b"\xbe").fields

    @pytest.mark.parametrize(
        "fields",
        [
            REQUEST[1:],
            [REQUEST[0], *REQUEST],
            [*REQUEST, (b":path", b"/c")],
            [*REQUEST, (b"x", b"1"), (b":authority", b"a")],
            [*REQUEST, (b":status", b"200")],
            [*REQUEST, (b"X-Upper", b"1")],
            [*REQUEST, (b"connection", b"close")],
            [*REQUEST, (b"te", b"gzip")],
            [*REQUEST, (b"x", b"a\r\nb")],
            [*REQUEST, (b"content-length", b"-1")],
            [*REQUEST, (b"", b"1")],
        ],
    )
    def test_malformed(self, fields: list[tuple[bytes, bytes]]) -> None:
        """What RFC 9113 (8.2, 8.3) forbids in a request is told as such."""
        assert Heads().read(Encoder().encode(fields)).malformed

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (b"1S", 1),
            (b"250m", 0.25),
            (b"99999999n", 0.099999999),
            (b"2H", 7200),
            (b"", None),
            (b"1", None),
            (b"-1S", None),
            (b"123456789S", None),
        ],
    )
    def test_deadlines(self, value: bytes, seconds: float | None) -> None:
        """A deadline is a number of at most eight digits and its unit; anything else is none."""
        found = Heads().read(Encoder().encode([*REQUEST, (b"grpc-timeout", value)])).timeout
        assert found == (None if seconds is None else pytest.approx(seconds))

    def test_what_is_no_block(self) -> None:
        """A block that cannot be decoded ends the connection, since what follows stands on it."""
        with pytest.raises(BadBlock):
            Heads().read(b"\xff\xff\xff\xff\xff\xff")

    def test_a_table_that_is_resized_again_and_again(self) -> None:
        """A block may change the size of the table twice (RFC 7541, 4.2), and not ten thousand times."""
        block = Encoder().encode(REQUEST)
        assert Heads().read(b"\x20" + b"\x3f\xe1\x1f" + block).path == "/a/b"
        for size in (b"\x20", b"\x3f\xe1\x1f", b"\x3e"):
            with pytest.raises(BadBlock):
                Heads().read(size * 3 + block)
