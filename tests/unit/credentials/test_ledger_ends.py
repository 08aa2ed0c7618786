"""ledger.py: credentials end with their task, once and at last, and those that were lost are found."""

import asyncio

import pytest
from fakes.credentials import BOTH, ended
from fakes.task_room import READ_TICKETS
from sojourn import limits
from sojourn.credentials.credential import ENDING, GONE, HELD, OPEN
from sojourn.errors import StoreFailed, TaskOver
from sojourn.providers.errors import ProviderRefused
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.end_reasons import HANDOVER

YEAR = 365 * 86_400


class TestTheEnd:
    async def test_at_once(self, cascade, room, task):
        """With its task a credential is over: it is not handed out any more, whatever the disk and the provider do."""
        credential = await cascade.held(task)
        cascade.store.failure = StoreFailed("no")
        room.engine.end(task, "revoked", "admin")
        assert (ENDING, None, cascade.clock.now()) == (credential.state, credential.obtained, credential.over_at)

    async def test_written_later(self, cascade, room, providers, task):
        """It is `ending` on disk until the provider has confirmed, and then gone with a record of how and when."""
        providers["corp"].hanging = asyncio.Event()
        await cascade.held(task)
        room.engine.end(task, "completed", "success")
        await cascade.book.journal.drain()
        assert [ENDING] == list(cascade.store.states.values())
        cascade.clock.advance(2.5)
        providers["corp"].hanging.set()
        await cascade.settled()
        (event,) = ended(cascade)
        assert ({}, "recalled", "completed: success", 2500) == (
            cascade.store.rows,
            *(event[name] for name in ("how", "reason", "residual_ms")),
        )

    @pytest.mark.parametrize(("recall", "how"), [("revoke", "recalled"), ("deny", "denied")])
    @pytest.mark.parametrize("offline", [True, False])
    async def test_how(self, cascade, room, providers, task, recall, how, offline):
        """The record says how it was taken back, and until when services may accept it that do not ask the provider."""
        providers["corp"].recall, providers["corp"].offline = recall, offline
        credential = await cascade.held(task)
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        (event,) = ended(cascade)
        until = int(credential.expires_at.timestamp()) if offline else None
        assert (how, until) == (event["how"], event.get("accepted_until"))

    async def test_suspended(self, cascade, room, providers, task):
        """A suspended task has its credentials no more, and not again when it is resumed."""
        changing = TaskChanges(room.engine)
        credential = await cascade.held(task)
        await changing.suspend(task, "operator", "wait")
        await changing.resume(task, "operator")
        await cascade.settled()
        assert (GONE, 1, True) == (credential.state, len(providers["corp"].ended), task.state == "active")

    async def test_handed_over(self, cascade, room, providers, task):
        """While a one-shot task goes from a helper to whoever ran it, what the helper fetched stays the task's."""
        credential = await cascade.held(task)
        task.suspend(HANDOVER, "holder_exited")
        room.engine.announce(task)
        assert (HELD, []) == (credential.state, providers["corp"].ended)
        task.suspend("operator", "wait")
        room.engine.announce(task)
        assert ENDING == credential.state

    async def test_narrowed(self, cascade, room, task):
        """A narrowed task keeps those alone whose actions it still has."""
        kept, lost = await cascade.held(task), await cascade.held(task, grant=BOTH.grants[0])
        await TaskChanges(room.engine).narrow(task, READ_TICKETS, "holder")
        await cascade.settled()
        assert ([HELD, GONE], "narrowed") == ([kept.state, lost.state], ended(cascade)[0]["reason"])

    async def test_tokens_revoked(self, cascade, room, task):
        """When all tokens of a task are revoked those from outside go too; the task gets new ones."""
        old = await cascade.held(task)
        TaskChanges(room.engine).supersede(task)
        new = await cascade.held(task)
        await cascade.settled()
        assert ([GONE, HELD], "token_revoked") == ([old.state, new.state], ended(cascade)[0]["reason"])

    async def test_cannot_be_taken_back(self, cascade, room, task):
        """One that the provider cannot take back is open, which is recorded, until it expires."""
        credential = await cascade.held(task, "mute", life=300)
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        (event,) = cascade.store.fields("external_credential_open")
        assert (OPEN, [OPEN], int(credential.expires_at.timestamp())) == (
            credential.state,
            list(cascade.store.states.values()),
            event["accepted_until"],
        )
        await cascade.later(300)
        (event,) = ended(cascade)
        assert ({}, "unrecallable", 300_000) == (cascade.store.rows, event["how"], event["residual_ms"])

    async def test_good_for_longer_than_was_expected(self, cascade, task):
        """What a provider gives counts until it expires, however short it was expected to be good."""
        credential = await cascade.ask(task, life=1)
        await cascade.book.hold(credential, cascade.obtained(life=300))
        await cascade.later(299)
        assert HELD == credential.state
        await cascade.later(1)
        assert GONE == credential.state

    @pytest.mark.parametrize("step", [-YEAR, -600, 600, YEAR])
    async def test_the_wall_clock_is_set(self, cascade, room, task, step):
        """What a credential outlives its task by is measured by the clock that nobody can set."""
        await cascade.held(task, "mute", life=100)
        cascade.clock.step_wall(step)
        room.engine.end(task, "completed", "success")
        await cascade.later(99)
        assert [] == ended(cascade)
        await cascade.later(1)
        assert ("unrecallable", 100_000) == tuple(ended(cascade)[0][name] for name in ("how", "residual_ms"))

    async def test_expires_while_its_task_lives(self, cascade, providers, task):
        """One that expires while its task lives is gone, and was never more than the task had."""
        await cascade.held(task, life=300)
        await cascade.later(300)
        (event,) = ended(cascade)
        assert ("expired", False, []) == (event["how"], "residual_ms" in event, providers["corp"].ended)

    async def test_over_while_it_is_obtained(self, cascade, room, providers, task):
        """What a provider gives for a task that has ended meanwhile is not handed out, and is taken back."""
        credential = await cascade.ask(task)
        room.engine.end(task, "revoked", "admin")
        with pytest.raises(TaskOver):
            await cascade.book.hold(credential, cascade.obtained())
        await cascade.settled()
        assert (None, [{"refresh": "h4ndle"}], {}) == (
            credential.obtained,
            [dict(each.handle) for each in providers["corp"].ended],
            cascade.store.rows,
        )

    async def test_over_and_back_while_it_is_obtained(self, cascade, room, task):
        """What was asked for before a suspension is not handed out, though the task is active again."""
        changing = TaskChanges(room.engine)
        credential = await cascade.ask(task)
        await changing.suspend(task, "operator", "wait")
        await changing.resume(task, "operator")
        with pytest.raises(TaskOver):
            await cascade.book.hold(credential, cascade.obtained())
        assert credential.obtained is None

    @pytest.mark.parametrize("late", [0, 1000])
    async def test_over_while_it_is_noted(self, cascade, room, providers, task, late):
        """A task that ends while the credential is being written does not get it: by its end, or as its time is up."""
        credential = await cascade.ask(task)
        cascade.store.gate = asyncio.Event()
        holding = asyncio.ensure_future(cascade.book.hold(credential, cascade.obtained(life=5000)))
        await asyncio.sleep(0)
        cascade.clock.advance(late)  # no alarm has rung yet
        if not late:
            room.engine.end(task, "revoked", "admin")
        cascade.store.gate.set()
        with pytest.raises(TaskOver):
            await holding
        await cascade.settled()
        assert (None, 1, {}) == (credential.obtained, len(providers["corp"].ended), cascade.store.rows)

    async def test_over_before_the_provider_is_asked(self, cascade, room, providers, task):
        """For a task that ends while it is noted no provider is asked."""
        cascade.store.gate = asyncio.Event()
        asking = asyncio.ensure_future(cascade.ask(task))
        while not len(cascade.book.index):
            await asyncio.sleep(0)
        room.engine.end(task, "revoked", "admin")
        cascade.store.gate.set()
        with pytest.raises(TaskOver):
            await asking
        await cascade.settled()
        assert ({}, []) == (cascade.store.rows, providers["corp"].ended)

    async def test_of_that_task_alone(self, cascade, room, task):
        """The end of a task touches no other one's credentials."""
        other = await room.begin(wanted=READ_TICKETS)
        await cascade.held(task)
        theirs = await cascade.held(other)
        room.engine.end(task, "revoked", "admin")
        await cascade.settled()
        assert (HELD, [task.id]) == (theirs.state, [each["task"] for each in ended(cascade)])


