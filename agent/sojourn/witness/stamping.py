"""The agent's side of a time-stamp authority: a checkpoint now and then, by default one a day; nobody waits for it."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from cryptography import x509

from sojourn.audit.signed_log import SignedLog
from sojourn.audit.stamped_notes import StampFile
from sojourn.errors import InvalidInput, SojournError, Unavailable
from sojourn.evidence.timestamps import QUERY, REPLY, query_of, stamped_at
from sojourn.operating_limits import STAMP_APART_SECONDS, STAMP_MAX_BYTES, STAMP_RETRY_MAX_SECONDS, STAMP_RETRY_SECONDS
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.runtime.backoff import pause_after
from sojourn.runtime.clock import Clock

log = structlog.get_logger()
_LOOK_SECONDS = 60.0  # at the clock: a stamp is due by that, and the machine may have slept


class StampRefused(Unavailable):
    """An authority has not stamped what it was sent, and may do so later."""


class Stamping:
    """Has checkpoints stamped until it is cancelled. Figures are those of the last answer."""

    def __init__(
        self,
        url: str,
        to: str,
        every_seconds: float,
        roots: Sequence[x509.Certificate],
        http: GuardedHttp,
        signed: SignedLog,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`to`: the authority of the URL, for people. `chance`: a number from 0 to 1, by which pauses differ."""
        self.to = to
        self.fault = ""  # why nothing is stamped now
        self.failing_since = 0.0  # seconds since the epoch; 0: it is not
        self.wake = asyncio.Event()
        self._url = url
        self._every_seconds = every_seconds
        self._roots = roots
        self._http = http
        self._signed = signed
        self._clock = clock
        self._chance = chance
        self._tried = 0
        found = signed.stamped.of(signed.state.origin)
        self._last: StampFile | None = found[-1] if found else None
        self._last_boot = None if self._last is None else self._boot_at(signed.stamped.written_at(self._last))

    @property
    def size(self) -> int:
        """How many leaves of the log that is signed now were stamped last."""
        return 0 if self._last is None else self._last.size

    @property
    def stamped_at(self) -> int:
        """When, by the authority's clock, seconds since the epoch; 0: there is no stamp."""
        return 0 if self._last is None else self._last.at

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint is to be stamped: there is a new one, and the last stamp is old enough."""
        state = self._signed.state
        if not state.checkpoint or state.size == self.size:
            return False
        return self._last_boot is None or self._clock.boot() - self._last_boot >= self._every_seconds

    def _boot_at(self, written_at: float) -> float | None:
        """The boot clock's time of a stamp that a run before has written; None: a clock was set back since."""
        age = self._clock.now().timestamp() - written_at
        return None if age < 0 else self._clock.boot() - age

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self.wake.wait()
            self.wake.clear()
            if not self.is_due:
                continue
            try:
                await self.step()
            except SojournError as error:
                await asyncio.sleep(self.failed(error))
            except Exception as error:
                log.exception("audit_timestamp_broken")
                await asyncio.sleep(self.failed(StampRefused(f"the agent failed: {type(error).__name__}")))

    async def close(self) -> None:
        await self._http.close()

    async def step(self) -> None:
        """Have the last checkpoint stamped, and the stamp on disk. Raise StampRefused, StoreFailed."""
        state = self._signed.state
        note = state.checkpoint.encode()
        query, nonce = query_of(note)
        try:
            answer = await self._http.post_content(
                self._url, query, step="timestamp", headers={"content-type": QUERY, "accept": REPLY}
            )
        except ProviderUnavailable as error:
            raise StampRefused(
                f"{error.public}{f'; {error.hint}' if error.hint else ''}", detail=error.detail
            ) from error
        if answer.status != 200:
            raise StampRefused(f"it answered with status {answer.status}")
        if len(answer.body) > STAMP_MAX_BYTES:
            raise StampRefused(f"its answer has more than {STAMP_MAX_BYTES} bytes")
        try:
            at = await asyncio.to_thread(stamped_at, answer.body, note, self._roots, nonce)
        except InvalidInput as error:
            raise StampRefused(error.public) from error
        apart = at - self._clock.now().timestamp()
        if abs(apart) > STAMP_APART_SECONDS:
            way = "ahead of" if apart > 0 else "behind"
            raise StampRefused(f"its stamp is {abs(apart):.0f} s {way} this machine's clock: one of the two is wrong")
        await asyncio.to_thread(self._signed.stamped.keep, state.origin, at, state.size, note, answer.body)
        found = await asyncio.to_thread(self._signed.stamped.of, state.origin)
        self._last = next((each for each in found if (each.at, each.size) == (at, state.size)), None)
        self._last_boot = self._clock.boot()
        log.info("audit_timestamped", origin=state.origin, size=state.size, at=at)
        self.fault, self.failing_since, self._tried = "", 0.0, 0

    def failed(self, error: SojournError) -> float:
        """Nothing is stamped now. Return for how many seconds the authority is left alone."""
        if not self.fault:
            self.failing_since = self._clock.now().timestamp()
            log.warning("audit_timestamp_failing", reason=error.public, detail=error.detail or None)
        self.fault = error.public
        self._tried += 1
        self.wake.set()
        return pause_after(self._tried - 1, STAMP_RETRY_SECONDS, STAMP_RETRY_MAX_SECONDS, self._chance())
