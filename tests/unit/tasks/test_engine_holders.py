"""engine.py: whose a task is, and that it ends with its entry and its holder. Holders are real processes."""

import asyncio
import os
from dataclasses import replace

import pytest
from fakes.children import child, holder_of, peer_of
from fakes.engine_types import TYPES
from fakes.registrations import NODE, OTHER_NODE, TRUST_DOMAIN, FakeEntryStore, entry
from fakes.task_room import (
    HOLDERS,
    TRIAGE_ENTRY,
    Room,
)
from fakes.task_types import TICKETS
from harness.looking import PIDFD, OpenFiles
from sojourn.attestation import proc_snapshot
from sojourn.attestation.proc_snapshot import Looks
from sojourn.attestation.process import Process, Program
from sojourn.errors import (
    LimitExceeded,
    NotFound,
    TaskOver,
)
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entry_changes import Change
from sojourn.identity.registry import Registry
from sojourn.limits import TASKS_ENDED_AT_ONCE
from sojourn.runtime.each_round import EachRound
from sojourn.tasks import holder_watch as holding_module
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.holders import Holders
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasktoken.end_reasons import ATTESTATION_CHANGED, HOLDER_EXITED


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


class TestOfCaller:
    async def test_the_holder(self, room, task):
        """The holder finds its task."""
        assert task is room.engine.tasks.of_caller(room.peer, (TRIAGE_ENTRY,), task.id)

    async def test_another_process(self, room, task):
        """To another process of the same user and identity the task does not exist."""
        other = peer_of(room.add(child()))
        room.callback(other.close)
        with pytest.raises(NotFound) as theirs:
            room.engine.tasks.of_caller(other, (TRIAGE_ENTRY,), task.id)
        with pytest.raises(NotFound) as nobodys:
            room.engine.tasks.of_caller(other, (TRIAGE_ENTRY,), "tsk_none")
        assert nobodys.value.public == theirs.value.public

    async def test_another_identity(self, room, task):
        """To the holder under another identity the task does not exist."""
        with pytest.raises(NotFound):
            room.engine.tasks.of_caller(room.peer, (entry("/web"),), task.id)

    @pytest.mark.parametrize("session", [True, False])
    async def test_descendants_only_in_a_session(self, room, session):
        """A descendant of the holder finds the task only if that is a session, and also when it is over."""
        own = Process.open(os.getpid())  # this test is its children's parent
        task = await room.beginning.begin(
            room.peer, (TRIAGE_ENTRY,), BeginRequest("triage", {}), Bond(own, "process", session)
        )
        if session:
            assert task is room.engine.tasks.of_caller(room.peer, (TRIAGE_ENTRY,), task.id)
            await room.engine.complete(task, failed=False)
            assert task is room.engine.tasks.of_caller(room.peer, (TRIAGE_ENTRY,), task.id)
        else:
            with pytest.raises(NotFound):
                room.engine.tasks.of_caller(room.peer, (TRIAGE_ENTRY,), task.id)


