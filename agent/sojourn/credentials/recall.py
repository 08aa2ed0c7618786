"""Taking credentials back whose tasks are over: behind the end, as often as it takes, and each provider by itself.

A credential is tried again with growing pauses until the provider has confirmed, has refused for good, or it has
expired. A provider that fails several times in a row is tried with one recall at a time until it answers again: those
that wait for it cost nothing then, and go at once when it is back.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from sojourn.credentials.credential import ENDING, Credential
from sojourn.credentials.exchange_call import given_up
from sojourn.credentials.ledger import CredentialLedger
from sojourn.credentials.provider_assertions import Assertions
from sojourn.credentials.provider_routes import Outlet, ProviderRoutes
from sojourn.credentials.sealing import HandleUnreadable
from sojourn.errors import SojournError
from sojourn.limits import (
    PROVIDER_CREDENTIALS,
    PROVIDER_RECALL_FAILURES,
    PROVIDER_RECALL_PAUSE_MAX_SECONDS,
    PROVIDER_RECALL_PAUSE_SECONDS,
    PROVIDER_RECALLS_AT_ONCE,
)
from sojourn.policy.task_types import TaskType
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.provider import Ended
from sojourn.runtime.clock import Alarms

log = structlog.get_logger()
CONFIRMED, REFUSED, FAILED = "confirmed", "refused", "failed"


class Recalling:
    """Takes back what the book lets go of. `results` counts attempts by (provider, result)."""

    def __init__(
        self,
        book: CredentialLedger,
        outlets: ProviderRoutes,
        types: Callable[[], Mapping[str, TaskType]],
        assertions: Assertions,
        alarms: Alarms,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`types`: the task types as they are. `chance`: a number from 0 to 1, by which pauses differ."""
        self.results: Counter[tuple[str, str]] = Counter()
        self._book = book
        self._outlets = outlets
        self._types = types
        self._assertions = assertions
        self._alarms = alarms
        self._chance = chance
        self._lanes: dict[str, _Lane] = {}

    def start(self) -> None:
        """Take back what earlier runs could not, and from now on what tasks have no more."""
        self._book.start(self.recall)

    def recall(self, credential: Credential) -> None:
        """Begin to take a credential of a provider that is there back. It returns at once."""
        name = credential.provider
        outlet = self._outlets.find(name)
        if outlet is not None:
            if name not in self._lanes:
                self._lanes[name] = _Lane(outlet, self._try, self._alarms, self._chance)
            self._lanes[name].add(credential)

    async def quiet(self) -> None:
        """Return when no attempt is under way."""
        for lane in self._lanes.values():
            await lane.quiet()

    async def close(self) -> None:
        """Give up what is under way: the next run goes on with it."""
        for lane in self._lanes.values():
            await lane.close()

    async def _try(self, outlet: Outlet, credential: Credential) -> "_Fault | None":
        """Try once. Return why it is to be tried again."""
        name, seconds = outlet.name, outlet.seconds
        try:
            ended = self._ended(credential)
            async with asyncio.timeout(seconds):
                await outlet.provider.take_back(ended, self._assertions.of(credential.spiffe_id))
        except (ProviderRefused, HandleUnreadable) as error:
            self.results[name, REFUSED] += 1
            self._book.unrecallable(credential, error.public)
            return None
        except asyncio.CancelledError:
            if given_up():
                raise
            fault = _Fault("the provider's plugin gave up")
        except TimeoutError:
            fault = _Fault(f"the provider did not confirm within {seconds:g} seconds")
        except ProviderUnavailable as error:
            fault = _Fault(error.public, error.retry_after)
        except SojournError as error:
            fault = _Fault(error.public)
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything; its text may hold anything too
            fault = _Fault(f"the provider's plugin failed: {type(error).__name__}")
        else:
            self.results[name, CONFIRMED] += 1
            self._book.recalled(credential)
            return None
        self.results[name, FAILED] += 1
        self._book.not_recalled(credential, fault.why)
        return fault

    def _ended(self, credential: Credential) -> Ended:
        return Ended(
            task_id=credential.task_id,
            spiffe_id=credential.spiffe_id,
            resource=credential.grant.resource,
            ask=self._ask(credential),
            handle=self._book.handle_of(credential),
            public=credential.public,
            expires_at=credential.expires_at,
        )

    def _ask(self, credential: Credential) -> Any:
        """What the task type says now of how to ask for such a one; None if it does not any more."""
        kind = self._types().get(credential.task_type)
        try:
            route = None if kind is None else self._outlets.route(kind, credential.grant.resource)
        except SojournError:
            return None
        return route.ask if route is not None and route.outlet.name == credential.provider else None


