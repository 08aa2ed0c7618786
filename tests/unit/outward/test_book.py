"""outward/book.py: each credential is on disk before it is used, and what takes it away is true at once."""

import asyncio
import json

import pytest
from fakes.credentials import CORP_TYPE, READ, CascadeRoom, FakeCredentialStore, RecallingProvider
from fakes.task_room import READ_TICKETS, Room
from fakes.task_types import TICKETS
from sojourn import limits
from sojourn.errors import LimitExceeded, StoreFailed, TaskOver
from sojourn.outward import index
from sojourn.outward.credentials import ASKING, ENDING, GONE, HELD, OPEN, JournaledCredential
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.tasks.changing import Changing
from sojourn.tasks.grants import Authority, Grant
from sojourn.tasks.reasons import HANDOVER

YEAR = 365 * 86_400
BOTH = Authority((Grant(TICKETS, ("ticket:read", "ticket:write")),))


@pytest.fixture
async def room(clock):
    async with Room(clock, {"triage": CORP_TYPE}).running() as made:
        yield made


@pytest.fixture
def providers(clock):
    return {"corp": RecallingProvider(clock), "mute": RecallingProvider(clock, recall="none")}


@pytest.fixture
async def cascade(room, providers, tmp_path):
    async with CascadeRoom(room, providers, tmp_path).running() as made:
        yield made


@pytest.fixture
async def task(room):
    return await room.begin(wanted=BOTH)


def ended(cascade):
    return cascade.store.fields("external_credential_ended")


class TestBeforeUse:
    async def test_asked_for(self, cascade, task):
        """That a provider is about to be asked is on disk when `ask` returns, with the latest end."""
        credential = await cascade.ask(task, life=3600)
        (row,) = cascade.store.rows.values()
        assert (ASKING, task.id, "corp") == (row.unverified_state, row.unverified_task_id, row.unverified_provider)
        assert cascade.clock.now().timestamp() + 3600 == row.unverified_expires_at
        assert (credential,) == cascade.book.of(task.id)

    async def test_held(self, cascade, task):
        """What was obtained is on disk with its record when `hold` returns, and only then can be handed out."""
        credential = await cascade.ask(task)
        cascade.store.gate = asyncio.Event()
        holding = asyncio.ensure_future(cascade.book.hold(credential, cascade.obtained(), policies=["all"]))
        await asyncio.sleep(0)
        assert credential.obtained is None
        cascade.store.gate.set()
        await holding
        assert ("s3cret", HELD) == (credential.obtained.token, credential.state)
        assert [HELD] == list(cascade.store.states.values())
        (event,) = cascade.store.fields("external_credential_issued")
        assert (credential.id, task.id, "corp", TICKETS, ["ticket:read"], ["all"], {"sid": "7"}) == (
            *(event[name] for name in ("credential", "task", "provider", "resource", "actions", "policies", "details")),
        )

    async def test_no_secret_is_written(self, cascade, room, task):
        """Neither the token nor what it is taken back by stands in a row or a record, whatever becomes of it."""
        credential = await cascade.held(task)
        rows = [row.unverified_document for row in cascade.store.rows.values()]
        room.engine.end(task, "revoked", "admin")
        await cascade.settled()
        written = b"".join([*rows, *(event.fields.encode() for event in cascade.store.events)])
        assert (False, False) == (b"s3cret" in written, b"h4ndle" in written)
        assert "s3cret" not in repr(credential)

    async def test_no_disk_nobody_is_asked(self, cascade, task):
        """If it cannot be noted, no provider is asked: `ask` raises, and nothing is left of it."""
        cascade.store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await cascade.ask(task)
        assert ((), 0) == (cascade.book.of(task.id), len(cascade.book.index))

    async def test_no_disk_nothing_is_handed_out(self, cascade, providers, task):
        """What cannot be noted is not handed out, and is taken back at once: the agent alone has it."""
        credential = await cascade.ask(task)
        cascade.store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await cascade.book.hold(credential, cascade.obtained())
        await cascade.settled()
        assert (None, [{"refresh": "h4ndle"}]) == (
            credential.obtained,
            [dict(each.handle) for each in providers["corp"].ended],
        )
        cascade.store.failure = None
        await cascade.book.journal.drain()
        assert ({}, "recalled") == (cascade.store.rows, ended(cascade)[0]["how"])

    async def test_whoever_asked_gives_up(self, cascade, task):
        """What was being noted when its caller gave up is not left behind."""
        cascade.store.gate = asyncio.Event()
        asking = asyncio.ensure_future(cascade.ask(task))
        while not len(cascade.book.index):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        cascade.store.gate.set()
        await cascade.settled()
        assert ({}, 0) == (cascade.store.rows, len(cascade.book.index))

    async def test_given_up_while_it_is_noted(self, cascade, providers, task):
        """What was obtained for a caller that gave up meanwhile is taken back."""
        credential = await cascade.ask(task)
        cascade.store.gate = asyncio.Event()
        holding = asyncio.ensure_future(cascade.book.hold(credential, cascade.obtained()))
        await asyncio.sleep(0)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        cascade.store.gate.set()
        await cascade.settled()
        assert (1, {}, GONE) == (len(providers["corp"].ended), cascade.store.rows, credential.state)

    async def test_refused(self, cascade, task):
        """A provider's no leaves a record and nothing else."""
        credential = await cascade.ask(task)
        cascade.book.refused(credential, "not for you")
        await cascade.settled()
        assert ({}, (), GONE) == (cascade.store.rows, cascade.book.of(task.id), credential.state)
        assert ["not for you"] == [each["reason"] for each in cascade.store.fields("external_credential_refused")]

    @pytest.mark.parametrize("part", ["handle", "public"])
    async def test_too_large_to_be_noted(self, cascade, task, part):
        """What a provider tells beyond reason is not kept: the credential counts as lost, and is not handed out."""
        credential = await cascade.ask(task)
        with pytest.raises(LimitExceeded):
            await cascade.book.hold(credential, cascade.obtained(**{part: {"x": "y" * 100_000}}))
        assert (None, True, OPEN) == (credential.obtained, credential.lost, credential.state)

    async def test_expired_on_arrival(self, cascade, task):
        """One that has expired by the time it is noted is not handed out."""
        credential = await cascade.ask(task)
        cascade.store.gate = asyncio.Event()
        holding = asyncio.ensure_future(cascade.book.hold(credential, cascade.obtained(life=1)))
        await asyncio.sleep(0)
        cascade.clock.advance(2)
        cascade.alarms.ring_due()
        cascade.store.gate.set()
        with pytest.raises(ProviderUnavailable, match="has expired"):
            await holding
        assert credential.obtained is None


