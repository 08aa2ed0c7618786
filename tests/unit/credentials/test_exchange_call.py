"""One exchange with a provider: its deadline, what is tried again, and what the book is told of it."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import structlog
from fakes.clock import FakeClock
from fakes.providers import Ask, FakeAssertions, FakeBook, ScriptedProvider
from fakes.task_types import TRIAGE
from sojourn.credentials.credential import Credential
from sojourn.credentials.exchange_call import ExchangeCalls
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.errors import StoreFailed, TaskOver
from sojourn.limits import PROVIDER_CALLS_PER_OWNER, PROVIDER_FAILURES, PROVIDER_TRIES
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.provider import Wanted
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant

GRANT = Grant("https://orders.example.org", ("orders:read",))
DOWN = "connection refused"
CALLER = SpiffeId.parse(TRIAGE)


class Ground:
    """One provider, and what asks it for one task. Pauses take no time, and are kept."""

    def __init__(self, seconds=5.0):
        self.clock = FakeClock()
        self.provider = ScriptedProvider(self.clock)
        self.outlet = ProviderRoutes({"corp": self.provider}, self.clock, {"corp": seconds}).find("corp")
        self.book = FakeBook(SimpleNamespace(clock=self.clock))
        self.pauses, self.heard = [], []
        self.asking = ExchangeCalls(self.book, FakeAssertions(), self.clock, pause=self._pause, chance=lambda: 0.0)
        self.asking.on_exchange(lambda *heard: self.heard.append(heard[:2]))
        self.over = None
        self.asked = 0

    async def _pause(self, seconds):
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def wanted(self):
        if self.over is not None:
            raise self.over
        ends = self.clock.now() + timedelta(minutes=15)
        return Wanted("task_1", "triage", CALLER, GRANT.resource, GRANT.actions, Ask("orders"), ends)

    async def journal(self):
        await self.book._write()
        self.asked += 1
        now = self.clock.now()
        made = Credential(f"ext_{self.asked}", "task_1", "triage", CALLER, "corp", GRANT, now, now, 0.0)
        self.book.written.append(("asking", made.id))
        return made

    async def obtain(self, owner=1000):
        async with asyncio.timeout(20):
            return await self.asking.obtain(self.outlet, owner, self.wanted, self.journal)


@pytest.fixture
def ground():
    return Ground()


class TestObtain:
    async def test_it_is_journaled_first(self, ground):
        """A provider is asked when it is on disk that it will be; what came back is the caller's to hold."""
        credential, obtained = await ground.obtain()
        assert ("ext_1", [("asking", "ext_1")]) == (credential.id, ground.book.written)
        assert obtained.token.startswith("task_1|")
        assert [("corp", "issued")] == ground.heard
        assert (1, 0) == (ground.outlet.exchanges, ground.outlet.failures)

    async def test_nobody_is_asked_if_it_cannot_be_journaled(self, ground):
        """Without a record on disk no request leaves."""
        ground.book.failure = StoreFailed("disk full")
        with pytest.raises(StoreFailed):
            await ground.obtain()
        assert [] == ground.provider.wanted
        assert [("corp", "given_up")] == ground.heard

    async def test_nobody_is_asked_for_what_is_not_wanted_any_more(self, ground):
        """A task that ended while it was journaled has nobody asked, and the book is told that nothing came of it."""
        ground.over = TaskOver("over")
        with pytest.raises(TaskOver):
            await ground.obtain()
        assert [] == ground.provider.wanted
        assert [("asking", "ext_1"), ("refused", "ext_1")] == ground.book.written

    async def test_a_refusal_is_final(self, ground):
        """What the provider refuses is not tried again; the provider itself is well."""
        ground.provider.script = [ProviderRefused("no such client")]
        with pytest.raises(ProviderRefused, match="no such client"):
            await ground.obtain()
        assert [("asking", "ext_1"), ("refused", "ext_1")] == ground.book.written
        assert ([], "closed", [("corp", "refused")]) == (ground.pauses, ground.outlet.circuit.state, ground.heard)
        assert (1, 1) == (ground.outlet.exchanges, ground.outlet.failures)


class TestNamed:
    @pytest.mark.parametrize("error", [ProviderRefused, ProviderUnavailable])
    async def test_whoever_asked_is_told_which_provider(self, ground, error):
        """Who asks names a resource alone: the error says of which provider it is, once."""
        ground.provider.script = [error("the provider said no: invalid_client") for _ in range(PROVIDER_TRIES)]
        with pytest.raises(error, match=r"^provider 'corp' said no: invalid_client$"):
            await ground.obtain()

    async def test_once(self, ground):
        """What says its name already is left as it is; what does not begin with "the provider" has it before it."""
        for told, expected in (
            ("provider 'corp' said no", "provider 'corp' said no"),
            (DOWN, f"provider 'corp': {DOWN}"),
        ):
            ground.provider.script = [ProviderRefused(told)]
            with pytest.raises(ProviderRefused) as found:
                await ground.obtain()
            assert (expected, expected) == (found.value.public, str(found.value))


