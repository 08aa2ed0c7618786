"""attestation/service.py: whose turn it is, why an attestor could not tell, and what is said and counted of it."""

import asyncio
import dataclasses

import pytest
import structlog
from fakes.children import child, peer_of
from fakes.registrations import selectors
from harness.looking import WAIT_SECONDS, idle
from sojourn.attestation import service
from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process, Program
from sojourn.errors import AttestationFailed
from sojourn.limits import (
    ATTESTATIONS_PER_CGROUP,
    ATTESTOR_REASON_MAX,
    REFUSALS_LOGGED_PER_SECOND,
)


class TestTurns:
    @pytest.fixture
    def of_two_containers(self, running, peer, monkeypatch):
        """Many connections of a container and one of another, all of one user."""
        with child() as process:
            outside = peer_of(process)
            inside = [peer_of(running) for _ in range(20)]
            names = {running.pid: "a" * 64 + "/below", process.pid: "b" * 64}
            monkeypatch.setattr(Process, "cgroup", lambda self: f"0::/docker/{names[self.pid]}\n")
            yield inside, outside
            for each in (*inside, outside):
                each.close()

    async def test_of_one_container(self, attestation, unix, of_two_containers):
        """A container that an attestor waits for has few turns, and leaves those of others of its user alone."""
        inside, outside = of_two_containers
        gate = asyncio.Event()
        real = unix.attest

        async def attest(subject):
            answer = await real(subject)
            if subject.pid != outside.process.pid:
                await gate.wait()
            return answer

        unix.attest = attest
        waiting = [asyncio.ensure_future(attestation.attest(each)) for each in inside]
        await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_SECONDS):
            assert selectors("unix:uid:1") <= (await attestation.attest(outside)).selectors
        assert ATTESTATIONS_PER_CGROUP == sum(each.pid != outside.process.pid for each in unix.asked)
        gate.set()
        await asyncio.gather(*waiting)
        assert len(inside) + 1 == len(unix.asked)

    async def test_of_cgroups_that_a_container_makes(self, attestation, unix, of_two_containers, monkeypatch):
        """Cgroups that a container makes inside of its own give it no further turns."""
        inside, _ = of_two_containers
        numbers = {id(each.process): number for number, each in enumerate(inside)}
        monkeypatch.setattr(Process, "cgroup", lambda self: f"0::/docker/{'a' * 64}/{numbers.get(id(self), 0):064x}\n")
        unix.gate = asyncio.Event()
        waiting = [asyncio.ensure_future(attestation.attest(each)) for each in inside]
        await asyncio.wait_for(unix.asking.wait(), WAIT_SECONDS)
        await idle()
        assert ATTESTATIONS_PER_CGROUP == len(unix.asked)
        unix.gate.set()
        await asyncio.gather(*waiting)


class TestReasons:
    async def test_are_told(self, attestation, unix, docker, peer):
        """If nothing can be told, the caller hears which attestors failed and why, and nothing of their details."""
        unix.failure = AttestationFailed("the program cannot be read", detail="errno 5")
        docker.failure = RuntimeError("secret")
        with pytest.raises(AttestationFailed) as caught:
            await attestation.attest(peer)
        assert (
            "workload attestation failed: an attestor could not tell (docker: failed: RuntimeError;"
            " unix: the program cannot be read)" == caught.value.public
        )

    async def test_are_bounded(self, attestation, docker, peer):
        """A reason that is endless, or would move a terminal's cursor, is cut and made plain."""
        docker.failure = AttestationFailed("\x1b[2J\n" + "x" * 10_000)
        reason = (await attestation.attest(peer)).failures["docker"]
        assert (ATTESTOR_REASON_MAX, True) == (len(reason), reason.isprintable())

    async def test_of_what_is_withheld(self, attestation, docker, peer):
        """The reason why something is withheld is cut and made plain."""
        docker.withheld = {"label": "a\nb\udc80" + "x" * 1_000_000}
        reason = (await attestation.attest(peer)).withheld["docker:label"]
        assert (True, ATTESTOR_REASON_MAX) == (reason.isprintable(), len(reason))

    @pytest.mark.parametrize("number", [0xDC80, 0xD800])
    async def test_of_what_is_no_text(self, attestation, docker, peer, number):
        """What is no Unicode is no selector, nor a kind of them: nothing could show it."""
        odd = f"label:{chr(number)}"
        docker.values = frozenset({odd})
        assert "malformed" in (await attestation.attest(peer)).failures["docker"]
        peer.attested, docker.values, docker.withheld = None, frozenset(), {odd: "why"}
        assert "malformed" in (await attestation.attest(peer)).failures["docker"]

    async def test_nobody_floods_the_log(self, attestation, docker, running, monkeypatch):
        """What cannot be told of one user's processes is logged a few times a second, and what of another's too."""
        monkeypatch.setattr(Peer, "check_same", lambda *_: None)
        docker.failure = AttestationFailed("why")
        with structlog.testing.capture_logs() as logged:
            for uid in [1] * 100 + [2]:
                peer = dataclasses.replace(peer_of(running), uid=uid)
                await attestation.attest(peer)
                peer.close()
        assert REFUSALS_LOGGED_PER_SECOND + 1 == len(logged)


