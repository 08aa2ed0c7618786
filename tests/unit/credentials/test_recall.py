"""credentials/recall.py: credentials are taken back behind the end, however often that takes, and each provider apart."""

import asyncio
import itertools

import pytest
from fakes.credentials import CascadeRoom, RecallingProvider
from fakes.providers import Ask
from fakes.task_room import READ_TICKETS
from harness.looking import idle
from sojourn.credentials import recall
from sojourn.credentials.credential import ENDING, GONE, OPEN
from sojourn.limits import (
    PROVIDER_RECALL_FAILURES,
    PROVIDER_RECALL_PAUSE_MAX_SECONDS,
    PROVIDER_RECALL_PAUSE_SECONDS,
    PROVIDER_RECALLS_AT_ONCE,
)
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable

DOWN = ProviderUnavailable("it is down")


@pytest.fixture
def corp(clock):
    return RecallingProvider(clock)


@pytest.fixture
def vault(clock):
    return RecallingProvider(clock)


@pytest.fixture
async def cascade(room, corp, vault, tmp_path):
    async with CascadeRoom(room, {"corp": corp, "vault": vault}, tmp_path).running() as made:
        yield made


@pytest.fixture
async def task(room):
    return await room.begin(wanted=READ_TICKETS)


async def several(room, cascade, number, provider="corp"):
    """Credentials of as many tasks, all of which have just ended."""
    tasks = [await room.begin(wanted=READ_TICKETS) for _ in range(number)]
    credentials = [await cascade.held(each, provider, life=100_000) for each in tasks]
    for each in tasks:
        room.engine.end(each, "completed", "success")
    return credentials


async def test_what_the_provider_is_told(cascade, room, corp, task):
    """The provider gets the handle that it gave, what is known of the credential, and what the type says of asking."""
    credential = await cascade.held(task)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    (told,) = corp.ended
    assert (task.id, task.spiffe_id, {"refresh": "h4ndle"}, {"sid": "7"}, credential.expires_at) == (
        told.task_id,
        told.spiffe_id,
        told.handle,
        told.public,
        told.expires_at,
    )
    assert Ask("tickets", ("ticket:read", "ticket:write")) == told.ask


async def test_a_type_that_does_not_ask_any_more(cascade, room, corp, task):
    """If the type is gone, or names another provider by now, there is nothing to ask with; it is taken back all the same."""
    await cascade.held(task)
    await cascade.held(task, "vault")
    room.engine.types = {}
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    assert [None] == [each.ask for each in corp.ended]


@pytest.mark.parametrize(
    "answer",
    [
        DOWN,
        TimeoutError(),
        asyncio.CancelledError(),
        RuntimeError("secret"),
        OSError(),
        KeyError("token"),
        ProviderUnavailable("x", sent=True),
    ],
)
async def test_tried_again(cascade, room, corp, task, answer):
    """Whatever else a provider or its plugin answers, it is tried again, until it confirms."""
    corp.answers = [answer, answer]
    credential = await cascade.held(task)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    assert (ENDING, 1) == (credential.state, credential.attempts)
    assert "secret" not in credential.fault
    await cascade.later(PROVIDER_RECALL_PAUSE_SECONDS)
    await cascade.later(2 * PROVIDER_RECALL_PAUSE_SECONDS)
    assert (GONE, 3) == (credential.state, len(corp.ended))
    assert [2] == [each["attempts"] for each in cascade.store.fields("external_credential_ended")]


async def test_refused_for_good(cascade, room, corp, task):
    """What a provider refuses is not asked again: it is open, and why is recorded."""
    corp.answers = [ProviderRefused("it is not ours")]
    credential = await cascade.held(task, life=100_000)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    await cascade.later(500)
    assert (OPEN, "it is not ours", 1) == (credential.state, credential.fault, len(corp.ended))
    assert ["it is not ours"] == [each["reason"] for each in cascade.store.fields("external_credential_open")]


async def test_pauses_grow(cascade, room, corp, task):
    """Each pause is about twice the one before, up to the longest: a provider that is back is asked by then."""
    corp.down = DOWN
    await cascade.held(task, life=100_000)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    tried = []
    for second in range(400):
        before = len(corp.ended)
        await cascade.later(1)
        tried += [second + 1] * (len(corp.ended) - before)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert [2, 4, 8, 16, 32, 60] == gaps[:6]
    assert {PROVIDER_RECALL_PAUSE_MAX_SECONDS} == set(gaps[6:])


async def test_as_long_as_the_provider_wants(cascade, room, corp, task):
    """A provider that says when to come again is left alone until then."""
    corp.answers = [ProviderUnavailable("busy", retry_after=30)]
    credential = await cascade.held(task)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    await cascade.later(29)
    assert (ENDING, 1) == (credential.state, len(corp.ended))
    await cascade.later(1)
    assert GONE == credential.state


async def test_until_it_expires(cascade, room, corp, task):
    """What could not be taken back before it expired is not tried any more, and recorded as expired, with why."""
    corp.down = DOWN
    credential = await cascade.held(task, life=10)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    await cascade.later(10)
    tried = len(corp.ended)
    await cascade.later(500)
    (event,) = cascade.store.fields("external_credential_ended")
    assert (GONE, tried, "expired", 10_000, "it is down") == (
        credential.state,
        len(corp.ended),
        *(event[name] for name in ("how", "residual_ms", "fault")),
    )


async def test_confirmed_too_late(cascade, room, corp, task):
    """A confirmation that comes when the credential has expired changes nothing of its record."""
    corp.hanging = asyncio.Event()
    await cascade.held(task, life=10)
    room.engine.end(task, "completed", "success")
    await asyncio.sleep(0)
    cascade.clock.advance(10)
    cascade.alarms.ring_due()
    corp.hanging.set()
    await cascade.settled()
    assert ["expired"] == [each["how"] for each in cascade.store.fields("external_credential_ended")]