class TestLimits:
    async def test_of_one_task(self, cascade, task, monkeypatch):
        """A task has so many at once and no more; when one is gone there is room again."""
        monkeypatch.setattr(index, "PROVIDER_CREDENTIALS_PER_TASK", 2)
        first, _ = await cascade.held(task), await cascade.held(task)
        with pytest.raises(LimitExceeded, match="the task has"):
            await cascade.ask(task)
        cascade.book.over(first, "enough")
        await cascade.settled()
        assert (await cascade.ask(task)).state == ASKING

    async def test_of_one_workload_and_of_all(self, cascade, room, task, monkeypatch):
        """One workload has no more than its share, and all have so many together."""
        monkeypatch.setattr(index, "PROVIDER_CREDENTIALS_PER_ID", 1)
        other = await room.begin(wanted=READ_TICKETS)
        await cascade.held(task)
        with pytest.raises(LimitExceeded, match="too many"):
            await cascade.ask(other)
        monkeypatch.setattr(index, "PROVIDER_CREDENTIALS_PER_ID", 9)
        monkeypatch.setattr(index, "PROVIDER_CREDENTIALS", 1)
        with pytest.raises(LimitExceeded, match="too many"):
            await cascade.ask(other)

    def test_one_workload_leaves_room(self):
        """A workload's share is not all that there is."""
        assert limits.PROVIDER_CREDENTIALS_PER_ID < limits.PROVIDER_CREDENTIALS


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
        changing = Changing(room.engine)
        credential = await cascade.held(task)
        await changing.suspend(task, "operator", "wait")
        await changing.resume(task, "operator")
        await cascade.settled()
        assert (GONE, 1, True) == (credential.state, len(providers["corp"].ended), task.state == "active")

    async def test_handed_over(self, cascade, room, providers, task):
        """While a one-shot task goes from a helper to whoever ran it, what the helper fetched stays the task's."""
        credential = await cascade.held(task)
        task.suspend(HANDOVER, "holder_exited")
        room.engine.feed.publish(task)
        assert (HELD, []) == (credential.state, providers["corp"].ended)
        task.suspend("operator", "wait")
        room.engine.feed.publish(task)
        assert ENDING == credential.state

    async def test_narrowed(self, cascade, room, task):
        """A narrowed task keeps those alone whose actions it still has."""
        kept, lost = await cascade.held(task), await cascade.held(task, grant=BOTH.grants[0])
        await Changing(room.engine).narrow(task, READ_TICKETS, "holder")
        await cascade.settled()
        assert ([HELD, GONE], "narrowed") == ([kept.state, lost.state], ended(cascade)[0]["reason"])

    async def test_tokens_revoked(self, cascade, room, task):
        """When all tokens of a task are revoked those from outside go too; the task gets new ones."""
        old = await cascade.held(task)
        Changing(room.engine).supersede(task)
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
        changing = Changing(room.engine)
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
        await Changing(room.engine).suspend(task, "operator", "wait")
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


