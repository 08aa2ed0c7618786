"""engine.py: tasks begin, give tokens and end, whatever happens. Holders are real processes."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.children import child, holder_of, peer_of, waiting_child
from fakes.registrations import NODE, OTHER_NODE, TRUST_DOMAIN, FakeEntryStore, entry
from fakes.task_room import (
    DEADLINE_SECONDS,
    EPOCH,
    HOLDERS,
    ISSUER,
    KEY,
    READ_TICKETS,
    TRIAGE_ENTRY,
    Room,
    beginning_of,
    end_all,
)
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from harness.looking import descriptors
from sojourn._pb.sojourn.v1 import validation_pb2
from sojourn.attestation.process import Process, Program
from sojourn.errors import (
    ActionOutsideType,
    AttestationFailed,
    Bug,
    InvalidInput,
    InvalidTarget,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    StoreFailed,
    TaskOver,
    UnknownTaskType,
)
from sojourn.identity.claims import JwtClaims
from sojourn.identity.registry import Change, Registry
from sojourn.oversight.audit import Audit
from sojourn.sdk.feed import TaskFeed
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks import holding as holding_module
from sojourn.tasks import journal as journal_module
from sojourn.tasks import live as live_module
from sojourn.tasks import tokens
from sojourn.tasks.beginning import BeginRequest, Bond
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.grants import Authority, Grant

TYPES = {
    "triage": task_type(),
    "read-only": task_type(
        "read-only",
        '@id("read") permit (principal, action in [Sojourn::Action::"ticket:read"], resource);',
    ),
    "nothing": task_type("nothing", '@id("none") forbid (principal, action, resource);'),
}


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


@pytest.fixture
async def task(room):
    return await room.begin()


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
        before = descriptors()
        with pytest.raises(error):
            await room.begin(**arguments)
        assert ([], {}, []) == (room.engine.tasks.all(), room.store.rows, room.store.names)
        assert before == descriptors()

    async def test_journal_comes_before_the_answer(self, room):
        """A task is in the journal when it is answered for."""
        task = await room.begin()
        assert {task.id: ("active", task.version)} == room.store.rows
        assert ["task_begun"] == room.store.names

    async def test_no_journal_no_task(self, room):
        """If the journal does not take it, nothing has begun, and validators hear nothing."""
        room.store.failure = StoreFailed("no")
        before = descriptors()
        with room.engine.feed.watch([TICKETS]) as watcher, pytest.raises(StoreFailed):
            await room.begin()
        assert ([], [], []) == (room.engine.tasks.all(), room.engine.tasks.ended(), watcher.take())
        assert before == descriptors()

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
        assert {} == room.engine.tasks._counted

    async def test_limit_of_live_tasks(self, room, monkeypatch):
        """All users' tasks together are limited."""
        monkeypatch.setattr(live_module, "LIVE_TASKS", 1)
        await room.begin()
        with pytest.raises(LimitExceeded):
            await room.begin()


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

    async def test_a_journal_that_recovers(self, room, task, monkeypatch):
        """An end that the journal refuses is tried again until it is written."""
        monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0)
        room.store.failure = StoreFailed("not now")
        ending = asyncio.ensure_future(room.engine.revoke(task, "because"))
        room.store.writing.clear()
        await room.store.writing.wait()
        room.store.failure = None
        await ending
        assert "revoked" == room.store.rows[task.id][0]

    async def test_ending_lets_go_of_the_holder(self, room):
        """The holder's descriptor is closed when its task ends."""
        before = descriptors()
        task = await room.begin()
        assert before + 1 == descriptors()
        await room.engine.revoke(task, "because")
        assert before == descriptors()

    async def test_a_bounded_number_of_ended_tasks_is_kept(self, room, monkeypatch):
        """Of the ended tasks the oldest are forgotten; their tokens are refused all the same."""
        monkeypatch.setattr(live_module, "ENDED_TASKS_KEPT", 1)
        first, second = await room.begin(), await room.begin()
        token = await room.engine.token(first, TICKETS, ())
        end_all(room.engine)
        assert ([second], None) == (room.engine.tasks.ended(), room.engine.tasks.find(first.id))
        with pytest.raises(TaskOver):
            room.engine.check_token(token)

    async def test_end_hook_is_called_once(self, room, task):
        """The stream that is the task hears of its end, once."""
        calls = []
        room.engine.on_change(task, lambda _: calls.append(task.state))
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


