"""engine.py: the tokens that tasks give, and tasks of one token. Holders are real processes."""

import asyncio
from datetime import timedelta

import pytest
from fakes.children import child, holder_of, waiting_child
from fakes.engine_types import TYPES, gone
from fakes.task_room import (
    DEADLINE_SECONDS,
    ISSUER,
    KEY,
    READ_TICKETS,
    TRIAGE_ENTRY,
    Room,
)
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from harness.looking import OpenFiles
from sojourn._pb.sojourn.v1 import validation_pb2
from sojourn.attestation.process import Process
from sojourn.errors import (
    ActionOutsideType,
    InvalidInput,
    InvalidTarget,
    PolicyDenied,
    StoreFailed,
    TaskOver,
)
from sojourn.sdk.guard.task_feed import TaskFeed
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasktoken import tokens


@pytest.fixture
async def room(clock):
    async with Room(clock, TYPES).running() as room:
        yield room


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
        before = OpenFiles()
        task = await self.one_shot(room, helper, heir)
        await room.engine.revoke(task, "because")
        assert [] == before.opened_since()
