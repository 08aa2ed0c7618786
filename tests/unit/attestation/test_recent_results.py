"""recent_results.py: what was proved of a process serves its other connections for a moment, and nobody else's."""

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
from fakes.attestations import FakeAttestor
from fakes.children import child, peer_of
from fakes.clock import FakeClock
from fakes.registrations import selectors
from sojourn.attestation import recent_results as shared_module
from sojourn.attestation.process import Process
from sojourn.attestation.recent_results import Shared
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed
from sojourn.limits import ATTESTATION_SHARED_SECONDS

DEADLINE_SECONDS = 20
EXECS = "import os,sys; print(flush=True); sys.stdin.readline(); os.execvp('sleep', ['sleep', '60'])"


class Room:
    """A process with any number of connections."""

    def __init__(self, process):
        self.process = process
        self.clock = FakeClock()
        self.attestor = FakeAttestor({"uid:1"})
        self.attestation = Attestation({"unix": self.attestor}, self.clock)
        self.closing = ExitStack()

    def connection(self, **changes):
        peer = replace(peer_of(self.process), **changes)
        self.closing.callback(peer.close)
        return peer

    async def attest(self, **changes):
        return await self.attestation.attest(self.connection(**changes))


@pytest.fixture
def room():
    with child() as process:
        room = Room(process)
        if Shared(room.clock)._anonymous == shared_module._file(room.connection().process.pidfd):
            pytest.skip("this kernel does not number processes: nothing is shared (before Linux 6.9)")
        yield room
        room.closing.close()


async def test_serves_another_connection(room):
    """A process that connects again at once is not attested again."""
    first = await room.attest()
    assert first is await room.attest()
    assert 1 == len(room.attestor.asked)


async def test_not_for_long(room):
    """A moment later it is attested anew, and what is found is what counts for that connection."""
    await room.attest()
    room.attestor.values = frozenset({"uid:2"})
    room.clock.advance(ATTESTATION_SHARED_SECONDS)
    assert selectors("unix:uid:2") == (await room.attest()).selectors


async def test_does_not_stay_fresh_for_longer(room):
    """What was proved is as old for the other connection as it is."""
    first = await room.attest()
    room.clock.advance(ATTESTATION_SHARED_SECONDS / 2)
    assert first.at == (await room.attest()).at


async def test_not_for_another_process(room):
    """A process with the same ids and the same program in the same cgroup is another process."""
    await room.attest()
    with child() as other:
        peer = peer_of(other)
        await room.attestation.attest(peer)
        peer.close()
    assert [room.process.pid, other.pid] == [asked.pid for asked in room.attestor.asked]


@pytest.mark.parametrize("change", [{"uid": 7}, {"gid": 7}, {"program": None}])
async def test_not_for_one_that_was_something_else_at_its_connect(room, change):
    """Of a connection with other ids or another program nothing is known, and it is refused as ever."""
    await room.attest()
    peer = room.connection(**change)
    assert room.attestation._shared.get(peer) is None
    with pytest.raises(AttestationFailed):
        await room.attestation.attest(peer)


async def test_not_with_other_groups(room):
    """A connection that was made in other groups is attested by itself."""
    await room.attest()
    assert room.attestation._shared.get(room.connection(groups=frozenset({7}))) is None


async def test_not_in_another_cgroup(room, monkeypatch):
    """A process that has moved since is attested anew for its next connection."""
    await room.attest()
    monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
    await room.attest()
    assert 2 == len(room.attestor.asked)


async def test_not_for_another_program():
    """A process that has become another program is attested anew for its next connection, and not on the old one."""
    with child(sys.executable, "-c", EXECS) as process:
        process.stdout.readline()
        room = Room(process)
        with room.closing:
            before = room.connection()
            await room.attestation.attest(before)
            process.stdin.write(b"\n")
            process.stdin.flush()
            async with asyncio.timeout(DEADLINE_SECONDS):
                while before.process.program() == before.program:
                    await asyncio.sleep(0.01)
            await room.attest()
            with pytest.raises(AttestationFailed, match="connect again"):
                await room.attestation.attest(before)
            assert 2 == len(room.attestor.asked)


async def test_not_for_one_that_has_gone(room):
    """Of a process that has ended nothing is said, also on a connection that came before."""
    await room.attest()
    peer = room.connection()
    room.process.kill()
    room.process.wait()
    with pytest.raises(AttestationFailed, match="gone"):
        await room.attestation.attest(peer)


async def test_not_if_one_could_not_tell(room):
    """Where an attestor could not tell, it is asked again for the next connection."""
    room.attestor.untold = {"path": "slow"}
    await room.attest()
    room.attestor.untold = {}
    assert not (await room.attest()).failures


async def test_not_where_processes_have_no_numbers(room):
    """On a kernel whose pidfds are all the same file nothing is kept."""
    shared = room.attestation._shared
    shared._anonymous = shared_module._file(room.connection().process.pidfd)
    await room.attest()
    await room.attest()
    assert 2 == len(room.attestor.asked)


async def test_is_bounded(room, monkeypatch):
    """No more processes are kept than there is room for, and none that is too old to serve."""
    monkeypatch.setattr(room.attestation._shared._kept, "room", 1)
    await room.attest()
    with child() as other:
        peer = peer_of(other)
        await room.attestation.attest(peer)
        peer.close()
    assert 1 == len(room.attestation._shared._kept)
    room.clock.advance(ATTESTATION_SHARED_SECONDS)
    monkeypatch.setattr(room.attestation._shared._kept, "room", 10)
    await room.attest()
    assert 1 == len(room.attestation._shared._kept)


async def test_a_connection_that_was_closed(room):
    """Of a caller that has left before its call is looked at it is said that it has gone, and nothing fails."""
    await room.attest()
    peer = room.connection()
    peer.close()
    with pytest.raises(AttestationFailed, match="gone"):
        await room.attestation.attest(peer)