class TestTokens:
    async def test_says_what_the_task_may(self, room, task, clock):
        """A token names its task, one audience and the wanted actions, and verifies."""
        token = await room.engine.token(task, TICKETS, ["ticket:read"])
        read = tokens.verify(token.token, keys={KEY.kid: KEY.public}, issuer=ISSUER, audience=TICKETS, now=clock.now())
        assert (TICKETS, ("ticket:read",), task.id, task.version, TRIAGE) == (
            read.resource,
            read.actions,
            read.task_id,
            read.task_version,
            str(read.spiffe_id),
        )
        room.engine.check_token(read)

    async def test_is_recorded_before_it_is_given(self, room, task):
        """The journal names a token by its jti and never holds it."""
        token = await room.engine.token(task, TICKETS, ())
        (fields,) = room.store.fields("token_issued")
        assert (token.claims["jti"], task.id) == (fields["jti"], fields["task"])
        assert not any(token.token in event.fields for event in room.store.events)
        assert 1 == task.tokens_issued

    async def test_no_record_no_token(self, room, task):
        """If the journal does not take the record, there is no token."""
        room.store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await room.engine.token(task, TICKETS, ())
        room.store.failure = None
        assert 0 == task.tokens_issued

    @pytest.mark.parametrize("end", ["revoked", "deadline", "holder"])
    async def test_an_end_while_the_record_is_written(self, room, clock, end):
        """A token whose task ends while its record is written is never given."""
        holder = room.add(child())
        task = await room.begin(holder=holder)
        room.store.gate = asyncio.Event()
        room.store.writing.clear()
        issuing = asyncio.ensure_future(room.engine.token(task, TICKETS, ()))
        await room.store.writing.wait()
        if end == "revoked":
            room.engine.end(task, "revoked", "because")
        elif end == "holder":
            holder.kill()
            await room.ended(task)
        else:
            clock.advance(15 * 60)
        room.store.gate.set()
        with pytest.raises(TaskOver):
            await issuing
        assert 0 == task.tokens_issued

    @pytest.mark.parametrize(
        ("resource", "actions", "error"),
        [
            ("", (), InvalidInput),
            (WIKI + "/", (), InvalidTarget),
            (TICKETS.upper(), (), InvalidTarget),
            (WIKI, ("ticket:read",), ActionOutsideType),
            (TICKETS, ("ticket:read", "ticket:delete"), ActionOutsideType),
        ],
    )
    async def test_never_more_than_the_task(self, room, task, resource, actions, error):
        """A token for anything beyond the task is refused, not clipped."""
        with pytest.raises(error):
            await room.engine.token(task, resource, actions)
        assert [] == room.store.fields("token_issued")

    async def test_the_only_resource_need_not_be_named(self, room):
        """For a task with one resource, that is the default."""
        task = await room.begin(wanted=READ_TICKETS)
        assert TICKETS == (await room.engine.token(task, "", ())).resource

    async def test_policy_is_asked_again(self, clock):
        """Each token is decided by policy as it is now: here, only the first two."""
        cedar = '@id("two") permit (principal, action, resource) when { principal.tokens_issued < 2 };'
        room = Room(clock, {"triage": task_type("triage", cedar)})
        try:
            task = await room.begin()
            for _ in range(2):
                await room.engine.token(task, TICKETS, ())
            with pytest.raises(PolicyDenied):
                await room.engine.token(task, TICKETS, ())
        finally:
            room.end_everything()

    @pytest.mark.parametrize(
        ("life", "subject", "expected"),
        [(0, None, 60), (20, None, 20), (0, 5, 5), (20, 30, 20), (30, 20, 20)],
        ids=["type", "task", "subject", "task before subject", "subject before task"],
    )
    async def test_ends_with_the_first_to_end(self, room, clock, life, subject, expected):
        """A token ends with its type's limit, its task or the subject token, whichever is first."""
        task = await room.begin(max_seconds=life)
        not_after = clock.now() + timedelta(seconds=subject) if subject else None
        token = await room.engine.token(task, TICKETS, (), not_after=not_after)
        assert expected == token.claims["exp"] - clock.now().timestamp()

    async def test_less_than_a_second_is_no_life(self, room, clock):
        """Where not even one whole second is left there is no token."""
        task = await room.begin(max_seconds=1.5)
        clock.advance(1.2)
        with pytest.raises(TaskOver):
            await room.engine.token(task, TICKETS, ())

    async def test_old_tokens_die_with_their_task(self, room, task):
        """A token is refused as soon as its task has ended."""
        token = await room.engine.token(task, TICKETS, ())
        room.engine.check_token(token)
        room.engine.end(task, "revoked", "because")
        with pytest.raises(TaskOver, match="because"):
            room.engine.check_token(token)

    async def test_a_token_older_than_the_task_s_last_change(self, room, task):
        """A token of an earlier version of its task is refused."""
        token = await room.engine.token(task, TICKETS, ())
        task.version += 1
        with pytest.raises(TaskOver, match="changed"):
            room.engine.check_token(token)


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
        """A descendant of the holder finds the task only if that is a session."""
        own = Process.open(os.getpid())  # this test is its children's parent
        task = await room.beginning.begin(
            room.peer, (TRIAGE_ENTRY,), BeginRequest("triage", {}), Bond(own, "process", session)
        )
        if session:
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
        room.engine.entries_changed([Change(TRIAGE_ENTRY, new)])
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
        room.engine.entries_changed(changes)
        assert task.live

    @pytest.mark.parametrize(
        "changes", [{"parent_id": OTHER_NODE}, {"expires_at": 1}], ids=["given to another node", "expired by an update"]
    )
    async def test_an_update_after_which_the_entry_is_not_served(self, room, clock, changes):
        """A task ends when an update leaves its holder without the entry: the caller has no identity any more."""
        registry = Registry(FakeEntryStore([TRIAGE_ENTRY]), TRUST_DOMAIN, [NODE], clock, room.alarms)
        registry.on_change(room.engine.entries_changed)
        task = await room.begin()
        await registry.update([(TRIAGE_ENTRY.id, lambda old: replace(old, **changes))])
        assert () == registry.match(TRIAGE_ENTRY.selectors)
        assert not task.live

    async def test_an_entry_that_expires(self, room, clock):
        """A task ends when the entry that earned its holder the identity expires."""
        ends = entry("/agent/triage", expires_at=int(clock.now().timestamp()) + 30)
        registry = Registry(FakeEntryStore([ends]), TRUST_DOMAIN, [NODE], clock, room.alarms)
        registry.on_change(room.engine.entries_changed)
        task = await room.begin(entries=(ends,))
        clock.advance(30)
        room.alarms.ring_due()
        assert ("revoked", "attestation_changed") == (task.state, task.reason)


