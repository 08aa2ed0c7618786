"""oauth/one_shot_holder.py: the processes that ran callers, kept pinned and looked at each time."""

import itertools
import os
from types import SimpleNamespace

import pytest
from fakes.attestations import FakeAttestor
from fakes.children import child, holder_of, peer_of
from fakes.granting_room import TRIAGE_ID, Room
from fakes.runners import helper_of
from harness.looking import OpenFiles
from sojourn.attestation.peer import Peer
from sojourn.attestation.proc_reader import reader
from sojourn.errors import AttestationFailed
from sojourn.limits import ATTESTATION_FRESH_SECONDS, ATTESTATION_SHARED_SECONDS, RUNNERS_KEPT
from sojourn.oauth import one_shot_holder as module
from sojourn.oauth.client_auth import ASSERTION, SOCKET, OAuthClient
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.kept_fields import ONE_SHOT

OTHER_ID = SpiffeId.parse("spiffe://example.org/other")
TURN = "sys.stdin.readline(); import os; os.execvp('cat', ['cat'])"


@pytest.fixture
async def room(tmp_path, monkeypatch):
    asked = []
    attest = FakeAttestor.attest

    async def counted(self, subject):
        asked.append(subject.pid)
        return await attest(self, subject)

    monkeypatch.setattr(FakeAttestor, "attest", counted)
    room = Room(tmp_path / "keys")
    room.asked = asked
    yield room
    room.close()


async def found(room, helper, spiffe_id=TRIAGE_ID):
    """The pid of the helper's runner, or None."""
    runner = await room.runners.of(helper, spiffe_id)
    if runner is None:
        return None
    try:
        return runner.pid
    finally:
        runner.close()


class TestRunners:
    async def test_kept(self, room):
        """A runner that stays what it is is attested in full once, until that is too old."""
        with helper_of() as (runner, helper):
            assert [runner.pid] * 2 == [await found(room, helper) for _ in range(2)]
            assert [runner.pid] == room.asked
            room.clock.advance(ATTESTATION_FRESH_SECONDS)
            assert runner.pid == await found(room, helper)
            assert [runner.pid] * 2 == room.asked

    async def test_another_identity(self, room):
        """A runner that has not the caller's identity takes nothing over, whether it is known already or not."""
        with helper_of() as (runner, helper):
            assert [None, runner.pid, None] == [
                await found(room, helper, each) for each in (OTHER_ID, TRIAGE_ID, OTHER_ID)
            ]

    async def test_changed(self, room):
        """A runner that runs another program by now is attested anew, as what it is."""
        with helper_of(TURN) as (runner, helper):
            before = Peer.of_pid(runner.pid)
            assert runner.pid == await found(room, helper)
            runner.stdin.write("\n")
            runner.stdin.flush()
            while before.process.program() == before.program:
                pass
            before.close()
            assert runner.pid == await found(room, helper)
            assert [runner.pid] * 2 == room.asked

    async def test_gone(self, room):
        """A runner that has ended takes nothing over, and is let go of."""
        with helper_of() as (runner, helper):
            assert runner.pid == await found(room, helper)
            runner.kill()
            runner.wait()
            assert runner.pid != reader.stat(helper.process.pid).parent
            assert runner.pid != await found(room, helper)

    async def test_limit(self, room, monkeypatch):
        """At most RUNNERS_KEPT are kept; the one that was not asked for longest goes, and is found again."""
        assert RUNNERS_KEPT > 1
        monkeypatch.setattr(room.runners._kept, "room", 1)
        with helper_of() as (one, its), helper_of() as (other, others):
            asked = []
            for each in (its, others, its):
                asked.append(await found(room, each))
                room.clock.advance(ATTESTATION_SHARED_SECONDS)
            assert [one.pid, other.pid, one.pid] == asked == room.asked
            assert 1 == len(room.runners)

    @pytest.mark.parametrize(("uid", "earlier"), [(1, False), (0, True), (1, True)])
    async def test_none_of_the_caller_s(self, room, uid, earlier):
        """A process of another user takes nothing over, nor does one that only has the parent's pid by now."""
        with helper_of() as (runner, helper):
            parents = itertools.cycle([runner.pid, os.getpid()] if earlier else [runner.pid])
            process = type("Adopted", (), {"parent": property(lambda _: next(parents))})()
            caller = SimpleNamespace(process=process, uid=helper.uid + uid)
            assert [None, None] == [await found(room, caller) for _ in range(2)]
            assert runner.pid == await found(room, helper)


def test_who_holds_a_one_shot_task():
    """A one-shot task is its caller's, with its runner as heir; and its runner's from the beginning if it has to wait."""
    with child() as process, child() as other:
        peer, runner = peer_of(process), holder_of(other)
        client = OAuthClient(SOCKET, (), peer)
        for heir, waits, held_by, inherits in (
            (runner, False, process, other),
            (None, False, process, None),
            (runner, True, other, None),
            (None, True, process, None),
        ):
            bond = module.bond_of(client, heir, waits=waits)
            assert (ONE_SHOT, waits, held_by.pid) == (bond.binding, bond.session, bond.holder.pid)
            assert (None if inherits is None else inherits.pid) == (None if bond.heir is None else bond.heir.pid)
            bond.close()
        peer.close()
        runner.close()


def test_a_client_on_another_machine_holds_nothing():
    """The one-shot task of a client on another machine lives with no process here, and ends with its time."""
    bond = module.bond_of(OAuthClient(ASSERTION, ()), None, waits=False)
    assert (ONE_SHOT, True, None) == (bond.binding, isinstance(bond.holder, NoProcess), bond.heir)


def test_a_runner_that_has_gone_meanwhile():
    """With a runner that has ended since it was found no task is bound, and no handle stays open: whoever has helpers
    run by processes that end at once would take all of them.
    """
    with child() as process, child() as other:
        peer, runner = peer_of(process), holder_of(other)
        client = OAuthClient(SOCKET, (), peer)
        other.kill()
        other.wait()
        before = OpenFiles()
        with pytest.raises(AttestationFailed, match="gone") as caught:
            module.bond_of(client, runner, waits=False)
        del caught
        assert [] == before.opened_since()
        peer.close()
        runner.close()