class TestEntriesChanged:
    @pytest.mark.parametrize(
        "new",
        [
            pytest.param(None, id="deleted"),
            pytest.param(entry("/web", id=TRIAGE_ENTRY.id), id="other SPIFFE ID"),
            pytest.param(entry("/agent/triage", "unix:uid:1001"), id="other selectors"),
            pytest.param(entry("/agent/triage", "unix:uid:1000", "unix:gid:5"), id="more selectors"),
            pytest.param(
                entry("/agent/triage", jwt_claims=JwtClaims.parse({"team": "{docker.label:team}"})), id="claims to fill"
            ),
        ],
    )
    async def test_identity_lost(self, room, task, new):
        """A task ends when its holder may have lost the entry that earned it its identity."""
        MassEnd(room.engine).entries_changed([Change(TRIAGE_ENTRY, new)])
        assert ("revoked", "attestation_changed") == (task.state, task.reason)

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param([Change(TRIAGE_ENTRY, entry("/agent/triage", hint="x"))], id="hint"),
            pytest.param(
                [Change(TRIAGE_ENTRY, entry("/agent/triage", jwt_claims=JwtClaims.parse({"team": "a"})))], id="claims"
            ),
            pytest.param([Change(None, entry("/agent/other"))], id="another is new"),
            pytest.param([Change(entry("/agent/other"), None)], id="another is gone"),
        ],
    )
    async def test_identity_kept(self, room, task, changes):
        """A change that takes nothing from the holder leaves its task alone."""
        MassEnd(room.engine).entries_changed(changes)
        assert task.live

    @pytest.mark.parametrize(
        "changes", [{"parent_id": OTHER_NODE}, {"expires_at": 1}], ids=["given to another node", "expired by an update"]
    )
    async def test_an_update_after_which_the_entry_is_not_served(self, room, clock, changes):
        """A task ends when an update leaves its holder without the entry: the caller has no identity any more."""
        registry = Registry(FakeEntryStore([TRIAGE_ENTRY]), TRUST_DOMAIN, [NODE], clock, room.alarms)
        registry.on_change(MassEnd(room.engine).entries_changed)
        task = await room.begin()
        await registry.update([(TRIAGE_ENTRY.id, lambda old: replace(old, **changes))])
        assert () == registry.match(TRIAGE_ENTRY.selectors)
        assert not task.live

    async def test_an_entry_that_expires(self, room, clock):
        """A task ends when the entry that earned its holder the identity expires."""
        ends = entry("/agent/triage", expires_at=int(clock.now().timestamp()) + 30)
        registry = Registry(FakeEntryStore([ends]), TRUST_DOMAIN, [NODE], clock, room.alarms)
        registry.on_change(MassEnd(room.engine).entries_changed)
        task = await room.begin(entries=(ends,))
        clock.advance(30)
        room.alarms.ring_due()
        assert ("revoked", "attestation_changed") == (task.state, task.reason)