class TestNextRun:
    """A book with the store of another one is its next run."""

    @pytest.fixture
    def next_run(self, cascade, room, providers, tmp_path):
        """Another run; the same tasks live on in it, as those do whose holders came back."""
        return lambda known=None: CascadeRoom(room, providers if known is None else known, tmp_path, cascade.store)

    @pytest.fixture
    def stopped(self, cascade):
        """Have the first run stop: nothing that happens from now on reaches it."""
        cascade.room.engine.feed._hooks.remove(cascade.book.task_changed)

    async def test_held(self, cascade, next_run, providers, task, stopped):
        """What a task that lives on had is taken back: it was in memory alone, and can be given to nobody."""
        await cascade.held(task)
        async with next_run().running() as after:
            await after.settled()
            assert (1, {}, (), True) == (
                len(providers["corp"].ended),
                after.store.rows,
                after.book.of(task.id),
                task.live,
            )
        assert ("recalled", "agent_restart") == tuple(ended(cascade)[0][name] for name in ("how", "reason"))

    async def test_asking(self, cascade, next_run, room, providers, task, stopped):
        """An answer that was not on disk when the agent was killed is lost; it is taken back when the task is over."""
        await cascade.ask(task)
        async with next_run().running() as after:
            await after.settled()
            assert (["external_credential_lost"], []) == (after.store.names, providers["corp"].ended)
            room.engine.end(task, "completed", "success")
            await after.settled()
            assert ([{}], {}) == ([dict(each.handle) for each in providers["corp"].ended], after.store.rows)

    async def test_what_was_asked_for(self, cascade, next_run, room, providers, task, stopped):
        """What a provider was asked for is known of a lost answer, whatever task types say when it is taken back."""
        await cascade.ask(task)
        room.engine.types = {}
        async with next_run().running() as after:
            room.engine.end(task, "completed", "success")
            await after.settled()
        assert [(None, {"audience": "tickets"})] == [(each.ask, each.public) for each in providers["corp"].ended]

    async def test_asking_for_a_task_that_is_over(self, cascade, next_run, room, providers, task, stopped):
        """Of a task that did not come back it is taken back at once."""
        await cascade.ask(task)
        room.engine.end(task, "revoked", "agent_restart")
        async with next_run().running() as after:
            await after.settled()
            assert (1, {}) == (len(providers["corp"].ended), after.store.rows)

    async def test_ending(self, cascade, next_run, room, providers, task):
        """One that was being taken back is taken back, and its residual window counts from the task's end."""
        providers["corp"].down = ProviderUnavailable("down")
        await cascade.held(task)
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        await cascade.recalling.close()
        providers["corp"].down = None
        cascade.clock.advance(40)
        async with next_run().running() as after:
            await after.settled()
        (event,) = ended(cascade)
        assert ("recalled", 40_000, "completed: success") == tuple(
            event[name] for name in ("how", "residual_ms", "reason")
        )

    async def test_expired_meanwhile(self, cascade, next_run, room, providers, task):
        """One that expired while the agent was down is told as expired, with the time that it outlived its task."""
        providers["corp"].down = ProviderUnavailable("down")
        await cascade.held(task, life=100)
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        await cascade.recalling.close()
        tried = len(providers["corp"].ended)
        cascade.clock.advance(5000)
        async with next_run().running() as after:
            await after.settled()
        (event,) = ended(cascade)
        assert ("expired", 100_000, tried) == (event["how"], event["residual_ms"], len(providers["corp"].ended))

    @pytest.mark.parametrize("step", [-YEAR, -600, 600, YEAR])
    async def test_the_wall_clock_was_set(self, cascade, next_run, room, providers, task, step):
        """A step of the wall clock between two runs neither forgets a recall nor makes the residual window smaller."""
        providers["corp"].down = ProviderUnavailable("down")
        await cascade.held(task)
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        await cascade.recalling.close()
        providers["corp"].down = None
        cascade.clock.advance(40)
        cascade.clock.step_wall(step)
        async with next_run().running() as after:
            await after.settled()
        (event,) = ended(cascade)
        assert ("recalled", 40_000) == (event["how"], event["residual_ms"])

    async def test_the_machine_was_started_again(self, cascade, next_run, room, providers, task):
        """Over a start of the machine, whose boot clock begins anew, windows count by the wall clock."""
        providers["corp"].down = ProviderUnavailable("down")
        await cascade.held(task, life=100)
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        await cascade.recalling.close()
        cascade.store.boot_id = "the next boot"
        cascade.clock.advance(40)
        cascade.clock._boot = 3.0
        async with next_run().running() as after:
            await after.later(60)
        (event,) = ended(cascade)
        assert ("expired", 100_000) == (event["how"], event["residual_ms"])

    async def test_a_provider_that_is_not_configured_any_more(self, cascade, next_run, task, providers, stopped):
        """Its credentials are open until they expire, and told as such; when it is back they are taken back."""
        credential = await cascade.held(task)
        async with next_run({}).running() as after:
            await after.settled()
            (found,) = after.book.of(task.id)
            assert (OPEN, "provider 'corp' is not configured any more") == (found.state, found.fault)
            assert ["provider 'corp' is not configured any more"] == [
                each["reason"] for each in after.store.fields("external_credential_open")
            ]
        async with next_run().running() as after:
            await after.settled()
        assert (credential.id, "recalled") == tuple(ended(cascade)[0][name] for name in ("credential", "how"))

    async def test_a_lost_key(self, cascade, next_run, providers, task, tmp_path, stopped):
        """Handles whose key is lost cannot be opened: the credential is open, and the record says why."""
        await cascade.held(task)
        (tmp_path / "handles.key").unlink()
        async with next_run().running() as after:
            await after.settled()
            (found,) = after.book.of(task.id)
        assert (OPEN, [], True) == (found.state, providers["corp"].ended, "is gone" in found.fault)

    @pytest.mark.parametrize(
        "damage",
        [
            {"unverified_document": b"\xff"},
            {"unverified_document": b"{}"},
            {"unverified_document": b"[]"},
            {"unverified_state": "sold"},
            {"unverified_expires_at": None},
            {"unverified_task_id": 7},
        ],
    )
    async def test_damaged(self, cascade, next_run, room, providers, task, damage, stopped):
        """A damaged row stops nothing: it is recorded, and removed; the others are taken over."""
        first, _ = await cascade.held(task), await cascade.held(task)
        row = cascade.store.rows[first.id]
        fields = {name: getattr(row, name) for name in JournaledCredential.__slots__}
        cascade.store.rows[first.id] = JournaledCredential(**{**fields, **damage})
        async with next_run().running() as after:
            await after.settled()
        assert ({}, [first.id], 1) == (
            cascade.store.rows,
            [each["credential"] for each in cascade.store.fields("external_credential_damaged")],
            len(providers["corp"].ended),
        )

    async def test_a_document_says_nothing_secret(self, cascade, task):
        """All that a row says can be read but its handle."""
        await cascade.held(task)
        (row,) = cascade.store.rows.values()
        document = json.loads(row.unverified_document)
        assert {"task_type", "spiffe_id", "resource", "actions", "asked_at", "handle", "public"} <= set(document)
        assert b"h4ndle".hex() not in document["handle"]


