"""whole_writes.py: what is written of an answer goes out in one piece, and nothing of it waits or is lost."""

import asyncio

import pytest
from sojourn.endpoints.http1.whole_writes import WholeWrites


class Wire:
    """What is on a transport."""

    def __init__(self):
        self.pieces, self.closed = [], ""

    def write(self, data):
        self.pieces.append(bytes(data))

    def close(self):
        self.closed = "in order"

    def abort(self):
        self.closed = "at once"


@pytest.fixture
async def wire():
    return Wire()


async def test_two_writes_are_one(wire):
    """Head and body are written as one piece, at once."""
    whole = WholeWrites(wire)
    whole.write(b"head")
    assert [] == wire.pieces
    whole.write(bytearray(b"body"))
    assert [b"headbody"] == wire.pieces
    await asyncio.sleep(0)
    assert [b"headbody"] == wire.pieces


async def test_one_write_waits_for_no_other(wire):
    """What stands alone is written when the round of the loop is over, as the head of what is told bit by bit."""
    whole = WholeWrites(wire)
    whole.write(b"head")
    whole.write(b"")
    whole.write(b"")
    await asyncio.sleep(0)
    assert [b"head"] == wire.pieces


async def test_in_order(wire):
    """However many writes there are, they go out in their order, and no more than one is held."""
    whole, sent = WholeWrites(wire), [b"%d" % number for number in range(9)]
    for number, each in enumerate(sent):
        whole.write(each)
        assert (number + 1) // 2 * 2 == len(b"".join(wire.pieces))
    await asyncio.sleep(0)
    assert b"".join(sent) == b"".join(wire.pieces)


async def test_closed(wire):
    """What was written before the connection is closed goes out before; when it is cut off nothing more does."""
    whole = WholeWrites(wire)
    whole.write(b"last")
    whole.close()
    assert ([b"last"], "in order") == (wire.pieces, wire.closed)
    whole.write(b"late")
    whole.abort()
    await asyncio.sleep(0)
    assert ([b"last"], "at once") == (wire.pieces, wire.closed)
