"""credentials/ledger.py: each credential is on disk before it is used, and what takes it away is true at once."""

import asyncio

import pytest
from fakes.credentials import ended
from fakes.task_room import READ_TICKETS
from fakes.task_types import TICKETS
from sojourn import limits
from sojourn.credentials.credential import ASKING, ENDING, GONE, HELD, OPEN
from sojourn.errors import LimitExceeded, StoreFailed
from sojourn.providers.errors import ProviderUnavailable


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
    async def test_of_one_task(self, cascade, task):
        """A task has so many at once and no more; when one is gone there is room again."""
        cascade.book.index.room_per_task = 2
        first, _ = await cascade.held(task), await cascade.held(task)
        with pytest.raises(LimitExceeded, match="the task has"):
            await cascade.ask(task)
        cascade.book.over(first, "enough")
        await cascade.settled()
        assert (await cascade.ask(task)).state == ASKING

    async def test_of_one_workload_and_of_all(self, cascade, room, task):
        """One workload has no more than its share, and all have so many together."""
        cascade.book.index.room_per_workload = 1
        other = await room.begin(wanted=READ_TICKETS)
        await cascade.held(task)
        with pytest.raises(LimitExceeded, match="too many"):
            await cascade.ask(other)
        cascade.book.index.room_per_workload = 9
        cascade.book.index.room = 1
        with pytest.raises(LimitExceeded, match="too many"):
            await cascade.ask(other)

    def test_one_workload_leaves_room(self):
        """A workload's share is not all that there is."""
        assert limits.PROVIDER_CREDENTIALS_PER_ID < limits.PROVIDER_CREDENTIALS


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