class _Fault:
    """Why an attempt failed, and for how many seconds the provider wants to be left alone; 0: it did not say."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        self.why = why
        self.pause = min(max(0.0, retry_after), PROVIDER_RECALL_PAUSE_MAX_SECONDS)


class _Lane:
    """The recalls of one provider, the oldest first."""

    def __init__(
        self,
        outlet: Outlet,
        attempt: Callable[[Outlet, Credential], Awaitable[_Fault | None]],
        alarms: Alarms,
        chance: Callable[[], float],
    ) -> None:
        self._outlet = outlet
        self._attempt = attempt
        self._alarms = alarms
        self._chance = chance
        self._waiting: deque[Credential] = deque()
        self._running: set[asyncio.Future[None]] = set()
        self._failures = 0  # in a row
        self._paused = False
        self._closed = False

    def add(self, credential: Credential) -> None:
        self._waiting.append(credential)
        if len(self._waiting) > 2 * PROVIDER_CREDENTIALS:  # most have expired while the provider did not answer
            self._waiting = deque(each for each in self._waiting if each.state == ENDING)
        self._pump()

    def _pump(self) -> None:
        at_once = PROVIDER_RECALLS_AT_ONCE if self._failures < PROVIDER_RECALL_FAILURES else 1
        while self._waiting and not self._paused and not self._closed and len(self._running) < at_once:
            credential = self._waiting.popleft()
            if credential.state == ENDING:  # else it has expired meanwhile
                running = asyncio.ensure_future(self._one(credential))
                self._running.add(running)
                running.add_done_callback(self._ran)

    async def _one(self, credential: Credential) -> None:
        fault = await self._attempt(self._outlet, credential)
        if fault is None:
            if self._failures:
                log.info("external_recalls_go_on", provider=self._outlet.name, waiting=len(self._waiting))
            self._failures = 0
            return
        self._failures += 1
        if self._failures == 1:
            log.warning(
                "external_recall_failed", provider=self._outlet.name, reason=fault.why, task_id=credential.task_id
            )
        self._alarms.after(self._pause(credential.attempts, fault.pause), self.add, credential)
        if self._failures >= PROVIDER_RECALL_FAILURES and not self._paused:
            self._paused = True
            self._alarms.after(self._pause(self._failures - PROVIDER_RECALL_FAILURES + 1, fault.pause), self._go_on)

    def _pause(self, attempts: int, wanted: float) -> float:
        """Seconds after the so-many-th failure: each pause is about twice the one before, and none is the same."""
        longest = min(PROVIDER_RECALL_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 30), PROVIDER_RECALL_PAUSE_MAX_SECONDS)
        return max(longest * (1 - self._chance() / 2), wanted)

    def _go_on(self) -> None:
        self._paused = False
        self._pump()

    def _ran(self, done: "asyncio.Future[None]") -> None:
        self._running.discard(done)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("external_recall_broken", provider=self._outlet.name, exc_info=error)
        self._pump()

    async def quiet(self) -> None:
        while self._running:
            await asyncio.wait(set(self._running))

    async def close(self) -> None:
        self._closed = True
        for each in self._running:
            each.cancel()
        await self.quiet()
