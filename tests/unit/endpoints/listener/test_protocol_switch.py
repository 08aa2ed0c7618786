"""protocol_switch.py: a connection is left to the protocol that its first bytes tell, and ended when the door says."""

import asyncio

import pytest
from fakes.doorways import shares
from harness.looking import idle
from sojourn.endpoints.listener import protocol_switch
from sojourn.endpoints.listener.protocol_switch import Caller, Doorway
from sojourn.http2.connection import Connection
from sojourn.http2.frames import GREETING, PREFACE
from sojourn.http2.server import Server

SETTINGS = bytes(3) + b"\x04" + bytes(5)


class Visitor:
    who = 7
    details: dict[str, str] = {}  # noqa: RUF012


class Transport(asyncio.Transport):
    """Keeps what is written, and says what was done with it."""

    def __init__(self):
        super().__init__()
        self.written, self.done = b"", []

    def write(self, data):
        self.written += data

    def abort(self):
        self.done.append("abort")

    def close(self):
        self.done.append("close")

    def is_closing(self):
        return bool(self.done)

    def pause_reading(self):
        self.done.append("pause")

    def resume_reading(self):
        self.done.append("resume")


class Plain(asyncio.Protocol):
    """Keeps all that it is told."""

    def __init__(self):
        self.told = []

    def connection_made(self, transport):
        self.told.append(("made", transport))

    def data_received(self, data):
        self.told.append(("data", data))

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")

    def eof_received(self):
        self.told.append("eof")
        return True

    def connection_lost(self, error):
        self.told.append(("lost", error))


class Door(Doorway):
    """`plain` answers what is no HTTP/2; `visitor` None: nobody may come in."""

    def __init__(self, *, serves=True, plain=None, visitor=Visitor):
        super().__init__()
        self.server = Server({}, message_max=100, **shares()) if serves else None
        self.plain, self.visitor, self.left = plain, visitor and visitor(), []

    def enter(self, caller, transport):
        if self.visitor is not None:
            self._callers.add(caller)
        return self.visitor

    def leave(self, caller, peer):
        self._callers.discard(caller)
        self.left.append(peer)

    def http_protocol(self, peer):
        return self.plain if self.plain is not None else super().http_protocol(peer)


def came(door):
    caller, transport = Caller(door), Transport()
    caller.connection_made(transport)
    return caller, transport


class TestFirstBytes:
    @pytest.mark.parametrize("size", [1, 5, len(PREFACE) - 1, len(PREFACE), 100])
    async def test_http2(self, size):
        """Whoever begins with the preface of HTTP/2, in whatever pieces, is greeted by it; nothing of it is lost."""
        caller, transport = came(Door(plain=Plain()))
        sent = PREFACE + SETTINGS
        for start in range(0, len(sent), size):
            assert not transport.written or start >= len(PREFACE)
            caller.data_received(sent[start : start + size])
        await idle()
        assert isinstance(caller._protocol, Connection)
        assert (True, True, []) == (
            transport.written.startswith(GREETING),
            len(transport.written) > len(GREETING),
            transport.done,
        )
        caller.connection_lost(None)

    @pytest.mark.parametrize("first", [b"G", b"GET / HTTP/1.1\r\n", PREFACE[:-1] + b"x", PREFACE[:10] + b"X"])
    async def test_another(self, first):
        """Whoever begins otherwise is left to the other protocol, with all that has come."""
        plain = Plain()
        caller, transport = came(Door(plain=plain))
        for byte in first:
            caller.data_received(bytes((byte,)))
        caller.data_received(b"more")
        assert ("made", transport) == plain.told[0]
        assert first + b"more" == b"".join(data for _, data in plain.told[1:])
        caller.connection_lost(None)

    @pytest.mark.parametrize(
        ("door", "first"),
        [(Door, b"GET"), (lambda: Door(serves=False, plain=Plain()), PREFACE)],
        ids=["http1", "http2"],
    )
    async def test_that_nobody_answers(self, door, first):
        """A protocol that this door does not speak ends the connection without a word."""
        caller, transport = came(door())
        caller.data_received(first)
        assert (["abort"], b"") == (transport.done, transport.written)

    async def test_of_nobody(self):
        """Of whoever may not come in nothing is read, and the connection ends at once."""
        door = Door(visitor=None, plain=Plain())
        caller, transport = came(door)
        assert ["abort"] == transport.done
        caller.data_received(b"GET")
        caller.connection_lost(None)
        assert ([], []) == (door.plain.told, door.left)

    async def test_that_do_not_come(self, monkeypatch):
        """Whoever does not say what it speaks in time is sent away, and whoever does is not."""
        monkeypatch.setattr(protocol_switch, "FIRST_BYTES_SECONDS", 0.02)
        door = Door(plain=Plain())
        silent, slow, quick, gone = (came(door) for _ in range(4))
        slow[0].data_received(PREFACE[:5])
        quick[0].data_received(b"GET")
        gone[0].connection_lost(None)
        await asyncio.sleep(0.1)
        assert [["abort"], ["abort"], [], []] == [transport.done for _, transport in (silent, slow, quick, gone)]
        quick[0].connection_lost(None)


