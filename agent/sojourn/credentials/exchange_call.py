"""One exchange with a provider: journaled, within its deadline, and tried again where that is safe.

What was sent and not answered may have had its effect: it is noted as lost, and what is asked then is asked anew.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import structlog

from sojourn.credentials.credential import Credential
from sojourn.credentials.ledger import CredentialLedger
from sojourn.credentials.provider_assertions import Assertions
from sojourn.credentials.provider_routes import Outlet
from sojourn.errors import SojournError
from sojourn.limits import PROVIDER_ANSWER_MAX_BYTES, PROVIDER_RETRY_SECONDS, PROVIDER_TRIES
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable, wordless
from sojourn.providers.provider import Obtained, Wanted
from sojourn.runtime.clock import Clock

log = structlog.get_logger()
Heard = Callable[[str, str, float], None]  # a provider, how an exchange ended, after how many seconds


def given_up() -> bool:
    """Whether what runs now was cancelled: a plugin may raise CancelledError by itself."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class ExchangeCalls:
    """Asks providers. `heard` hears how each exchange ended: issued, refused, unavailable, or given_up by us."""

    def __init__(
        self,
        book: CredentialLedger,
        assertions: Assertions,
        clock: Clock,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`pause` waits for so many seconds; `chance` gives a number from 0 to 1, by which pauses differ."""
        self._book = book
        self._assertions = assertions
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._hooks: list[Heard] = []

    def on_exchange(self, hook: Heard) -> None:
        """Call `hook` with the provider's name, how an exchange ended, and the seconds that it took."""
        self._hooks.append(hook)

    async def obtain(
        self,
        outlet: Outlet,
        owner: int | str,
        wanted: Callable[[], Wanted],
        journal: Callable[[], Awaitable[Credential]],
    ) -> tuple[Credential, Obtained]:
        """Obtain a credential that is in the book, and is not held yet: that is the caller's.

        `owner`: whose share of the calls it takes. `journal` has the book note that the provider is about to be asked;
        `wanted` is asked right before each call, and raises if the task does not want it any more. Raise
        ProviderRefused, ProviderUnavailable, LimitExceeded, or what those two raise.
        """
        outlet.circuit.check()  # before anything is written or waited for
        began, result = self._clock.boot(), "given_up"
        deadline = asyncio.get_running_loop().time() + outlet.seconds
        try:
            async with outlet.places.one(owner, until=deadline):
                got = await self._tries(outlet, deadline, wanted, journal)
            result = "issued"
        except TimeoutError as error:  # before it was this one's turn
            raise ProviderUnavailable(
                f"provider {outlet.name!r} is slow, and too many others wait for it", step="waiting"
            ) from error
        except ProviderRefused as error:
            result = "refused"
            _name(error, outlet)
            raise
        except ProviderUnavailable as error:
            result = "unavailable"
            _name(error, outlet)
            raise
        finally:
            outlet.exchanges += 1
            outlet.failures += result in {"refused", "unavailable"}
            for hook in self._hooks:
                hook(outlet.name, result, self._clock.boot() - began)
        return got

    async def _tries(
        self,
        outlet: Outlet,
        deadline: float,
        wanted: Callable[[], Wanted],
        journal: Callable[[], Awaitable[Credential]],
    ) -> tuple[Credential, Obtained]:
        asked: Credential | None = None
        sent, tries = False, 0
        try:
            while True:
                asked = asked or await journal()
                now = wanted()
                tries += 1
                try:
                    sent = True  # as far as anyone knows, if this is cancelled
                    return asked, await self._call(outlet, now, deadline)
                except ProviderUnavailable as error:
                    sent = error.sent
                    wait = self._wait(error, tries, deadline)
                    if wait is None:
                        raise
                    if sent:
                        self._book.lost(asked, error.public)
                        asked, sent = None, False
                except BaseException as error:
                    sent = not isinstance(error, ProviderRefused) or error.left
                    raise
                await self._pause(wait)
        except BaseException as error:
            if asked is not None:
                why = error.public if isinstance(error, SojournError) else type(error).__name__
                (self._book.lost if sent else self._book.refused)(asked, why)
            raise

    async def _call(self, outlet: Outlet, wanted: Wanted, deadline: float) -> Obtained:
        with outlet.circuit.call():
            try:
                async with asyncio.timeout_at(deadline):
                    return await outlet.provider.exchange(wanted, self._assertions.of(wanted.spiffe_id))
            except TimeoutError as error:
                raise ProviderUnavailable(
                    f"provider {outlet.name!r} did not answer within {outlet.seconds:g} s", step="exchange", sent=True
                ) from error
            except SojournError:
                raise
            except asyncio.CancelledError as error:
                if given_up():
                    raise
                raise ProviderUnavailable(
                    f"provider {outlet.name!r} failed: it gave up", step="exchange", sent=True
                ) from error
            except Exception as error:
                log.error("provider_raised", provider=outlet.name, task_id=wanted.task_id, exc_info=wordless(error))
                raise ProviderUnavailable(
                    f"provider {outlet.name!r} failed: {type(error).__name__}", step="exchange", sent=True
                ) from error

    def _wait(self, error: ProviderUnavailable, tries: int, deadline: float) -> float | None:
        """How long to wait before the next try; None: there is none."""
        if tries >= (PROVIDER_TRIES if not error.sent or error.retry_after else 2) or error.step == "circuit":
            return None
        wait = PROVIDER_RETRY_SECONDS * 2 ** (tries - 1) * (1 - self._chance() / 2)
        wait = max(wait, error.retry_after)
        return wait if asyncio.get_running_loop().time() + wait < deadline else None

    def sound(self, outlet: Outlet, obtained: Obtained) -> tuple[Obtained, str]:
        """What was obtained, such that it can be kept; and what is wrong with it, empty if it may be handed out."""
        fault, now = "", self._clock.now()
        token: object = obtained.token  # a plugin may give anything
        if not isinstance(token, str) or not 0 < len(token) <= PROVIDER_ANSWER_MAX_BYTES:
            fault = "it gave no token, or one that is too large"
        if obtained.expires_at.tzinfo is None:
            fault = "its expiry has no time zone"
        elif obtained.expires_at <= now + timedelta(seconds=1):
            fault = "it has expired already: is its clock right, and this machine's?"
        if not fault:
            return obtained, ""
        kept = replace(obtained, expires_at=now + outlet.provider.longest)
        return kept, f"what provider {outlet.name!r} gave cannot be used: {fault}"


def _name(error: ProviderRefused | ProviderUnavailable, outlet: Outlet) -> None:
    """Have the error say of which provider it is: whoever asked has named a resource, and no provider."""
    name, its = f"provider {outlet.name!r}", "the provider "
    if name not in error.public:
        error.public = (
            f"{name} {error.public[len(its) :]}" if error.public.startswith(its) else f"{name}: {error.public}"
        )
        error.args = (error.public,)