class TestHolders:
    async def test_one_descriptor_for_many_tasks(self, room):
        """However many tasks a process holds, it takes one descriptor, until the last of them has ended."""
        before = OpenFiles()
        tasks = [await room.begin() for _ in range(5)]
        assert (1, 1) == (len(before.opened_since(*PIDFD)), len(room.holders))
        for task in tasks:
            await room.engine.revoke(task, "because")
        assert ([], 0) == (before.opened_since(), len(room.holders))

    async def test_all_tasks_end_with_it(self, room):
        """When a process ends, so do all tasks that it holds, and no other."""
        holder = room.add(child())
        tasks = [await room.begin(holder=holder) for _ in range(3)]
        other = await room.begin()
        holder.kill()
        for task in tasks:
            await room.ended(task)
        assert (["holder_exited"] * 3, True) == ([task.reason for task in tasks], other.live)

    async def test_of_many_tasks(self, room):
        """A process that ends with many tasks holds nobody up: some end at once, and the others behind what others ask
        for; whoever uses one of those meanwhile finds it over.
        """
        holder = room.add(child())
        tasks = [await room.begin(holder=holder) for _ in range(3 * TASKS_ENDED_AT_ONCE)]
        holder.kill()
        async with asyncio.timeout(20):
            while all(task.live for task in tasks):
                await asyncio.sleep(0)
        left = [task for task in tasks if task.live]
        assert TASKS_ENDED_AT_ONCE <= len(left) <= 2 * TASKS_ENDED_AT_ONCE
        with pytest.raises(TaskOver, match="holder_exited"):
            room.engine.check_active(left[-1])
        for task in tasks:
            await room.ended(task)
        assert {"holder_exited"} == {task.reason for task in tasks}
        assert 0 == len(room.holders)

    async def test_a_limited_number(self, room):
        """More processes than may hold tasks are refused, and leave nothing behind."""
        for _ in range(HOLDERS):
            await room.begin(holder=room.add(child()))
        stranger = room.add(child())
        before = OpenFiles()
        with pytest.raises(LimitExceeded):
            await room.begin(holder=stranger)
        assert [] == before.opened_since()
        assert HOLDERS == len(room.engine.tasks.all())

    async def test_room_for_others(self, room):
        """A user whose processes hold all that they may leaves room for another user's."""
        for _ in range(HOLDERS):
            await room.begin(holder=room.add(child()))
        hold = room.holders.hold(holder_of(room.add(child())), 4999)
        assert HOLDERS + 1 == len(room.holders)
        hold.release()

    async def test_another_program(self, room, monkeypatch):
        """A task ends when its holder runs another program: at the next look, and at the next token."""
        first, second = await room.begin(), await room.begin()
        monkeypatch.setattr(Process, "program", lambda _: Program(1, 2))
        with pytest.raises(TaskOver, match="attestation_changed"):
            await room.engine.token(first, TICKETS, ())
        room.engine.holding.look()
        assert ("revoked", "attestation_changed") == (second.state, second.reason)

    async def test_another_program_of_many_tasks(self, room, monkeypatch):
        """However many tasks a process holds that runs another program now, some end in a step, and in the end all."""
        tasks = [await room.begin() for _ in range(2 * TASKS_ENDED_AT_ONCE)]
        monkeypatch.setattr(Process, "program", lambda _: Program(1, 2))
        room.engine.holding.look()
        assert TASKS_ENDED_AT_ONCE == sum(task.live for task in tasks)
        room.alarms.ring_due()
        assert {("revoked", "attestation_changed")} == {(task.state, task.reason) for task in tasks}

    async def test_another_cgroup(self, room, monkeypatch):
        """A task ends when its holder is in another cgroup: at the next look, and at the next token."""
        first, second = await room.begin(), await room.begin()
        monkeypatch.setattr(Process, "cgroup", lambda _: "0::/elsewhere\n")
        with pytest.raises(TaskOver, match="attestation_changed"):
            await room.engine.token(first, TICKETS, ())
        room.engine.holding.look()
        assert ("revoked", "attestation_changed") == (second.state, second.reason)

    async def test_more_than_are_looked_at_once(self, room, clock, monkeypatch):
        """However many processes hold tasks, each has its turn, and then again after a while."""
        monkeypatch.setattr(holding_module, "PROCESSES_LOOKED_AT_ONCE", 2)
        for _ in range(HOLDERS):
            await room.begin(holder=room.add(child()))
        looks, program = [], Process.program
        monkeypatch.setattr(Process, "program", lambda each: looks.append(each.pid) or program(each))
        room.engine.holding.look()
        assert 2 == len(looks)
        room.alarms.ring_due()
        assert (HOLDERS, HOLDERS) == (len(looks), len(set(looks)))
        clock.advance(holding_module.HOLDER_LOOK_SECONDS)
        room.alarms.ring_due()
        assert 2 * HOLDERS == len(looks)

    async def test_each_process_is_looked_at_once(self, room, monkeypatch):
        """However many tasks a process holds, a look at the holders reads its program once."""
        for _ in range(3):
            await room.begin()
        looks, program = [], Process.program
        monkeypatch.setattr(Process, "program", lambda each: looks.append(each.pid) or program(each))
        room.engine.holding.look()
        assert 1 == len(looks)
        assert 3 == len(room.engine.tasks.all())

    async def test_one_look_for_what_is_asked_in_one_round(self, room, monkeypatch):
        """What is asked of tasks in one round of the loop looks at their process once; the next round looks again, and a
        process that has gone meanwhile holds nothing at once.
        """
        monkeypatch.setattr(proc_snapshot, "LOOK_SHARED_SECONDS", 60.0)
        looks = []
        real = Process.program
        task = await room.begin()
        monkeypatch.setattr(Process, "program", lambda self: looks.append(self.pid) or real(self))
        for _ in range(3):
            room.engine.check_active(task)
        assert 1 == len(looks)
        await asyncio.sleep(0)
        room.engine.check_active(task)
        assert 2 == len(looks)
        monkeypatch.setattr(Process, "exited", property(lambda _: True))
        with pytest.raises(TaskOver):
            room.engine.check_active(task)

    async def test_by_a_look_at_the_caller(self, room, monkeypatch):
        """What a look at the caller has found does for the tasks that it holds, in that round of the loop and in no
        other; but that it has gone is looked at each time.
        """
        process = room.add(child())
        peer = peer_of(process)
        room.callback(peer.close)
        looks = EachRound(lambda: Looks(lambda: 0.0))
        holders = Holders(9, looks=looks)
        hold = holders.hold(holder_of(process), 1000)
        looks.get().of(peer)
        monkeypatch.setattr(Process, "program", lambda _: Program(1, 2))
        assert "" == holders.lost(hold)
        await asyncio.sleep(0)
        assert ATTESTATION_CHANGED == holders.lost(hold)
        monkeypatch.undo()
        await asyncio.sleep(0)
        looks.get().of(peer)
        assert "" == holders.lost(hold)
        process.kill()
        process.wait()
        assert HOLDER_EXITED == holders.lost(hold)
        hold.release()