class TestLost:
    async def test_nobody_had_it(self, cascade, room, providers, task):
        """One whose answer was lost is told so, and is taken back without a handle when its task is over."""
        credential = await cascade.ask(task)
        cascade.book.lost(credential, "no answer")
        await cascade.settled()
        (event,) = cascade.store.fields("external_credential_lost")
        assert (False, "no answer", int(credential.expires_at.timestamp()), []) == (
            *(event[name] for name in ("handed_out", "reason", "accepted_until")),
            providers["corp"].ended,
        )
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        assert ([{}], "recalled", False) == (
            [dict(each.handle) for each in providers["corp"].ended],
            *(ended(cascade)[0][name] for name in ("how", "handed_out")),
        )

    async def test_cannot_be_taken_back_without_a_handle(self, cascade, room, providers, task):
        """One that cannot be is open until it cannot be good any more, and the record says that nobody had it."""
        providers["corp"].answers = [ProviderRefused("needs a handle")]
        cascade.book.lost(await cascade.ask(task, life=600), "no answer")
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        assert [OPEN] == list(cascade.store.states.values())
        await cascade.later(600)
        (event,) = ended(cascade)
        assert ("lost", False, "needs a handle") == (event["how"], event["handed_out"], event["fault"])

    async def test_stays_the_tasks(self, cascade, room, providers, task):
        """A suspension takes back what the task had, and not what nobody has: that would cost it what comes next."""
        cascade.book.lost(await cascade.ask(task), "no answer")
        await TaskChanges(room.engine).suspend(task, "operator", "wait")
        await cascade.settled()
        assert [] == providers["corp"].ended

    async def test_lost_again_and_again(self, cascade, task):
        """A provider that never answers does not use up a task's room: of those of one resource the last is kept."""
        for _ in range(limits.PROVIDER_CREDENTIALS_PER_TASK + 5):
            cascade.book.lost(await cascade.ask(task), "no answer")
        await cascade.settled()
        assert (1, 1) == (len(cascade.book.of(task.id)), len(cascade.store.rows))

    async def test_the_task_ended_meanwhile(self, cascade, room, providers, task):
        """One that is lost after its task has ended is taken back at once."""
        credential = await cascade.ask(task)
        room.engine.end(task, "completed", "success")
        cascade.book.lost(credential, "no answer")
        await cascade.settled()
        assert (1, {}) == (len(providers["corp"].ended), cascade.store.rows)

    async def test_nobody_ever_told(self, cascade, task):
        """One of which nobody tells what came of it does not stay for ever."""
        await cascade.ask(task, life=1)
        await cascade.later(2 * limits.PROVIDER_DEADLINE_MAX_SECONDS)
        assert ({}, "lost") == (cascade.store.rows, ended(cascade)[0]["how"])
