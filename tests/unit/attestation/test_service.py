"""attestation/service.py: attestors side by side, and nothing said of a process that changed meanwhile."""

import asyncio
import gc

import pytest
from fakes.children import peer_of
from fakes.registrations import selectors
from sojourn.attestation import proc_snapshot, service
from sojourn.attestation.process import Process, Program
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed
from sojourn.limits import (
    ATTESTATION_FRESH_SECONDS,
    ATTESTOR_RETRY_SECONDS,
)


class TestAttest:
    async def test_all_of_them(self, attestation, peer, clock):
        """What all attestors prove is put together, each under its own name."""
        found = await attestation.attest(peer)
        assert selectors("unix:uid:1", "unix:gid:1", "docker:label:a") == found.selectors
        assert ({"unix:path": "no capability"}, {}) == (found.withheld, found.failures)
        assert clock.boot() == found.at

    async def test_what_they_are_asked(self, attestation, unix, peer):
        """Attestors are asked about the process and the ids of its connect."""
        await attestation.attest(peer)
        (asked,) = unix.asked
        assert (peer.process.pid, peer.uid, peer.gid, peer.groups) == (asked.pid, asked.uid, asked.gid, asked.groups)

    async def test_nobody_speaks_for_another(self, attestation, docker, peer):
        """Whatever an attestor says stays under its own name."""
        docker.values = frozenset({"unix:uid:0", "x"})
        assert (
            selectors("docker:unix:uid:0", "docker:x", "unix:uid:1", "unix:gid:1")
            == (await attestation.attest(peer)).selectors
        )

    @pytest.mark.parametrize(
        ("failure", "values"),
        [
            (RuntimeError("secret"), ()),
            (AttestationFailed("socket is down"), ()),
            (None, ("",)),
            (None, ("x" * 5000,)),
            (None, tuple(f"n{number}" for number in range(2001))),
        ],
        ids=["raises", "raises ours", "empty value", "long value", "too many"],
    )
    async def test_one_that_cannot_tell(self, attestation, docker, peer, failure, values):
        """An attestor that fails or talks nonsense could not tell; the others count."""
        docker.failure, docker.values = failure, frozenset(values)
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:1", "unix:gid:1"), {"docker"}) == (found.selectors, set(found.failures))
        assert "secret" not in str(found.failures)

    async def test_one_that_is_too_slow(self, attestation, docker, peer, monkeypatch):
        """An attestor that takes too long could not tell."""
        monkeypatch.setattr(service, "ATTESTOR_DEADLINE_SECONDS", 0.01)
        docker.gate = asyncio.Event()
        assert "did not answer" in (await attestation.attest(peer)).failures["docker"]

    async def test_none_can_tell(self, attestation, unix, docker, peer):
        """If no attestor can tell there is no attestation, and it is not kept."""
        unix.failure = docker.failure = RuntimeError("down")
        with pytest.raises(AttestationFailed):
            await attestation.attest(peer)
        unix.failure = docker.failure = None
        assert not (await attestation.attest(peer)).failures

    async def test_without_attestors(self, clock, peer):
        """Without attestors nothing is proved."""
        assert frozenset() == (await Attestation({}, clock).attest(peer)).selectors