class TestPassedOn:
    async def test_all_that_happens(self):
        """What happens to the connection is told to its protocol, and its end to the door, once."""
        plain = Plain()
        door = Door(plain=plain)
        caller, transport = came(door)
        assert 1 == door.connections
        caller.data_received(b"GET")
        caller.pause_writing()
        caller.resume_writing()
        assert True is caller.eof_received()
        error = OSError("gone")
        caller.connection_lost(error)
        assert [("made", transport), ("data", b"GET"), "pause", "resume", "eof", ("lost", error)] == plain.told
        caller.connection_lost(None)
        assert ([door.visitor], 0) == (door.left, door.connections)
        caller.abort()
        assert [] == transport.done

    async def test_before_it_has_spoken(self):
        """Of a connection that has not said what it speaks, only its end is told."""
        door = Door()
        caller, _ = came(door)
        caller.pause_writing()
        caller.resume_writing()
        assert False is caller.eof_received()
        caller.connection_lost(None)
        assert [door.visitor] == door.left


class TestEnd:
    async def test_close(self):
        """A door that closes ends every connection at once."""
        door = Door(plain=Plain())
        transports = [came(door)[1] for _ in range(3)]
        door.close()
        assert [["abort"]] * 3 == [each.done for each in transports]

    async def test_drain(self):
        """A door that drains says goodbye where the protocol has a word for it, and ends the others."""
        door = Door(plain=Plain())
        door.quiet_seconds = 0.001
        (http2, one), (_, other) = came(door), came(door)
        http2.data_received(PREFACE + SETTINGS)
        await idle()
        before = one.written
        await door.drain()
        assert door.server.deaf
        assert (["close", "abort"], ["abort", "abort"]) == (one.done, other.done)
        assert b"\x07" == one.written[len(before) + 3 : len(before) + 4]  # GOAWAY

    async def test_drain_waits_for_calls(self):
        """Calls that are under way are waited for, as long as the grace lasts."""
        door = Door()
        door.quiet_seconds, door.grace_seconds = 0.01, 20.0
        _, transport = came(door)
        door.server.streams = 1
        draining = asyncio.ensure_future(door.drain())
        await asyncio.sleep(0.05)
        assert (False, []) == (draining.done(), transport.done)
        door.server.streams = 0
        await draining
        assert ["abort", "abort"] == transport.done

    async def test_drain_does_not_wait_for_ever(self):
        """Calls that do not end are not waited for beyond the grace."""
        door = Door()
        door.quiet_seconds, door.grace_seconds = 0.01, 0.05
        _, transport = came(door)
        door.server.streams = 1
        async with asyncio.timeout(20):
            await door.drain()
        assert ["abort", "abort"] == transport.done

    async def test_drain_without_http2(self):
        """A door that serves nothing over HTTP/2 ends its connections."""
        door = Door(serves=False, plain=Plain())
        _, transport = came(door)
        await door.drain()
        assert ["abort", "abort"] == transport.done
