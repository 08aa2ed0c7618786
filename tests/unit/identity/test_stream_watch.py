"""stream_watch.py: a process that changes is noticed, however long its streams stay silent."""

import asyncio
from time import monotonic

import pytest
from fakes.children import child, peer_of
from sojourn.attestation.attestor import Attested
from sojourn.attestation.process import Process
from sojourn.identity import stream_watch as lookout_module
from sojourn.identity.stream_watch import Lookout
from sojourn.identity.streams import IdentityStream

DEADLINE_SECONDS = 20


class Held:
    """Streams of one process, as Streams gives them."""

    def __init__(self, peer, count=1):
        attested = Attested(frozenset(), {}, {}, 0.0, peer.process.cgroup())
        self.streams = [IdentityStream("FetchX509SVID", peer, attested, (), None) for _ in range(count)]

    def woken(self):
        return [stream.changed for stream in self.streams]


class Everyone:
    def __init__(self, *held):
        self.held = held

    def by_process(self):
        return [each.streams for each in self.held]


@pytest.fixture
def running():
    with child("sh", "-c", "read line; exec sleep 60") as process:
        yield process


@pytest.fixture
def held(running):
    peer = peer_of(running)
    yield Held(peer, 3)
    peer.close()


@pytest.fixture
def other():
    with child() as process:
        peer = peer_of(process)
        yield Held(peer)
        peer.close()


async def test_nothing_new(held):
    """Streams of a process that is what it was are left alone."""
    await Lookout(Everyone(held)).look()
    assert [False] * 3 == held.woken()


async def test_another_program(held, other, running):
    """All streams of a process that has executed another program are woken, and nobody else's."""
    before = held.streams[0].peer.process.program()
    running.stdin.write(b"go\n")
    running.stdin.flush()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while held.streams[0].peer.process.program() == before:
            await asyncio.sleep(0.01)
    await Lookout(Everyone(held, other)).look()
    assert ([True] * 3, [False]) == (held.woken(), other.woken())


async def test_another_cgroup(held, monkeypatch):
    """All streams of a process that has moved are woken."""
    monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
    await Lookout(Everyone(held)).look()
    assert [True] * 3 == held.woken()


async def test_one_that_has_gone(held, other, running, monkeypatch):
    """A process that is gone keeps nobody from looking at the others."""
    running.kill()
    running.wait()
    monkeypatch.setattr(other.streams[0].peer, "program", None)
    await Lookout(Everyone(held, other)).look()
    assert ([False] * 3, [True]) == (held.woken(), other.woken())


async def test_one_that_was_silent_for_long(held, monkeypatch):
    """A stream whose caller is due to be attested again is woken, and no other of its process."""
    held.streams[1].due = monotonic()
    await Lookout(Everyone(held)).look()
    assert [False, True, False] == held.woken()


async def test_one_that_has_closed_all(held, other, monkeypatch):
    """A process that has closed its streams while others were looked at is passed over."""
    monkeypatch.setattr(other.streams[0].peer, "program", None)
    held.streams.clear()
    await Lookout(Everyone(held, other)).look()
    assert [True] == other.woken()


async def test_each_process_once(held, monkeypatch):
    """However many streams a process holds, it is looked at once."""
    looked = []
    monkeypatch.setattr(Process, "cgroup", lambda process: looked.append(process.pid))
    await Lookout(Everyone(held)).look()
    assert [held.streams[0].peer.process.pid] == looked


async def test_others_have_a_turn(held, other, monkeypatch):
    """Looking at many processes does not keep the event loop to itself."""
    monkeypatch.setattr(lookout_module, "PROCESSES_LOOKED_AT_ONCE", 1)
    monkeypatch.setattr(other.streams[0].peer, "program", None)
    looking = asyncio.ensure_future(Lookout(Everyone(held, other)).look())
    await asyncio.sleep(0)
    assert [False] == other.woken()
    await looking
    assert [True] == other.woken()


async def test_again_and_again(held, monkeypatch):
    """The lookout goes on looking until it is cancelled."""
    monkeypatch.setattr(lookout_module, "STREAMS_LOOKED_AT_SECONDS", 0.01)
    running = asyncio.ensure_future(Lookout(Everyone(held)).run())
    await asyncio.sleep(0.02)
    monkeypatch.setattr(held.streams[0].peer, "program", None)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await held.streams[0].next_change()
    running.cancel()
    await asyncio.wait([running])