class TestKept:
    async def test_while_fresh(self, attestation, unix, peer, clock):
        """What was proved a moment ago is used again."""
        first = await attestation.attest(peer)
        clock.advance(ATTESTATION_FRESH_SECONDS - 1)
        assert first is await attestation.attest(peer)
        assert 1 == len(unix.asked)

    async def test_not_for_long(self, attestation, unix, peer, clock):
        """After a while everything is proved again."""
        await attestation.attest(peer)
        unix.values = frozenset({"uid:2"})
        clock.advance(ATTESTATION_FRESH_SECONDS)
        assert selectors("unix:uid:2", "docker:label:a") == (await attestation.attest(peer)).selectors

    async def test_on_the_boot_clock(self, attestation, unix, peer, clock):
        """A wall clock that is set back keeps nothing fresh."""
        await attestation.attest(peer)
        clock.advance(ATTESTATION_FRESH_SECONDS)
        clock.step_wall(-86_400)
        await attestation.attest(peer)
        assert 2 == len(unix.asked)

    async def test_not_when_one_could_not_tell(self, attestation, unix, docker, peer):
        """What an attestor could not tell is asked again at the next call."""
        docker.failure = RuntimeError("down")
        await attestation.attest(peer)
        docker.failure = None
        assert not (await attestation.attest(peer)).failures

    async def test_not_for_another_program(self, attestation, unix, peer, monkeypatch):
        """A process that runs another program than when it connected is refused: its connection may be another's."""
        await attestation.attest(peer)
        monkeypatch.setattr(Process, "program", lambda _: Program(1, 2))
        with pytest.raises(AttestationFailed, match="connect again"):
            await attestation.attest(peer)

    async def test_not_for_a_program_that_came_as_attestation_ended(self, attestation, peer, monkeypatch):
        """A process that was attested, and changed before whoever waits for that had its turn, is refused."""

        async def attest(peer):
            try:
                return await found(peer)
            finally:
                monkeypatch.setattr(Process, "program", lambda _: Program(1, 2))

        found = attestation._attest
        monkeypatch.setattr(attestation, "_attest", attest)
        with pytest.raises(AttestationFailed, match="connect again"):
            await attestation.attest(peer)

    async def test_not_in_another_cgroup(self, attestation, unix, peer, monkeypatch):
        """When the process has moved to another cgroup everything is proved again, and that is kept."""
        await attestation.attest(peer)
        unix.values = frozenset({"uid:2"})
        monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:2", "docker:label:a"), "0::/elsewhere") == (found.selectors, found.cgroup)
        assert found is await attestation.attest(peer)

    async def test_not_for_one_that_has_gone(self, attestation, peer, running):
        """Of a process that has ended nothing is said, whatever was proved before."""
        await attestation.attest(peer)
        running.kill()
        running.wait()
        with pytest.raises(AttestationFailed):
            await attestation.attest(peer)

    async def test_asked_once_at_a_time(self, attestation, unix, peer):
        """Concurrent calls of one peer share one attestation."""
        unix.gate = asyncio.Event()
        calls = [asyncio.ensure_future(attestation.attest(peer)) for _ in range(5)]
        await unix.asking.wait()
        unix.gate.set()
        assert 1 == len({id(found) for found in await asyncio.gather(*calls)})
        assert 1 == len(unix.asked)

    async def test_one_that_leaves_takes_nobody_with_it(self, attestation, unix, peer):
        """A call that is given up ends no attestation that others wait for."""
        unix.gate = asyncio.Event()
        leaves, stays = (asyncio.ensure_future(attestation.attest(peer)) for _ in range(2))
        await unix.asking.wait()
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        unix.gate.set()
        assert (await stays).selectors

    @pytest.mark.full
    async def test_all_leave(self, attestation, unix, docker, peer, running):
        """Callers that end while they are attested leave no error behind that nobody hears, to be logged each time."""
        said = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
        unix.gate = asyncio.Event()
        leaves = asyncio.ensure_future(attestation.attest(peer))
        await unix.asking.wait()
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        del leaves
        running.kill()
        running.wait()
        unix.gate.set()
        while attestation._running:
            await asyncio.sleep(0.01)
        gc.collect()
        assert [] == said


class TestCarried:
    """What `docker` said before holds while it cannot tell."""

    @pytest.fixture
    async def failing(self, attestation, docker, peer, clock):
        await attestation.attest(peer)
        clock.advance(ATTESTATION_FRESH_SECONDS)
        docker.failure = AttestationFailed("the engine is down", detail="errno 111")
        return docker

    async def test_in_the_same_place(self, attestation, failing, peer, clock):
        """An attestor that cannot tell now takes away nothing, and how old that is is told."""
        told = clock.boot() - ATTESTATION_FRESH_SECONDS
        found = await attestation.attest(peer)
        assert selectors("unix:uid:1", "unix:gid:1", "docker:label:a") == found.selectors
        assert ({"docker": "the engine is down"}, {"docker": told}) == (found.failures, found.carried)
        assert (1, ATTESTATION_FRESH_SECONDS) == (found.asked["docker"].selectors, found.asked["docker"].age)
        assert frozenset() == found.untold

    async def test_for_as_long_as_it_takes(self, attestation, failing, peer, clock):
        """What an attestor said before holds over any number of its failures, and its age grows from when it was said."""
        for _ in range(3):
            found = await attestation.attest(peer)
            clock.advance(ATTESTATION_FRESH_SECONDS)
        assert selectors("docker:label:a") < found.selectors
        assert 3 * ATTESTATION_FRESH_SECONDS == found.asked["docker"].age

    async def test_only_what_was_said(self, attestation, failing, unix, peer):
        """What other attestors say meanwhile counts: nothing of theirs is kept."""
        unix.values, unix.withheld = frozenset({"uid:2"}), {}
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:2", "docker:label:a"), {}) == (found.selectors, found.withheld)

    async def test_what_was_withheld(self, attestation, unix, peer, clock):
        """What could not be proved before stays so, with the reason."""
        await attestation.attest(peer)
        clock.advance(ATTESTATION_FRESH_SECONDS)
        unix.failure = RuntimeError("down")
        assert {"unix:path": "no capability"} == (await attestation.attest(peer)).withheld

    async def test_not_in_another_cgroup(self, attestation, failing, peer, monkeypatch):
        """Of a process that has moved nothing is known any more."""
        monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:1", "unix:gid:1"), {"docker"}) == (found.selectors, found.untold)

    async def test_not_for_another_connection(self, attestation, failing, peer, running):
        """What was proved of a process on one connection is not proved on another."""
        other = peer_of(running)
        try:
            assert {"docker"} == (await attestation.attest(other)).untold
        finally:
            other.close()

    async def test_asked_again_soon(self, attestation, failing, peer, clock):
        """An attestor that fails is asked again every few seconds, and not at each call: a call may have to wait for its deadline."""
        before = len(failing.asked)
        for _ in range(3):
            await attestation.attest(peer)
        assert before + 1 == len(failing.asked)
        failing.failure, failing.values = None, frozenset({"label:b"})
        clock.advance(ATTESTOR_RETRY_SECONDS)
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:1", "unix:gid:1", "docker:label:b"), {}) == (found.selectors, found.carried)

    async def test_when_all_fail(self, attestation, failing, unix, peer):
        """What was said before holds although no attestor at all can tell."""
        unix.failure = RuntimeError("down")
        assert selectors("unix:uid:1", "unix:gid:1", "docker:label:a") == (await attestation.attest(peer)).selectors


