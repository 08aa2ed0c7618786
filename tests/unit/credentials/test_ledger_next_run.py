"""ledger.py: what the next run of the agent finds in the book, and does."""

import json

import pytest
from fakes.credentials import READ, CascadeRoom, FakeCredentialStore, ended
from fakes.task_types import TICKETS
from sojourn.credentials.credential import OPEN, JournaledCredential
from sojourn.providers.errors import ProviderUnavailable
from sojourn.tasks.announcements import Place

YEAR = 365 * 86_400


class TestNextRun:
    """A book with the store of another one is its next run."""

    @pytest.fixture
    def next_run(self, cascade, room, providers, tmp_path):
        """Another run; the same tasks live on in it, as those do whose holders came back."""
        return lambda known=None: CascadeRoom(room, providers if known is None else known, tmp_path, cascade.store)

    @pytest.fixture
    def stopped(self, cascade):
        """Have the first run stop: nothing that happens from now on reaches it."""
        cascade.room.engine.announcements.unsubscribe(Place.CREDENTIAL_LEDGER, cascade.book.task_changed)

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


async def test_a_fresh_store(room, providers, tmp_path):
    """With nothing left by earlier runs nothing is done."""
    async with CascadeRoom(room, providers, tmp_path, FakeCredentialStore()).running() as cascade:
        assert ([], 0, READ.resource) == (cascade.store.names, len(cascade.book.index), TICKETS)
