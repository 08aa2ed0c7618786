"""A provider that does not answer is left alone, and tried again by one call at a time."""

import pytest
from sojourn.credentials.circuit_breaker import CLOSED, HALF_OPEN, OPEN, Circuit
from sojourn.limits import PROVIDER_FAILURES, PROVIDER_PAUSE_MAX_SECONDS, PROVIDER_PAUSE_SECONDS
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable


@pytest.fixture
def circuit(clock):
    return Circuit("corp", clock, chance=lambda: 0.0)


def fail(circuit, times=1, **how):
    for _ in range(times):
        with pytest.raises(ProviderUnavailable, match="down"), circuit.call():
            raise ProviderUnavailable("down", **how)


def succeed(circuit):
    with circuit.call():
        pass


def opened(circuit):
    fail(circuit, PROVIDER_FAILURES)
    return circuit


class TestClosed:
    def test_a_few_failures_change_nothing(self, circuit):
        """A provider that fails a few times is asked on."""
        fail(circuit, PROVIDER_FAILURES - 1)
        circuit.check()
        assert (CLOSED, "down") == (circuit.state, circuit.fault)

    @pytest.mark.parametrize("answer", [None, ProviderRefused("no")])
    def test_an_answer_starts_the_count_anew(self, circuit, answer):
        """Failures count in a row alone; a refusal is an answer."""
        fail(circuit, PROVIDER_FAILURES - 1)
        if answer is None:
            succeed(circuit)
        else:
            with pytest.raises(ProviderRefused), circuit.call():
                raise answer
        fail(circuit, PROVIDER_FAILURES - 1)
        assert circuit.state == CLOSED

    def test_what_is_no_outcome_is_not_counted(self, circuit):
        """A call that was given up says nothing of the provider."""
        for _ in range(PROVIDER_FAILURES):
            with pytest.raises(KeyError), circuit.call():
                raise KeyError
        assert (CLOSED, "") == (circuit.state, circuit.fault)


class TestOpen:
    def test_it_opens_and_says_so(self, circuit):
        """After so many failures in a row nobody asks the provider, and whoever would is told why, at once."""
        opened(circuit)
        assert circuit.state == OPEN
        with pytest.raises(ProviderUnavailable, match="'corp' does not answer: down") as found, circuit.call():
            pytest.fail("it was asked")
        assert (False, "circuit", PROVIDER_PAUSE_SECONDS) == (
            found.value.sent,
            found.value.step,
            found.value.retry_after,
        )

    def test_late_failures_do_not_prolong_it(self, clock, circuit):
        """Calls that were under way when it opened, and fail later, change nothing."""
        calls = [circuit.call() for _ in range(3)]
        for call in calls:
            call.__enter__()
        opened(circuit)
        until = circuit.until
        clock.advance(PROVIDER_PAUSE_SECONDS / 2)
        for call in calls:
            error = ProviderUnavailable("late")
            assert not call.__exit__(type(error), error, None)
        assert until == circuit.until

    def test_a_late_answer_closes_it(self, circuit):
        """A call that was under way and is answered after all shows that the provider is there."""
        call = circuit.call()
        call.__enter__()
        opened(circuit)
        call.__exit__(None, None, None)
        assert circuit.state == CLOSED

    def test_the_provider_may_say_how_long(self, circuit):
        """A Retry-After that is longer than the pause is kept to, up to a limit."""
        fail(circuit, PROVIDER_FAILURES - 1)
        fail(circuit, retry_after=7.0)
        assert pytest.approx(7.0) == circuit.until - 1000.0

    def test_but_not_for_ever(self, circuit):
        """No Retry-After keeps a provider from being asked for longer than the longest pause."""
        fail(circuit, PROVIDER_FAILURES, retry_after=1e9)
        assert pytest.approx(PROVIDER_PAUSE_MAX_SECONDS) == circuit.until - 1000.0

    def test_pauses_differ_by_chance(self, clock):
        """The pause of one agent is not that of another."""
        other = opened(Circuit("corp", clock, chance=lambda: 1.0))
        assert pytest.approx(PROVIDER_PAUSE_SECONDS / 2) == other.until - clock.boot()


class TestHalfOpen:
    def test_one_call_tries(self, clock, circuit):
        """After the pause one call is made, and whoever comes meanwhile is turned away."""
        opened(circuit)
        clock.advance(PROVIDER_PAUSE_SECONDS)
        assert circuit.state == HALF_OPEN
        with circuit.call():
            for _ in range(3):
                with pytest.raises(ProviderUnavailable), circuit.call():
                    pytest.fail("a second one was made")
        assert circuit.state == CLOSED
        succeed(circuit)

    def test_each_pause_is_twice_as_long(self, clock, circuit):
        """A provider that stays away is asked ever more seldom, up to a limit."""
        opened(circuit)
        pauses = []
        for _ in range(8):
            pauses.append(circuit.until - clock.boot())
            clock.advance(pauses[-1])
            fail(circuit)
        assert [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] == pytest.approx(pauses)

    def test_one_that_is_given_up_leaves_the_try_to_the_next(self, clock, circuit):
        """If the call that tries is cancelled, the next one does."""
        opened(circuit)
        clock.advance(PROVIDER_PAUSE_SECONDS)
        with pytest.raises(KeyError), circuit.call():
            raise KeyError
        assert circuit.state == HALF_OPEN
        succeed(circuit)
        assert circuit.state == CLOSED

    def test_after_it_the_first_pause_is_short_again(self, clock, circuit):
        """What was before a provider came back is forgotten."""
        opened(circuit)
        clock.advance(PROVIDER_PAUSE_SECONDS)
        fail(circuit)
        clock.advance(2 * PROVIDER_PAUSE_SECONDS)
        succeed(circuit)
        opened(circuit)
        assert pytest.approx(PROVIDER_PAUSE_SECONDS) == circuit.until - clock.boot()

    def test_a_step_of_the_wall_clock_changes_nothing(self, clock, circuit):
        """Pauses run on the boot clock."""
        opened(circuit)
        clock.step_wall(3600)
        assert circuit.state == OPEN