class TestFigures:
    async def test_counts(self, cascade, room, providers, task):
        """The figures say how many there are in each state, and since when the oldest has outlived its task."""
        providers["corp"].down = ProviderUnavailable("down")
        await cascade.held(task)
        await cascade.held(await room.begin(wanted=READ_TICKETS))
        began = cascade.clock.boot()
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        cascade.clock.advance(3)
        found = cascade.book.index
        assert (1, 1, {"corp": began}) == (found.held("corp"), found.outliving("corp"), found.oldest())
        assert (1, 1) == tuple(found.counts()["corp", state] for state in (HELD, ENDING))
        assert [task.id] == [each.task_id for each in found.residual()]

    async def test_windows(self, cascade, room, providers, task):
        """How long credentials outlived their tasks is summed up by provider and by how they ended."""
        providers["corp"].hanging = asyncio.Event()
        await cascade.held(task)
        room.engine.end(task, "completed", "success")
        cascade.clock.advance(3)
        providers["corp"].hanging.set()
        await cascade.settled()
        assert {("corp", "recalled"): (1, 3.0)} == cascade.book.windows
        assert {} == {key: number for key, number in cascade.book.index.counts().items() if number}


async def test_a_fresh_store(room, providers, tmp_path):
    """With nothing left by earlier runs nothing is done."""
    async with CascadeRoom(room, providers, tmp_path, FakeCredentialStore()).running() as cascade:
        assert ([], 0, READ.resource) == (cascade.store.names, len(cascade.book.index), TICKETS)
