"""reattachment.py: tasks of an earlier run go to nobody but their holders, and to one stream."""

import asyncio
from contextlib import closing

import pytest
from fakes.children import child, holder_of, peer_of
from fakes.recovery_room import ENTRIES, damage, ends, restart_fixture, room_fixture  # noqa: F401 - fixtures
from fakes.registrations import entry
from sojourn.attestation.peer import Peer
from sojourn.errors import FailedPrecondition, InvalidInput, NotFound, PolicyDenied, StoreFailed, TaskOver
from sojourn.errors.oauth import ShuttingDown


class TestStrangers:
    @pytest.mark.parametrize("binding", ["process", "stream"])
    async def test_another_process(self, room, restart, binding):
        """Another process of the same user and identity finds no such task, as of one that is not there."""
        task = await room.begin()
        damage(room.store, task, binding=binding)
        later = await restart()
        other = peer_of(room.add(child()))
        room.callback(other.close)
        for attach in (later.attaching.of_caller, later.attaching.by_stream):
            said = []
            for name in (task.id, "tsk_none"):
                with pytest.raises(NotFound) as caught:
                    await attach(other, ENTRIES, name)
                said.append((caught.value.public, caught.value.detail))
            assert said[0] == said[1]
        assert "suspended" == later.only.state

    async def test_another_identity(self, room, restart):
        """A holder that has not the task's identity any more does not find it."""
        task = await room.begin()
        later = await restart()
        with pytest.raises(NotFound):
            await later.attaching.of_caller(room.peer, (entry("/web"),), task.id)

    async def test_a_descendant(self, room, restart):
        """In a session a descendant's call brings the task back, if the holder has the identity still."""
        command = ("sh", "-c", "exec 3<&0; cat <&3 & echo $!; wait")  # ends with its parent's standard input
        with child(*command) as process:
            pid = int(process.stdout.readline())
            task = await room.begin(holder=process, session=True)
            later = await restart()
            with closing(Peer.of_pid(pid)) as peer:
                later.identities.entries = ()
                with pytest.raises(PolicyDenied):
                    await later.attaching.of_caller(peer, ENTRIES, task.id)
                assert "suspended" == later.only.state
                later.identities.entries = ENTRIES
                assert "active" == (await later.attaching.of_caller(peer, ENTRIES, task.id)).state

    async def test_another_program(self, room, restart):
        """A holder that executes another program while its task waits gets nothing."""
        with child("sh", "-c", "read go; exec sleep 60") as process:
            task = await room.begin(holder=process, peer=(peer := peer_of(process)))
            later = await restart()
            before = holder_of(process)
            program = before.program()
            process.stdin.write(b"\n")
            process.stdin.flush()
            async with asyncio.timeout(20):
                while before.program() == program:
                    await asyncio.sleep(0.01)
            with pytest.raises(TaskOver):
                await later.attaching.of_caller(peer, ENTRIES, task.id)
            await later.engine.journal.drain()
            before.close()
            peer.close()
        assert [("revoked", "attestation_changed")] == ends(room.store)


class TestStream:
    @pytest.fixture
    async def later(self, room, restart):
        """The next run, with one task that is a stream."""
        damage(room.store, await room.begin(), binding="stream")
        return await restart()

    async def test_by_a_stream(self, room, later):
        """A task that is a stream goes back to a new stream of its holder's, once."""
        task = await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)
        assert "active" == task.state
        with pytest.raises(FailedPrecondition):
            await later.attaching.by_stream(room.peer, ENTRIES, task.id)

    async def test_two_streams_at_once(self, room, later):
        """Of two streams that want it at once, one gets it."""
        both = [later.attaching.by_stream(room.peer, ENTRIES, later.only.id) for _ in range(2)]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert [FailedPrecondition] == [type(each) for each in outcomes if isinstance(each, Exception)]
        assert "active" == later.only.state

    async def test_not_by_a_call(self, room, later):
        """A call about it does not bring it back: nobody would hold it."""
        task = await later.attaching.of_caller(room.peer, ENTRIES, later.only.id)
        assert "suspended" == task.state

    async def test_after_a_failure(self, room, later):
        """A stream that could not have it leaves it to the next."""
        room.store.failure = StoreFailed("not now")
        with pytest.raises(StoreFailed):
            await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)
        room.store.failure = None
        assert "active" == (await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)).state

    async def test_of_a_process(self, room, restart):
        """A task of a process is not attached by a stream."""
        await room.begin()
        later = await restart()
        with pytest.raises(InvalidInput):
            await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)

    async def test_one_that_is_over(self, room, later):
        """A task that is over is not had back, and says why."""
        task = later.only
        await later.engine.revoke(task, "admin")
        with pytest.raises(TaskOver, match="admin"):
            await later.attaching.by_stream(room.peer, ENTRIES, task.id)

    async def test_an_agent_that_stops(self, room, later):
        """An agent that is shutting down gives nothing back: the next run may."""
        later.engine.close()
        with pytest.raises(ShuttingDown):
            await later.attaching.by_stream(room.peer, ENTRIES, later.only.id)
