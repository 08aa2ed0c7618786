"""A circuit breaker: a provider that does not answer is left alone for a while, and what asks it is told so at once.

    closed ──(so many failures in a row)──► open ──(the pause is over)──► half open ──(one call)──► closed | open

Each pause that follows another is twice as long. An answer, even a refusal, closes it.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sojourn.limits import PROVIDER_FAILURES, PROVIDER_PAUSE_MAX_SECONDS, PROVIDER_PAUSE_SECONDS
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.runtime.clock import Clock

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
_PROBED_AGAIN_SECONDS = 1.0  # for those who come while one call tries whether the provider is back


class Circuit:
    """That of one provider. `fault`: why the last call failed, empty if it did not."""

    def __init__(self, name: str, clock: Clock, chance: Callable[[], float] = random.random) -> None:
        """`chance`: a number from 0 to 1, by which pauses differ."""
        self.fault = ""
        self.until = 0.0  # when the pause is over, on the boot clock
        self._name = name
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._pauses = 0
        self._probing = False

    @property
    def state(self) -> str:
        if not self._pauses:
            return CLOSED
        return OPEN if self._clock.boot() < self.until else HALF_OPEN

    def check(self) -> None:
        """Raise ProviderUnavailable if no call may be made now; nothing was sent then."""
        left = self.until - self._clock.boot()
        if self.state == OPEN or (self.state == HALF_OPEN and self._probing):
            raise ProviderUnavailable(
                f"provider {self._name!r} does not answer: {self.fault}; it is asked again in a while",
                step="circuit",
                retry_after=max(left, _PROBED_AGAIN_SECONDS),
            )

    @contextmanager
    def call(self) -> Iterator[None]:
        """Within it one call is made; how it ends is noted. Raise as `check` does."""
        self.check()
        probe = self._probing = self.state == HALF_OPEN
        try:
            yield
        except ProviderUnavailable as error:
            self._failed(error, probe=probe)
            raise
        except ProviderRefused as error:
            self._answered(error.public)
            raise
        else:
            self._answered("")
        finally:
            if probe:
                self._probing = False

    def _answered(self, fault: str) -> None:
        self.fault, self.until = fault, 0.0
        self._failures = self._pauses = 0

    def _failed(self, error: ProviderUnavailable, *, probe: bool) -> None:
        self.fault = error.public
        self._failures += 1
        if self._pauses and not probe:  # it was made before the others had failed
            return
        if probe or self._failures >= PROVIDER_FAILURES:
            pause = PROVIDER_PAUSE_SECONDS * 2 ** min(self._pauses, 16) * (1 - self._chance() / 2)
            pause = min(max(pause, error.retry_after), PROVIDER_PAUSE_MAX_SECONDS)
            self._pauses += 1
            self.until = self._clock.boot() + pause