class TestTryAgain:
    async def test_what_was_not_sent_is_tried_again(self, ground):
        """A connection that was refused is tried again under the same record, after pauses that grow."""
        ground.provider.script = [ProviderUnavailable(DOWN), ProviderUnavailable(DOWN)]
        await ground.obtain()
        assert [("asking", "ext_1")] == ground.book.written
        assert [0.1, 0.2] == pytest.approx(ground.pauses)

    async def test_so_often(self, ground):
        """After so many tries whoever asked is told, and the book that nothing came of it."""
        ground.provider.script = [ProviderUnavailable(DOWN) for _ in range(PROVIDER_TRIES)]
        with pytest.raises(ProviderUnavailable, match=DOWN):
            await ground.obtain()
        assert len(ground.provider.wanted) == PROVIDER_TRIES
        assert [("asking", "ext_1"), ("refused", "ext_1")] == ground.book.written
        assert [("corp", "unavailable")] == ground.heard

    async def test_what_was_sent_is_lost_and_asked_anew(self, ground):
        """An answer that broke off may have had its effect: it is noted as lost before another request leaves."""
        ground.provider.script = [ProviderUnavailable("the answer broke off", sent=True)]
        credential, _ = await ground.obtain()
        assert credential.id == "ext_2"
        assert [("asking", "ext_1"), ("lost", "ext_1"), ("asking", "ext_2")] == ground.book.written

    async def test_what_was_sent_is_tried_once_more_alone(self, ground):
        """A provider whose answers break off leaves no more than two credentials that nobody knows."""
        ground.provider.script = [ProviderUnavailable("the answer broke off", sent=True) for _ in range(3)]
        with pytest.raises(ProviderUnavailable):
            await ground.obtain()
        assert ["asking", "lost", "asking", "lost"] == [what for what, _ in ground.book.written]

    async def test_retry_after_is_kept_to(self, ground):
        """A provider that says when to come again is asked then."""
        ground.provider.script = [ProviderUnavailable("429", retry_after=2.0)]
        await ground.obtain()
        assert [2.0] == ground.pauses

    async def test_but_not_beyond_the_deadline(self, ground):
        """A provider that wants more time than whoever asks has is not waited for."""
        ground.provider.script = [ProviderUnavailable("429", retry_after=6.0)]
        with pytest.raises(ProviderUnavailable, match="429") as found:
            await ground.obtain()
        assert ([], 6.0) == (ground.pauses, found.value.retry_after)

    async def test_a_task_that_ends_meanwhile_is_not_asked_for(self, ground):
        """Before each try it is looked whether it is still wanted."""
        ground.provider.script = [ProviderUnavailable(DOWN)]

        async def pause(_seconds):
            ground.over = TaskOver("over")

        ground.asking._pause = pause
        with pytest.raises(TaskOver):
            await ground.obtain()
        assert len(ground.provider.wanted) == 1
        assert ("refused", "ext_1") == ground.book.written[-1]


class TestDeadline:
    async def test_a_provider_that_hangs(self):
        """One that does not answer in time is unavailable, and what it was asked for is lost."""
        ground = Ground(seconds=0.05)
        ground.provider.gate = asyncio.Event()
        with pytest.raises(ProviderUnavailable, match=r"did not answer within 0.05 s") as found:
            await ground.obtain()
        assert found.value.sent
        assert [("asking", "ext_1"), ("lost", "ext_1")] == ground.book.written
        assert ground.provider.running == 0

    async def test_waiting_counts(self):
        """Whoever waits behind others waits no longer than that either, and has nothing journaled."""
        ground = Ground(seconds=0.05)
        ground.outlet.seconds = 20.0
        ground.provider.gate = asyncio.Event()
        slow = [asyncio.ensure_future(ground.obtain()) for _ in range(PROVIDER_CALLS_PER_OWNER)]
        while ground.provider.running < PROVIDER_CALLS_PER_OWNER:
            await asyncio.sleep(0)
        ground.outlet.seconds = 0.05
        with pytest.raises(ProviderUnavailable, match="slow") as found:
            await ground.obtain()
        assert (False, PROVIDER_CALLS_PER_OWNER) == (found.value.sent, ground.asked)
        assert ground.outlet.circuit.state == "closed"
        ground.provider.gate.set()
        await asyncio.gather(*slow)

    async def test_another_owner_finds_a_place(self, ground):
        """The slow calls of one user are no other's."""
        ground.provider.gate = asyncio.Event()
        slow = [asyncio.ensure_future(ground.obtain(1)) for _ in range(3 * PROVIDER_CALLS_PER_OWNER)]
        while ground.provider.running < PROVIDER_CALLS_PER_OWNER:
            await asyncio.sleep(0)
        other = asyncio.ensure_future(ground.obtain(2))
        while ground.provider.running == PROVIDER_CALLS_PER_OWNER:
            await asyncio.sleep(0)
        assert ground.provider.running == PROVIDER_CALLS_PER_OWNER + 1
        ground.provider.gate.set()
        await asyncio.gather(other, *slow)


