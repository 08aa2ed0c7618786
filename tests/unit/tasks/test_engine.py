"""engine.py: tasks begin, are in one state after the other, and end in time. Holders are real processes."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from fakes.children import child, holder_of
from fakes.engine_types import TYPES
from fakes.registrations import entry
from fakes.task_room import (
    EPOCH,
    ISSUER,
    READ_TICKETS,
    TRIAGE_ENTRY,
    Room,
    beginning_of,
    end_all,
)
from fakes.task_types import TICKETS, TRIAGE, task_type
from harness.looking import PIDFD, OpenFiles
from sojourn.audit.journal import Audit
from sojourn.errors import (
    ActionOutsideType,
    AttestationFailed,
    Bug,
    InvalidInput,
    InvalidTarget,
    LimitExceeded,
    PolicyDenied,
    StoreFailed,
    TaskOver,
    UnknownTaskType,
)
from sojourn.errors.oauth import NotOnDisk
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks import registry as live_module
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.engine import TaskEngine
from sojourn.tasktoken.grants import Authority, Grant


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


class TestBegin:
    async def test_holds_what_the_type_allows(self, room):
        """A task for which nothing in particular is wanted gets what policy leaves of its type."""
        task = await room.begin("read-only")
        assert READ_TICKETS == task.authority
        assert ("active", TRIAGE, TRIAGE_ENTRY.id) == (task.state, str(task.spiffe_id), task.entry_id)

    async def test_holds_what_is_wanted_and_no_more(self, room):
        """A task gets the grants that were wanted if they are all allowed."""
        assert READ_TICKETS == (await room.begin(wanted=READ_TICKETS)).authority

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            pytest.param({"name": "unheard-of"}, UnknownTaskType, id="unknown type"),
            pytest.param({"entries": ()}, PolicyDenied, id="no identity"),
            pytest.param({"entries": (entry("/web"),)}, PolicyDenied, id="identity that may not"),
            pytest.param({"spiffe_id": SpiffeId.parse("spiffe://example.org/web")}, PolicyDenied, id="other identity"),
            pytest.param({"name": "nothing"}, PolicyDenied, id="policy leaves nothing"),
            pytest.param(
                {"name": "read-only", "wanted": Authority((Grant(TICKETS, ("ticket:read", "ticket:write")),))},
                PolicyDenied,
                id="wanted and denied",
            ),
            pytest.param(
                {"wanted": Authority((Grant(TICKETS, ("ticket:delete",)),))}, ActionOutsideType, id="unknown action"
            ),
            pytest.param(
                {"wanted": Authority((Grant(TICKETS + "/", ("ticket:read",)),))}, InvalidTarget, id="other target"
            ),
            pytest.param({"params": {"colour": "red"}}, InvalidInput, id="unknown parameter"),
            pytest.param({"max_seconds": 0.5}, InvalidInput, id="too short"),
            pytest.param({"max_seconds": -1}, InvalidInput, id="negative"),
        ],
    )
    async def test_refusals_leave_nothing_behind(self, room, arguments, error):
        """What may not begin does not: no task, no record, and the holder's descriptor is closed."""
        before = OpenFiles()
        with pytest.raises(error):
            await room.begin(**arguments)
        assert ([], {}, []) == (room.engine.tasks.all(), room.store.rows, room.store.names)
        assert [] == before.opened_since()

    async def test_journal_comes_before_the_answer(self, room):
        """A task is in the journal when it is answered for."""
        task = await room.begin()
        assert {task.id: ("active", task.version)} == room.store.rows
        assert ["task_begun"] == room.store.names

    async def test_no_journal_no_task(self, room):
        """If the journal does not take it, nothing has begun, and validators hear nothing."""
        room.store.failure = StoreFailed("no")
        before = OpenFiles()
        with room.engine.feed.watch([TICKETS]) as watcher, pytest.raises(StoreFailed):
            await room.begin()
        assert ([], [], []) == (room.engine.tasks.all(), room.engine.tasks.ended(), watcher.take())
        assert [] == before.opened_since()

    async def test_holder_gone_while_it_is_written(self, room):
        """If the holder goes while the journal is written, the caller is refused and the end is recorded too."""
        holder = room.add(child())
        room.store.gate = asyncio.Event()
        beginning = asyncio.ensure_future(room.begin(holder=holder))
        await room.store.writing.wait()
        (task,) = room.engine.tasks.all()
        holder.kill()
        await room.ended(task)
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await beginning
        await room.engine.journal.drain()
        assert ["task_begun", "task_ended"] == room.store.names

    async def test_a_caller_that_leaves_while_it_is_written(self, room):
        """If the caller gives up while the journal is written, no task stays active in the journal."""
        room.store.gate = asyncio.Event()
        beginning = asyncio.ensure_future(room.begin())
        await room.store.writing.wait()
        (task,) = room.engine.tasks.all()
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        room.store.gate.set()
        await room.store.quiet()
        await room.engine.journal.drain()
        assert [] == room.engine.tasks.all()
        assert room.store.rows.get(task.id, ("never", 0))[0] != "active"

    async def test_a_holder_that_has_gone_already(self, room):
        """Nothing begins for a process that has ended."""
        with child() as gone:
            holder = holder_of(gone)
            gone.kill()
            gone.wait()
            with pytest.raises(AttestationFailed):
                await room.beginning.begin(
                    room.peer, (TRIAGE_ENTRY,), BeginRequest("triage", {}), Bond(holder, "process")
                )
        assert {} == room.store.rows

    async def test_limit_of_live_tasks_for_each_user(self, room, monkeypatch):
        """One user's tasks are limited, and an ended one makes room."""
        monkeypatch.setattr(live_module, "LIVE_TASKS_PER_UID", 1)
        task = await room.begin()
        with pytest.raises(LimitExceeded):
            await room.begin()
        await room.engine.complete(task, failed=False)
        assert (await room.begin()).live

    async def test_limit_of_live_tasks_for_all_uids_of_a_user(self, room, monkeypatch):
        """Tasks of uids that a user may become count as that user's, as whose they counted when they began."""
        monkeypatch.setattr(live_module, "LIVE_TASKS_PER_UID", 2)
        owners = dict.fromkeys((room.peer.uid, 100_001, 100_002), 4001)
        room.engine.tasks._user = lambda uid: owners.get(uid, uid)
        peers = [replace(room.peer, uid=uid) for uid in owners]
        tasks = [await room.begin(peer=peer) for peer in peers[:2]]
        with pytest.raises(LimitExceeded):
            await room.begin(peer=peers[2])
        stranger = await room.begin(peer=replace(room.peer, uid=100_003))
        owners.clear()  # the range is taken away
        for task in (*tasks, stranger):
            await room.engine.complete(task, failed=False)
        assert {} == room.engine.tasks._per_owner
        assert 0 == len(room.engine.tasks)

    async def test_limit_of_live_tasks(self, room):
        """All users' tasks together are limited."""
        room.engine.tasks.room = 1
        await room.begin()
        with pytest.raises(LimitExceeded):
            await room.begin()

    async def test_users_who_take_all_they_may(self, room):
        """However many users take all they may, the next one has some of what there is, while there is any."""
        room.engine.tasks.room = 16
        found = []
        for uid in range(100_000, 100_004):
            before = len(room.engine.tasks)
            with suppress(LimitExceeded):
                for _ in range(16):
                    await room.begin(peer=replace(room.peer, uid=uid))
            found.append(len(room.engine.tasks) - before)
        assert [8, 4, 2, 1] == found