class TestUntold:
    """Kinds of selectors of which an attestor that could tell all else could say nothing."""

    @pytest.fixture
    async def partial(self, attestation, unix, peer, clock):
        """`unix` told all of it a while ago, and now cannot tell the kind `gid`."""
        await attestation.attest(peer)
        clock.advance(ATTESTATION_FRESH_SECONDS)
        unix.values, unix.untold = frozenset({"uid:1"}), {"gid": "too slow"}

    async def test_is_a_failure_of_its_own(self, attestation, unix, peer):
        """It is among the failures by its kind, and what was told counts."""
        unix.values, unix.untold = frozenset({"uid:1"}), {"gid": "too\nslow"}
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:1", "docker:label:a"), {"unix:gid": "too?slow"}) == (
            found.selectors,
            found.failures,
        )
        assert {"unix:gid"} == found.untold

    async def test_not_when_kept(self, attestation, unix, peer):
        """It is asked for again at each call."""
        unix.untold = {"gid": "too slow"}
        await attestation.attest(peer)
        unix.untold = {}
        assert {} == (await attestation.attest(peer)).failures

    async def test_what_was_said_before_holds(self, attestation, partial, peer, clock):
        """What was said of that kind before is carried, and nothing else of that attestor."""
        told = clock.boot() - ATTESTATION_FRESH_SECONDS
        found = await attestation.attest(peer)
        assert selectors("unix:uid:1", "unix:gid:1", "docker:label:a") == found.selectors
        assert ({"unix:gid": told}, frozenset()) == (found.carried, found.untold)

    async def test_then_nothing_can_be_told(self, attestation, partial, unix, peer, clock):
        """If the whole attestor fails then, all that was said holds, as old as its oldest part."""
        told = clock.boot() - ATTESTATION_FRESH_SECONDS
        await attestation.attest(peer)
        clock.advance(ATTESTOR_RETRY_SECONDS)
        unix.failure = RuntimeError("down")
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:1", "unix:gid:1", "docker:label:a"), told) == (
            found.selectors,
            found.carried["unix"],
        )

    async def test_what_was_never_told(self, attestation, unix, peer):
        """If the whole attestor fails then, what it could not tell before is as unknown as it was."""
        unix.values, unix.untold = frozenset({"uid:1"}), {"gid": "too slow"}
        await attestation.attest(peer)
        unix.failure = RuntimeError("down")
        found = await attestation.attest(peer)
        assert (selectors("unix:uid:1", "docker:label:a"), {"unix:gid"}) == (found.selectors, found.untold)

    @pytest.mark.parametrize("untold", [{"": "x"}, {"a\0": "x"}, {str(number): "" for number in range(3_000)}])
    async def test_that_is_malformed(self, attestation, unix, peer, untold):
        """An attestor that names no kinds, or floods with them, could not tell."""
        unix.untold = untold
        assert {"unix"} == (await attestation.attest(peer)).untold


class TestRounds:
    async def test_calls_of_one_round_share_a_look(self, attestation, peer, monkeypatch):
        """Calls of a process that are answered in one round of the loop have it looked at once, and the next one anew."""
        await attestation.attest(peer)
        await asyncio.sleep(0)
        reads, real = [], Process.ids
        monkeypatch.setattr(Process, "ids", lambda process: reads.append(process.pid) or real(process))
        monkeypatch.setattr(proc_snapshot, "LOOK_SHARED_SECONDS", 60.0)
        await asyncio.gather(*(attestation.attest(peer) for _ in range(5)))
        assert [peer.process.pid] == reads
        await attestation.attest(peer)
        assert [peer.process.pid] * 2 == reads
