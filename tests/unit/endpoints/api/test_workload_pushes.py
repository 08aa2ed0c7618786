"""endpoints/api/workload.py: what is pushed in the very step that wakes a stream, and what is left to the call's own steps."""

import asyncio
import sys
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fakes.children import child
from fakes.identity_room import Room
from fakes.registrations import entry
from harness.looking import idle
from sojourn._pb import workload_pb2 as pb
from sojourn.attestation import proc_snapshot
from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import signer_id
from sojourn.endpoints.api.workload import WorkloadApi
from sojourn.errors import AttestationFailed, NoIdentity, SvidRevoked, Unavailable
from sojourn.identity.issued_svids import IssuedSvid
from sojourn.limits import ATTESTATION_FRESH_SECONDS

WEB = entry("/web")
EXECS = "import os; print(flush=True); os.read(0, 1); os.execvp('cat', ['cat'])"
DEADLINE_SECONDS = 20


@dataclass
class Call:
    """What of a call the stream's part looks at. `takes`: whether its client takes what it is sent."""

    peer: Peer
    pushed: list[pb.X509SVIDResponse] = field(default_factory=list)
    takes: bool = True

    def send_now(self, answer: bytes) -> bool:
        if self.takes:
            self.pushed.append(pb.X509SVIDResponse.FromString(answer))
        return self.takes


class Held:
    """A stream whose first answer has come. `next` is what its own steps answer next."""

    def __init__(self, call: Call, answers: Any) -> None:
        self.call = call
        self.next = asyncio.ensure_future(anext(answers))

    async def pushed(self, count: int = 1) -> list[pb.X509SVIDResponse]:
        """What was pushed, once it is so many; nothing came by the call's own steps."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.call.pushed) < count:
                await asyncio.sleep(0)
        await idle()
        assert not self.next.done()
        return self.call.pushed

    async def answered(self) -> pb.X509SVIDResponse:
        """What the call's own steps answer. Raise what the call ends with."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return pb.X509SVIDResponse.FromString(await self.next)


@pytest.fixture
def room(tmp_path):
    room = Room(tmp_path / "keys", [WEB])
    yield room
    room.close()


@pytest.fixture
def api(room):
    return WorkloadApi(room.identities, Audit(room.audit, room.clock), room.clock, wit=False)


@asynccontextmanager
async def held(api, peer):
    call = Call(peer)
    async with aclosing(api.fetch_x509_svid(call, pb.X509SVIDRequest())) as answers:
        await anext(answers)
        stream = Held(call, answers)
        await idle()
        try:
            yield stream
        finally:
            stream.next.cancel()
            await asyncio.gather(stream.next, return_exceptions=True)


@contextmanager
def another(process):
    """Another connection of the same process."""
    peer = Peer.of_pid(process.pid)
    try:
        yield replace(peer, attested=None)
    finally:
        peer.close()


def ids(answer):
    return {each.spiffe_id.removeprefix("spiffe://example.org") for each in answer.svids}


async def rotate(room):
    await room.issuing.rotate(lambda _: True)


async def test_a_new_entry(room, api):
    """A new entry's SVID is pushed without a step of the call, and once."""
    async with held(api, room.peer) as stream:
        await room.registry.create([entry("/more")])
        assert [{"/web", "/more"}] == [ids(each) for each in await stream.pushed()]


async def test_again_and_again(room, api):
    """Each change is pushed, in order, and counted."""
    async with held(api, room.peer) as stream:
        for number in range(3):
            await room.registry.create([entry(f"/more/{number}")])
            await stream.pushed(number + 1)
        assert [2, 3, 4] == [len(each.svids) for each in stream.call.pushed]
        assert [4] == [each.pushes for each in room.identities.streams]


async def test_nothing_new(room, api):
    """What wakes a stream and changes nothing of its answer is not pushed."""
    async with held(api, room.peer) as stream:
        for each in room.identities.streams:
            each.wake()
        await idle()
        assert [] == await stream.pushed(0)


async def test_connections_of_one_process(room, api, monkeypatch):
    """Two connections of a process are looked at once for answers of one step, and again for those of the next."""
    reads = []
    real = Process.ids
    monkeypatch.setattr(Process, "ids", lambda process: reads.append(process) or real(process))
    # What a slow machine takes between two answers of one step.
    monkeypatch.setattr(proc_snapshot, "LOOK_SHARED_SECONDS", DEADLINE_SECONDS)
    with another(room.process) as other:
        async with held(api, room.peer) as first, held(api, other) as second:
            looked = []
            for number in range(1, 6):
                reads.clear()
                await rotate(room)
                answers = [(await each.pushed(number))[-1] for each in (first, second)]
                assert answers[0] == answers[1]
                looked.append(len(reads))
            assert 1 == min(looked)  # a machine that stands still between two answers makes two steps of them
            assert first.call.pushed[0] != first.call.pushed[1]