class TestWeight:
    """What the parameters of tasks take in memory."""

    @pytest.fixture
    async def room(self, clock):
        async with Room(
            clock, TYPES | {"large": task_type("large", params='{text = {type = "string"}}')}
        ).running() as room:
            yield room

    async def test_of_each_user(self, room):
        """Nobody has tasks whose parameters take more than half of what others leave; short ones go on for others."""
        room.engine.tasks.param_bytes = 64 * 1024
        large, other = {"text": "x" * 4_000}, replace(room.peer, uid=4002)
        tasks = [await room.begin("large", params=large) for _ in range(8)]
        with pytest.raises(LimitExceeded, match="parameters"):
            await room.begin("large", params=large)
        await room.begin("large", params=large, peer=other)
        await room.engine.complete(tasks[0], failed=False)
        await room.begin("large", params=large)

    async def test_of_those_that_ended(self, room, monkeypatch):
        """Of tasks that ended those are kept, the last ones, whose parameters have room, and it is told which are not."""
        monkeypatch.setattr("sojourn.tasks.registry.ENDED_TASKS_PARAM_BYTES", 20_000)
        forgotten = []
        for number in range(6):
            task = await room.begin("large", params={"text": "x" * 4_000})
            room.engine.tasks.on_forget(task, partial(forgotten.append, number))
            await room.engine.complete(task, failed=False)
        assert (4, [0, 1]) == (len(room.engine.tasks.ended()), forgotten)
        for _ in range(3):
            await room.engine.complete(await room.begin(), failed=False)
        assert 7 == len(room.engine.tasks.ended())