class TestHolders:
    async def test_one_descriptor_for_many_tasks(self, room):
        """However many tasks a process holds, it takes one descriptor, until the last of them has ended."""
        before = descriptors()
        tasks = [await room.begin() for _ in range(5)]
        assert (before + 1, 1) == (descriptors(), len(room.holders))
        for task in tasks:
            await room.engine.revoke(task, "because")
        assert (before, 0) == (descriptors(), len(room.holders))

    async def test_all_tasks_end_with_it(self, room):
        """When a process ends, so do all tasks that it holds, and no other."""
        holder = room.add(child())
        tasks = [await room.begin(holder=holder) for _ in range(3)]
        other = await room.begin()
        holder.kill()
        for task in tasks:
            await room.ended(task)
        assert (["holder_exited"] * 3, True) == ([task.reason for task in tasks], other.live)

    async def test_a_limited_number(self, room):
        """More processes than may hold tasks are refused, and leave nothing behind."""
        for _ in range(HOLDERS):
            await room.begin(holder=room.add(child()))
        stranger = room.add(child())
        before = descriptors()
        with pytest.raises(LimitExceeded):
            await room.begin(holder=stranger)
        assert before == descriptors()
        assert HOLDERS == len(room.engine.tasks.all())

    async def test_room_for_others(self, room):
        """A user whose processes hold all that they may leaves room for another user's."""
        for _ in range(HOLDERS):
            await room.begin(holder=room.add(child()))
        hold = room.holders.hold(holder_of(room.add(child())), 4999, lambda: None)
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


def gone(_process):
    raise AttestationFailed("the process has gone")


def kernel_tells_exits():
    """Whether a pidfd tells how its process ended (Linux 6.15)."""
    with waiting_child() as gone:
        pinned = holder_of(gone)
        gone.communicate()
        status = pinned.exit_status()
        pinned.close()
    return status == 0