class TestTally:
    async def test_counts(self, attestation, docker, peer, clock):
        """Each answer is counted and told, and the last failure is kept after it is over."""
        heard = []
        attestation.tally.on_answer(lambda *answer: heard.append(answer))
        docker.failure = AttestationFailed("down")
        await attestation.attest(peer)
        failed_at = clock.now()
        record = attestation.tally.records["docker"]
        assert (1, 1, True, "down", failed_at) == (
            *(record.asked, record.failed, record.failing, record.failure, record.failed_at),
        )
        docker.failure = None
        clock.advance(1)
        await attestation.attest(peer)
        assert (2, 1, False, "down", failed_at) == (
            *(record.asked, record.failed, record.failing, record.failure, record.failed_at),
        )
        assert [("docker", ""), ("docker", "down"), ("unix", ""), ("unix", "")] == sorted(
            (name, failure) for name, _, failure in heard
        )


class TestChange:
    async def meanwhile(self, attestation, attestor, peer, change):
        """Attest a peer, and change something while an attestor looks."""
        attestor.gate = asyncio.Event()
        attesting = asyncio.ensure_future(attestation.attest(peer))
        await attestor.asking.wait()
        change()
        attestor.gate.set()
        with pytest.raises(AttestationFailed):
            await attesting
        assert peer.attested is None

    async def test_gone_meanwhile(self, attestation, unix, peer, running):
        """Nothing is said of a process that ended while it was attested."""

        def end():
            running.kill()
            running.wait()

        await self.meanwhile(attestation, unix, peer, end)

    async def test_another_program_meanwhile(self, attestation, unix, peer, monkeypatch):
        """Nothing is said of a process that changed its program while it was attested."""
        await self.meanwhile(
            attestation, unix, peer, lambda: monkeypatch.setattr(Process, "program", lambda _: Program(1, 2))
        )

    async def test_another_cgroup_meanwhile(self, attestation, unix, peer, monkeypatch):
        """Nothing is said of a process that moved to another cgroup while it was attested."""
        await self.meanwhile(
            attestation, unix, peer, lambda: monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere")
        )

    async def test_other_ids_meanwhile(self, attestation, unix, peer):
        """Nothing is said of a process whose ids are no longer those of its connect."""

        def change():
            peer.uid += 1

        await self.meanwhile(attestation, unix, peer, change)


class TestCheck:
    @pytest.fixture
    def checked(self, docker):
        """What the check of the attestor docker does."""

        async def fine():
            pass

        docker.check = fine
        return docker

    async def test_one_that_could_not_tell(self, attestation, checked):
        """At the start the operator hears, by log and status, which attestor could not tell, and why."""

        async def missing():
            raise AttestationFailed("there is no socket", detail="errno 2")

        checked.check = missing
        with structlog.testing.capture_logs() as logged:
            await attestation.check()
        record = attestation.tally.records["docker"]
        assert (0, 0, True, "there is no socket") == (record.asked, record.failed, record.failing, record.failure)
        assert record.failed_at is not None
        (line,) = [each for each in logged if each["event"] == "attestor_unfit"]
        assert ("docker", "there is no socket", "errno 2") == (line["attestor"], line["reason"], line["detail"])

    async def test_one_that_could(self, attestation, checked):
        """Of one that could tell, and of one that depends on nothing, nothing is said."""
        with structlog.testing.capture_logs() as logged:
            await attestation.check()
        assert [] == logged
        assert {""} == {each.failure for each in attestation.tally.records.values()}

    @pytest.mark.parametrize("error", [RuntimeError("secret"), AttestationFailed("down")])
    async def test_after_an_answer(self, attestation, checked, peer, error):
        """What one has answered meanwhile is newer than its check; one that breaks in it harms nobody."""

        async def broken():
            await attestation.attest(peer)
            raise error

        checked.check = broken
        await attestation.check()
        assert (1, False) == (attestation.tally.records["docker"].asked, attestation.tally.records["docker"].failing)

    async def test_one_that_hangs(self, attestation, checked, monkeypatch):
        """A check has no more time than an answer."""
        monkeypatch.setattr(service, "ATTESTOR_DEADLINE_SECONDS", 0.01)
        checked.check = asyncio.Event().wait
        await attestation.check()
        assert attestation.tally.records["docker"].failure == "did not answer within 0.01 s"