class TestVersions:
    async def test_epoch_and_counter(self, room):
        """A version is the epoch above a counter that grows with each task."""
        first, second = await room.begin(), await room.begin()
        assert [(EPOCH, 1), (EPOCH, 2)] == [divmod(each.version, 2**32) for each in (first, second)]

    async def test_an_end_is_a_later_version(self, room, task):
        """A task's version grows when it ends, in memory, in the journal and for validators."""
        before = task.version
        with room.engine.feed.watch([TICKETS]) as watcher:
            await room.engine.revoke(task, "because")
        (state,) = watcher.take()
        assert task.version > before
        assert ("revoked", task.version) == room.store.rows[task.id]
        assert (task.version, False) == (state.version, state.live)

    async def test_a_restart_is_later_than_all_before(self, clock, room, task):
        """The first version of the next epoch is larger than any of this one."""
        audit = Audit(room.store, clock)
        later = TaskEngine(
            TYPES, room.store, audit, room.engine.keys, ISSUER, EPOCH + 1, clock, room.alarms, room.holders
        )
        next_task = await beginning_of(later, room.store, audit).begin(
            room.peer, (TRIAGE_ENTRY,), BeginRequest("triage", {}), Bond(holder_of(room.process), "process")
        )
        end_all(later)
        assert next_task.version > (EPOCH << 32 | 0xFFFFFFFF)
        assert task.version < next_task.version


