"""The keys that an issuer publishes: fetched when one is needed, kept for a while, and fetched anew behind."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from math import inf
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.jose.jwk_set import read_jwk_set
from sojourn.jose.jws import PublicKey
from sojourn.limits import (
    PUBLISHED_KEYS,
    PUBLISHED_KEYS_ANEW_SECONDS,
    PUBLISHED_KEYS_KEPT_SECONDS,
    PUBLISHED_KEYS_PAUSE_SECONDS,
    PUBLISHED_KEYS_SECONDS,
)
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.runtime.clock import Clock
from sojourn.runtime.single_flight import SingleFlight

STEP: Final = "keys"


class PublishedKeys:
    """Those of one issuer, by `kid`.

    While they cannot be fetched they are used up to PUBLISHED_KEYS_KEPT_SECONDS. For a key ID that is not among them
    they are fetched anew once in PUBLISHED_KEYS_ANEW_SECONDS, whoever asks and however often. In between nobody can say
    whether the issuer has such a key: it may have come since, and whoever makes up key IDs would have others refused.
    """

    def __init__(
        self,
        where: Callable[[], Awaitable[str]],
        algorithms: Collection[str],
        http: Http,
        clock: Clock,
        told: Callable[[str], object],
    ) -> None:
        """`where` says at which URL they are, and raises ProviderUnavailable. `told` is told why they were not fetched.

        What asks is closed by whoever has made it.
        """
        self._where = where
        self._algorithms = frozenset(algorithms)
        self._http = http
        self._clock = clock
        self._told = told
        self._kept: Mapping[str, PublicKey] = {}
        self._began = -inf  # on the boot clock: when the fetch began by which they came, and when they came
        self._fetched = -inf
        self._tried = -inf  # when they were asked for last
        self._stale = -inf
        self.fault = ""  # of the last try
        self._flights: SingleFlight[str, None] = SingleFlight()

    async def find(self, kid: str, since: float | None = None) -> PublicKey | None:
        """The key of that ID; None: the issuer has no such key, by a fetch that began after this call, or no earlier
        than `since`. Raise ProviderUnavailable if that cannot be told.

        `since`, on the boot clock: when what the key has signed was there already.
        """
        now = self._clock.boot()
        if now >= self._fetched + PUBLISHED_KEYS_KEPT_SECONDS:
            self._kept = {}
        if kid in self._kept:
            if now >= self._stale:
                self.renew()
            return self._kept[kid]
        pause = PUBLISHED_KEYS_ANEW_SECONDS if self._kept else PUBLISHED_KEYS_PAUSE_SECONDS
        asked = STEP not in self._flights and now >= self._tried + pause
        if asked or STEP in self._flights:
            await self._flights.run(STEP, self._renew)
        found = self._kept.get(kid)
        if found is None and self.fault:  # it may be a key that could not be fetched
            raise ProviderUnavailable(self.fault, step=STEP)
        if found is None and not asked and (since is None or self._began < since):
            raise ProviderUnavailable("the key may have come since the keys were fetched", step=STEP)
        return found

    def renew(self) -> None:
        """Fetch them behind."""
        self._flights.begin(STEP, self._renew)

    async def anew(self) -> Mapping[str, PublicKey]:
        """The keys as the issuer publishes them now. Raise ProviderUnavailable."""
        began = self._clock.boot()
        answer = await self._http.get(await self._where(), step=STEP)
        if answer.status != 200:
            raise ProviderUnavailable(f"the keys are not to be had: the answer is {answer.status}", step=STEP)
        try:
            keys = read_jwk_set(answer.body.decode(), self._algorithms, PUBLISHED_KEYS)
        except (InvalidInput, UnicodeDecodeError) as error:
            told = error.public if isinstance(error, InvalidInput) else "not UTF-8"
            raise ProviderUnavailable(f"the keys cannot be read: {told}", step=STEP) from error
        self._kept, self.fault = keys, ""
        self._began, self._fetched = began, self._clock.boot()
        self._stale = self._fetched + PUBLISHED_KEYS_SECONDS
        return keys

    async def close(self) -> None:
        await self._flights.close()

    async def _renew(self) -> None:
        """Fetch them; what fails is kept as the fault, for whoever needs a key that is not there."""
        self._tried = self._clock.boot()
        try:
            await self.anew()
        except ProviderUnavailable as error:
            self.fault = error.public
            self._stale = self._clock.boot() + PUBLISHED_KEYS_ANEW_SECONDS
            self._told(error.public)