class TestDeadline:
    @pytest.fixture
    async def cascade(self, room, corp, vault, tmp_path):
        made = CascadeRoom(room, {"corp": corp, "vault": vault}, tmp_path)
        made.outlets.find("corp").seconds = 0.01
        async with made.running():
            yield made

    async def test_a_provider_that_hangs(self, cascade, room, corp, task):
        """A provider that does not answer is given up after its deadline, and tried again."""
        corp.hanging = asyncio.Event()
        credential = await cascade.held(task)
        room.engine.end(task, "completed", "success")
        await cascade.settled()
        assert (1, 0, "the provider did not confirm within 0.01 seconds") == (
            credential.attempts,
            corp.recalling,
            credential.fault,
        )


class TestCrowds:
    async def test_what_expires_while_a_provider_is_down(self, cascade, room, corp, monkeypatch):
        """Those that have expired do not pile up while a provider is down."""
        monkeypatch.setattr(recall, "PROVIDER_CREDENTIALS", 5)
        corp.down = DOWN
        first = await cascade.held(await room.begin(wanted=READ_TICKETS), life=100_000)
        room.engine.end(room.engine.tasks.find(first.task_id), "completed", "success")
        for _ in range(40):
            task = await room.begin(wanted=READ_TICKETS)
            await cascade.held(task, life=0.01)
            room.engine.end(task, "completed", "success")
            await cascade.later(0.02)
        assert (1, True) == (cascade.book.index.outliving("corp"), len(cascade.recalling._lanes["corp"]._waiting) <= 11)

    async def test_so_many_at_once(self, cascade, room, corp):
        """A provider is asked to take back so many at once and no more, and all are taken back."""
        corp.hanging = asyncio.Event()
        credentials = await several(room, cascade, 3 * PROVIDER_RECALLS_AT_ONCE)
        await idle()
        assert PROVIDER_RECALLS_AT_ONCE == corp.recalling
        corp.hanging.set()
        while cascade.book.index.outliving("corp"):
            await cascade.settled()
        assert ({GONE}, PROVIDER_RECALLS_AT_ONCE) == ({each.state for each in credentials}, corp.most_recalls)

    async def test_one_slow_provider(self, cascade, room, corp):
        """While one provider hangs with all that may be asked of it, another's credentials are taken back at once."""
        corp.hanging = asyncio.Event()
        await several(room, cascade, 2 * PROVIDER_RECALLS_AT_ONCE)
        others = await several(room, cascade, 3, "vault")
        while cascade.book.index.outliving("vault"):
            await asyncio.sleep(0)
        assert ({GONE}, 2 * PROVIDER_RECALLS_AT_ONCE) == (
            {each.state for each in others},
            cascade.book.index.outliving("corp"),
        )

    async def test_a_provider_that_is_down(self, cascade, room, corp):
        """A provider that fails again and again is tried with one recall at a time; what waits is not tried each."""
        corp.down = DOWN
        credentials = await several(room, cascade, 200)
        for _ in range(60):
            await cascade.later(1)
        assert len(corp.ended) < PROVIDER_RECALLS_AT_ONCE + 60
        assert 100 < sum(not each.attempts for each in credentials)

    async def test_it_is_back(self, cascade, room, corp):
        """When it answers again all that waited are taken back, without a pause for each."""
        corp.down = DOWN
        await several(room, cascade, 200)
        for _ in range(20):
            await cascade.later(1)
        corp.down = None
        for _ in range(int(PROVIDER_RECALL_PAUSE_MAX_SECONDS) + 1):
            await cascade.later(1)
        assert (0, {}) == (cascade.book.index.outliving("corp"), cascade.store.rows)

    async def test_one_that_never_works(self, cascade, room, corp):
        """One credential that cannot be taken back does not keep the others from it."""
        corp.answers = [DOWN]
        bad, *others = await several(room, cascade, 40)
        for _ in range(5):
            await cascade.settled()
        assert ([1], {GONE}) == ([bad.attempts], {each.state for each in others})

    async def test_a_provider_that_flaps(self, cascade, room, corp):
        """With a provider that answers every other time all are taken back."""
        corp.answers = [answer for _ in range(60) for answer in (DOWN, None)]
        await several(room, cascade, 40)
        for _ in range(200):
            await cascade.later(1)
        assert (0, True) == (cascade.book.index.outliving("corp"), len(corp.ended) > 40)


async def test_closing(cascade, room, corp, task):
    """Closing gives up what is under way and begins nothing more; the journal has it for the next run."""
    corp.hanging = asyncio.Event()
    credential = await cascade.held(task)
    await cascade.held(task)
    room.engine.end(task, "completed", "success")
    await asyncio.sleep(0)
    await cascade.recalling.close()
    await cascade.book.journal.drain()
    assert (ENDING, 0, 2) == (credential.state, corp.recalling, len(cascade.store.rows))


async def test_counted(cascade, room, corp, task):
    """Attempts are counted by how they went."""
    corp.answers = [DOWN, None, ProviderRefused("no")]
    await cascade.held(task)
    room.engine.end(task, "completed", "success")
    await cascade.settled()
    await cascade.later(PROVIDER_RECALL_PAUSE_SECONDS)
    await several(room, cascade, 1)
    await cascade.settled()
    assert {("corp", "failed"): 1, ("corp", "confirmed"): 1, ("corp", "refused"): 1} == cascade.recalling.results
    assert PROVIDER_RECALL_FAILURES > 1