async def test_callers_with_other_entries(room, api):
    """Callers who are woken in the same step and have different entries are given their own."""
    room.attestor.values = frozenset({"uid:7"})
    await room.registry.create([entry("/seven", "unix:uid:7")])
    with child() as process, another(process) as other:
        async with held(api, other) as seven:
            room.attestor.values = frozenset({"uid:1000"})
            async with held(api, room.peer) as thousand:
                await rotate(room)
                answers = [(await each.pushed())[0] for each in (seven, thousand)]
                assert [{"/seven"}, {"/web"}] == [ids(each) for each in answers]


async def test_a_client_that_takes_no_more(room, api):
    """What the client does not take at once is left to the call, which waits until it does."""
    async with held(api, room.peer) as stream:
        stream.call.takes = False
        await room.registry.create([entry("/more")])
        assert ({"/web", "/more"}, []) == (ids(await stream.answered()), stream.call.pushed)


async def test_nothing_left(room, api):
    """Who has nothing any more is told so, by the call's end."""
    async with held(api, room.peer) as stream:
        await room.registry.delete([WEB.id])
        with pytest.raises(NoIdentity):
            await stream.answered()
        assert [] == stream.call.pushed


async def test_a_revoked_svid(room, api):
    """Who had an SVID that is revoked has another one, and then the call ends."""
    call = Call(room.peer)
    async with aclosing(api.fetch_x509_svid(call, pb.X509SVIDRequest())) as answers:
        first = pb.X509SVIDResponse.FromString(await anext(answers))
        waiting = asyncio.ensure_future(anext(answers))
        await idle()
        svid = room.identities.x509_svid(WEB)
        root = room.authority.root_of(svid)
        ends = int(svid.not_after.timestamp())
        revoked = IssuedSvid("x509", svid.serial, str(svid.spiffe_id), WEB.id, ends, signer_id(svid.leaf), root)
        await room.identities.revoke([revoked])
        second = pb.X509SVIDResponse.FromString(await waiting)
        assert first.svids[0].x509_svid != second.svids[0].x509_svid
        with pytest.raises(SvidRevoked):
            await anext(answers)
        assert [] == call.pushed


async def test_an_agent_that_closes(room, api):
    """When the agent closes nothing more is pushed, and the call says why."""
    async with held(api, room.peer) as stream:
        await rotate(room)
        room.identities.close()
        with pytest.raises(Unavailable):
            await stream.answered()
        assert [] == stream.call.pushed


async def test_a_process_that_has_gone(room, api):
    """A caller that has ended is pushed nothing, and the call ends."""
    async with held(api, room.peer) as stream:
        room.process.kill()
        room.process.wait()
        await rotate(room)
        with pytest.raises(AttestationFailed):
            await stream.answered()
        assert [] == stream.call.pushed


async def test_another_program(room, api):
    """A caller that has become another program is pushed nothing, on none of its connections."""
    with child(sys.executable, "-c", EXECS) as process:
        process.stdout.readline()
        with another(process) as one, another(process) as other:
            async with held(api, one) as first, held(api, other) as second:
                process.stdin.write(b"x\n")
                process.stdin.flush()
                process.stdout.readline()  # cat has begun, and gives the line back
                await rotate(room)
                for stream in (first, second):
                    with pytest.raises(AttestationFailed, match="connect again"):
                        await stream.answered()
                    assert [] == stream.call.pushed


@pytest.mark.root
@pytest.mark.parametrize("change", ["os.setegid(4001)", "os.seteuid(4001)"])
async def test_other_ids(room, api, change):
    """A caller that has changed its ids is pushed nothing."""
    code = f"import os; print(flush=True); os.read(0, 1); {change}; print(flush=True); os.read(0, 1)"
    with child(sys.executable, "-c", code) as process:
        process.stdout.readline()
        with another(process) as peer:
            async with held(api, peer) as stream:
                process.stdin.write(b"x")
                process.stdin.flush()
                process.stdout.readline()
                await rotate(room)
                with pytest.raises(AttestationFailed, match="user or group"):
                    await stream.answered()
                assert [] == stream.call.pushed


async def test_in_another_cgroup(room, api, monkeypatch):
    """A caller that moved to another cgroup is attested anew before it is given anything."""
    async with held(api, room.peer) as stream:
        monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
        room.attestor.values = frozenset({"uid:7"})
        await rotate(room)
        with pytest.raises(NoIdentity):
            await stream.answered()
        assert [] == stream.call.pushed


async def test_attested_long_ago(room, api):
    """What was proved too long ago is proved again before it is relied on."""
    async with held(api, room.peer) as stream:
        room.clock.advance(ATTESTATION_FRESH_SECONDS + 1)
        room.attestor.values = frozenset({"uid:7"})
        await rotate(room)
        with pytest.raises(NoIdentity):
            await stream.answered()
        assert [] == stream.call.pushed


async def test_an_entry_that_ends(room, api):
    """An entry that ends by the wall clock is in no answer after that, though no alarm has rung."""
    ends = int(room.clock.now().timestamp()) + 60
    await room.registry.create([entry("/brief", expires_at=ends)])
    async with held(api, room.peer) as stream:
        room.clock.step_wall(60)
        await rotate(room)
        assert ({"/web"}, []) == (ids(await stream.answered()), stream.call.pushed)