class TestCircuit:
    async def test_a_provider_that_is_down_is_left_alone(self, ground):
        """Once it has failed so often nothing is sent, journaled, or waited for."""
        ground.provider.script = [ProviderUnavailable(DOWN) for _ in range(PROVIDER_FAILURES)]
        for _ in range(2):
            with pytest.raises(ProviderUnavailable):
                await ground.obtain()
        sent, written = len(ground.provider.wanted), list(ground.book.written)
        assert (PROVIDER_FAILURES, "open") == (sent, ground.outlet.circuit.state)
        with pytest.raises(ProviderUnavailable, match=DOWN) as found:
            await ground.obtain()
        assert (sent, written) == (len(ground.provider.wanted), ground.book.written)
        assert found.value.retry_after > 0

    async def test_one_that_is_back_is_asked_again(self, ground):
        """After the pause one call finds that it is back, and all is well."""
        ground.provider.script = [ProviderUnavailable(DOWN) for _ in range(PROVIDER_FAILURES)]
        for _ in range(2):
            with pytest.raises(ProviderUnavailable):
                await ground.obtain()
        ground.clock.advance(1)
        await ground.obtain()
        assert ground.outlet.circuit.state == "closed"


class TestFaults:
    async def test_a_plugin_that_raises(self, ground):
        """Whatever a plugin raises is told as unavailable, without its words; what it did is taken for lost."""
        ground.provider.script = [KeyError("s3cret"), KeyError("s3cret")]
        with pytest.raises(ProviderUnavailable, match="KeyError") as found:
            await ground.obtain()
        assert "s3cret" not in found.value.public
        assert ("lost", "ext_1") in ground.book.written

    async def test_the_log_has_not_its_words(self, ground):
        """What a plugin says when it raises may be a token: the log has where it was raised, and not that."""
        ground.provider.script = [ValueError("s3cret"), ValueError("s3cret")]
        renderer = structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        )
        with structlog.testing.capture_logs(processors=[renderer]) as logged, pytest.raises(ProviderUnavailable):
            await ground.obtain()
        assert ["provider_raised"] * 2 == [each["event"] for each in logged]
        assert (False, True, True) == tuple(
            each in str(logged) for each in ("s3cret", "ValueError", "tests/fakes/providers.py")
        )

    async def test_a_plugin_that_gives_up_by_itself(self, ground):
        """A plugin that raises CancelledError cancels nobody: it is unavailable, and its answer is lost."""
        ground.provider.script = [asyncio.CancelledError(), asyncio.CancelledError()]
        with pytest.raises(ProviderUnavailable, match="gave up"):
            await ground.obtain()
        assert ("lost", "ext_1") in ground.book.written

    async def test_a_refusal_that_leaves_something(self, ground):
        """What a provider had given before it refused, and could not be taken back, is known of."""
        refusal = ProviderRefused("tokens of this role cannot be revoked")
        refusal.left = True
        ground.provider.script = [refusal]
        with pytest.raises(ProviderRefused):
            await ground.obtain()
        assert [("asking", "ext_1"), ("lost", "ext_1")] == ground.book.written

    async def test_one_that_is_cancelled(self, ground):
        """When the agent stops during an exchange, its answer is lost, and the book knows."""
        ground.provider.gate = asyncio.Event()
        asking = asyncio.ensure_future(ground.obtain())
        await ground.provider.came.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [("asking", "ext_1"), ("lost", "ext_1")] == ground.book.written

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"token": ""}, "no token"),
            ({"token": "x" * 300_000}, "too large"),
            ({"expires_at": datetime(2030, 1, 1)}, "no time zone"),
            ({"expires_at": datetime(2029, 12, 31, 23, 50, tzinfo=UTC)}, "expired already: is its clock right"),
        ],
    )
    def test_what_cannot_be_used(self, ground, changes, why):
        """A credential that is none, or has expired by our clock, is kept to be taken back, and not handed out."""
        obtained = ground.provider.obtained(ground.wanted(), **changes)
        kept, fault = ground.asking.sound(ground.outlet, obtained)
        assert why in fault
        assert kept.expires_at == ground.clock.now() + ground.provider.longest

    def test_what_can(self, ground):
        """A credential that keeps all rules is left as it is."""
        obtained = ground.provider.obtained(ground.wanted())
        assert (obtained, "") == ground.asking.sound(ground.outlet, obtained)