class TestOneShot:
    @pytest.mark.skipif(not kernel_tells_exits(), reason="needs Linux 6.15: a pidfd tells how its process ended")
    async def test_an_heir_that_dies_meanwhile(self, room, clock, helper, heir, monkeypatch):
        """An heir that goes while the task is handed over ends the task, and nothing else."""
        task = await self.one_shot(room, helper, heir)
        await self.leaves(room, task, helper)
        monkeypatch.setattr(Process, "again", gone)
        self.decide(room, clock, helper)
        assert ("revoked", "holder_exited") == (task.state, task.reason)

    """A one-shot token belongs to whoever ran the helper that fetched it, once that has returned 0."""

    @pytest.fixture
    def helper(self, room):
        return room.add(waiting_child())

    @pytest.fixture
    def heir(self, room):
        return room.add(child())

    async def one_shot(self, room, helper, heir):
        return await room.beginning.begin(
            room.peer,
            (TRIAGE_ENTRY,),
            BeginRequest("triage", {}),
            Bond(holder_of(helper), "one-shot", heir=holder_of(heir)),
        )

    async def leaves(self, room, task, helper, *, kill=False):
        """End the helper and return when the engine has seen that."""
        with room.engine.feed.watch([TICKETS]) as watcher:
            if kill:
                helper.kill()
            else:
                helper.stdin.close()
                helper.stdin = None
            async with asyncio.timeout(DEADLINE_SECONDS):
                await watcher.changed.wait()
        assert "suspended" == task.state  # nobody has collected the helper yet

    def decide(self, room, clock, helper):
        """Collect the helper, and let the engine look again until it knows how the helper ended."""
        helper.wait()
        for _ in range(20):
            clock.advance(1)
            room.alarms.ring_due()

    @pytest.mark.skipif(not kernel_tells_exits(), reason="needs Linux 6.15: a pidfd tells how its process ended")
    async def test_passes_on_when_the_helper_succeeds(self, room, clock, helper, heir):
        """A helper that returns 0 hands its task to its runner, with which the task then lives and dies."""
        task = await self.one_shot(room, helper, heir)
        await self.leaves(room, task, helper)
        self.decide(room, clock, helper)
        assert ("active", heir.pid) == (task.state, task.holder.pid)
        await room.engine.token(task, TICKETS, ())
        heir.kill()
        await room.ended(task)
        assert "holder_exited" == task.reason

    @pytest.mark.skipif(not kernel_tells_exits(), reason="needs Linux 6.15: a pidfd tells how its process ended")
    async def test_validators_follow(self, room, clock, helper, heir):
        """A validator that heard of the suspension accepts the task's tokens again afterwards."""
        task = await self.one_shot(room, helper, heir)
        token = await room.engine.token(task, TICKETS, ())
        validator = TaskFeed(None, [TICKETS])
        with room.engine.feed.watch([TICKETS]) as watcher:
            await self.leaves(room, task, helper)
            heard = watcher.take()
            self.decide(room, clock, helper)
            heard += watcher.take()
        for state in heard:
            validator._note(
                validation_pb2.TaskState(
                    id=state.id,
                    version=state.version,
                    live=state.live,
                    reason=state.reason,
                    suspended=state.suspended,
                )
            )
        assert [False, True] == [state.live for state in heard]
        known = validator.lookup(task.id)
        assert "active" == task.state
        assert known.live
        assert known.version <= token.task_version

    async def test_nobody_may_use_it_until_that_is_known(self, room, helper, heir):
        """Until it is known how the helper ended, the task gives no tokens and its tokens are refused."""
        task = await self.one_shot(room, helper, heir)
        token = await room.engine.token(task, TICKETS, ())
        await self.leaves(room, task, helper)
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        with pytest.raises(TaskOver):
            await room.engine.token(task, TICKETS, ())

    async def test_not_when_the_helper_fails(self, room, clock, helper, heir):
        """A helper that is killed takes its task with it."""
        task = await self.one_shot(room, helper, heir)
        await self.leaves(room, task, helper, kill=True)
        self.decide(room, clock, helper)
        assert ("revoked", "holder_exited") == (task.state, task.reason)

    async def test_not_to_a_runner_that_has_gone(self, room, clock, helper, heir):
        """If the runner has gone before, the task ends with the helper."""
        task = await self.one_shot(room, helper, heir)
        heir.kill()
        heir.wait()
        await self.leaves(room, task, helper)
        self.decide(room, clock, helper)
        assert ("revoked", "holder_exited") == (task.state, task.reason)

    async def test_a_suspended_task_can_be_revoked(self, room, helper, heir):
        """A task may end while it is not known how its helper ended, and stays so."""
        task = await self.one_shot(room, helper, heir)
        await self.leaves(room, task, helper)
        await room.engine.revoke(task, "because")
        self.decide(room, room.clock, helper)
        assert ("revoked", "because") == (task.state, task.reason)

    async def test_closes_both(self, room, helper, heir):
        """Ending a one-shot task closes the descriptors of helper and runner."""
        assert helper.pid != heir.pid
        before = descriptors()
        task = await self.one_shot(room, helper, heir)
        await room.engine.revoke(task, "because")
        assert before == descriptors()
