"""How the command hears that it is to end: with real signals, and a clock of the test's own."""

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest
from sojourn.cli.interrupts import Interrupts

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Nothing passes on it by itself. Signals are as in a terminal."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in NUMBERS[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield clock
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def interrupts(clock: Clock) -> Interrupts:
    interrupts = Interrupts()
    interrupts.hear()
    return interrupts


def told(number: signal.Signals = signal.SIGINT) -> bool:
    """Whether the signal is heard."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        return True
    return False


class TestOften:
    @pytest.mark.parametrize("first", NUMBERS)
    @pytest.mark.parametrize("then", NUMBERS)
    def test_within_half_a_second(
        self, interrupts: Interrupts, clock: Clock, first: signal.Signals, then: signal.Signals
    ) -> None:
        """What comes within half a second of another signal is the same one."""
        assert told(first)
        clock.seconds += 0.49
        assert not told(then)

    def test_later(self, interrupts: Interrupts, clock: Clock) -> None:
        """After half a second a signal is heard again, in case that the first had no effect."""
        assert told()
        clock.seconds += 0.5
        assert told()

    @pytest.mark.parametrize("number", NUMBERS[1:])
    def test_what_it_dies_of(self, interrupts: Interrupts, number: signal.Signals) -> None:
        """SIGTERM and SIGHUP are known as what to die of; Ctrl-C is not."""
        assert told()
        assert interrupts.dies_of is None
        told(number)
        assert number == interrupts.dies_of

    def test_what_is_ignored(self, clock: Clock) -> None:
        """What was ignored before stays so."""
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        Interrupts().hear()
        assert [False] * 3 == [told(number) for number in NUMBERS]

    def test_no_more(self, interrupts: Interrupts) -> None:
        """In the end Ctrl-C is ignored, and the others have the effect that they had before."""
        interrupts.hear_no_more()
        assert not told()
        assert [signal.SIG_DFL] * 2 == [signal.getsignal(number) for number in NUMBERS[1:]]


class TestRun:
    def test_answer(self, interrupts: Interrupts) -> None:
        """What the coroutine returns is returned."""

        async def main() -> int:
            return 7

        assert 7 == interrupts.run(main)
        assert told()

    def test_cancelled(self, interrupts: Interrupts) -> None:
        """What runs in an event loop is cancelled, and can tidy up; whoever runs it is interrupted."""
        tidied = []

        async def main() -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                tidied.append(True)

        with pytest.raises(KeyboardInterrupt):
            interrupts.run(main)
        assert [True] == tidied

    def test_too_late(self, interrupts: Interrupts) -> None:
        """One that comes as the coroutine ends is not lost."""

        async def main() -> None:
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            interrupts.run(main)

    def test_deaf(self, interrupts: Interrupts, clock: Clock) -> None:
        """If being cancelled has no effect, the next one ends it all the same."""

        async def main() -> None:
            signal.raise_signal(signal.SIGINT)
            try:
                await asyncio.sleep(60)
            finally:
                clock.seconds += 1
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(60)

        with pytest.raises(KeyboardInterrupt):
            interrupts.run(main)