class TestStates:
    @pytest.mark.parametrize(("failed", "reason"), [(False, "success"), (True, "failure")])
    async def test_complete(self, room, task, failed, reason):
        """A completed task says how it went, on disk when `complete` returns."""
        await room.engine.complete(task, failed=failed)
        assert ("completed", reason) == (task.state, task.reason)
        assert "completed" == room.store.rows[task.id][0]
        assert [{"state": "completed", "reason": reason}] == [
            {name: fields[name] for name in ("state", "reason")} for fields in room.store.fields("task_ended")
        ]

    @pytest.mark.parametrize("again", ["complete", "revoke"])
    async def test_a_terminal_state_stays(self, room, task, again):
        """An ended task stays as it ended, whatever is asked of it afterwards."""
        await room.engine.revoke(task, "first")
        version = task.version
        if again == "complete":
            await room.engine.complete(task, failed=False)
        else:
            await room.engine.revoke(task, "second")
        assert ("revoked", "first", version) == (task.state, task.reason, task.version)
        assert 1 == room.store.names.count("task_ended")

    async def test_ending_twice_is_a_bug(self, room, task):
        """The engine itself never ends a task twice."""
        await room.engine.revoke(task, "first")
        with pytest.raises(Bug):
            room.engine.end(task, "expired", "deadline")

    async def test_an_end_is_an_end_before_it_is_written(self, room, task):
        """While the journal cannot be written an ended task gives no token, and validators know."""
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        with room.engine.feed.watch([TICKETS]) as watcher:
            ending = asyncio.ensure_future(room.engine.revoke(task, "because"))
            await room.store.writing.wait()
            assert [False] == [state.live for state in watcher.take()]
        with pytest.raises(TaskOver):
            await room.engine.token(task, TICKETS, ())
        assert not ending.done()
        room.store.gate.set()
        await ending

    async def test_a_journal_that_recovers(self, room, task):
        """An end that the journal refuses is told as in force and not on disk, and tried again until it is written."""
        room.store.failure = StoreFailed("not now")
        ending = asyncio.ensure_future(room.engine.revoke(task, "because"))
        with pytest.raises(NotOnDisk, match="not on disk yet: not now"):
            await ending
        assert "active" == room.store.rows[task.id][0]
        room.store.failure = None
        await room.engine.revoke(task, "because")
        assert "revoked" == room.store.rows[task.id][0]

    async def test_ending_lets_go_of_the_holder(self, room):
        """The holder's descriptor is closed when its task ends."""
        before = OpenFiles()
        task = await room.begin()
        assert 1 == len(before.opened_since(*PIDFD)) == len(before.opened_since())
        await room.engine.revoke(task, "because")
        assert [] == before.opened_since()

    async def test_a_bounded_number_of_ended_tasks_is_kept(self, room, monkeypatch):
        """Of the ended tasks the oldest are forgotten; their tokens are refused all the same."""
        monkeypatch.setattr(room.engine.tasks._ended, "room", 1)
        first, second = await room.begin(), await room.begin()
        token = await room.engine.token(first, TICKETS, ())
        end_all(room.engine)
        assert ([second], None) == (room.engine.tasks.ended(), room.engine.tasks.find(first.id))
        with pytest.raises(TaskOver):
            room.engine.check_token(token)

    async def test_end_hook_is_called_once(self, room, task):
        """The stream that is the task hears of its end, once."""
        calls = []
        room.engine.announcements.to_holder(task, lambda: calls.append(task.state))
        await room.engine.revoke(task, "because")
        await room.engine.revoke(task, "again")
        assert ["revoked"] == calls

    async def test_holder_gone(self, room):
        """When its holder ends, a task is revoked."""
        holder = room.add(child())
        task = await room.begin(holder=holder)
        holder.kill()
        await room.ended(task)
        assert ("revoked", "holder_exited") == (task.state, task.reason)


class TestDeadline:
    async def test_on_the_boot_clock(self, room, task, clock):
        """A task ends when the boot clock says so."""
        clock.advance(15 * 60)
        room.alarms.ring_due()
        assert ("expired", "deadline") == (task.state, task.reason)

    async def test_not_before(self, room, task, clock):
        """Until its deadline a task lives."""
        clock.advance(15 * 60 - 0.001)
        room.alarms.ring_due()
        assert task.live

    @pytest.mark.parametrize("step", [-86_400, 86_400])
    async def test_a_step_of_the_wall_clock_changes_nothing(self, room, task, clock, step):
        """A wall clock that is set neither ends nor extends a task."""
        clock.step_wall(step)
        room.alarms.ring_due()
        assert task.live
        await room.engine.token(task, TICKETS, ())
        clock.advance(15 * 60)
        room.alarms.ring_due()
        assert "expired" == task.state

    async def test_counts_before_the_alarm_rings(self, room, task, clock):
        """Past its deadline a task gives no token, even if the alarm has not rung yet."""
        clock.advance(15 * 60)
        with pytest.raises(TaskOver, match="time is up"):
            await room.engine.token(task, TICKETS, ())

    async def test_shorter_if_wanted(self, room, clock):
        """A task may be wanted shorter than its type allows."""
        task = await room.begin(max_seconds=30)
        assert (30, timedelta(seconds=30)) == (task.deadline - clock.boot(), task.expires_at - clock.now())

    async def test_never_longer(self, room, clock):
        """A task never gets longer than its type allows."""
        task = await room.begin(max_seconds=1e9)
        assert 15 * 60 == task.deadline - clock.boot()
