"""One way in which a provider is configured and asked, and what it does at an outside of a test."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, cast

from sojourn.errors import SojournError
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.provider import Ended, Obtained, Provider, ProviderPlugin, Step, Wanted
from sojourn.spiffe.ids import SpiffeId
from sojourn.testing.outside import SPIFFE_ID, Fault, Outside, ScriptedHttp, ScriptedMint, well
from sojourn.testing.promises import Broken, expect

LEFT: Final = timedelta(minutes=5)  # of the task


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a third party says of its provider to have it tried.

    `words` has every action that the task type has, at least two, with the text by which a request asks for it: then a
    request for fewer actions must be without that of the others. It is empty for an action that the outside system
    cannot be asked for by itself. `sets` are the actions that can be had at once; default: all of them, and each alone.
    Any other set must be refused.
    """

    plugin: ProviderPlugin
    settings: Mapping[str, Any]  # of [providers.NAME], with `kind`
    resource: str
    words: Mapping[str, str]
    outside: Callable[[], Outside]
    ask: Mapping[str, Any] = field(default_factory=dict)  # of the task type
    sets: tuple[tuple[str, ...], ...] = ()

    @property
    def actions(self) -> tuple[str, ...]:
        return tuple(sorted(self.words))

    @property
    def obtainable(self) -> tuple[tuple[str, ...], ...]:
        """The sets of actions that can be had at once."""
        return self.sets or (self.actions, *((each,) for each in self.actions))


class Tried:
    """A provider of a case, with an outside of its own."""

    def __init__(
        self, case: Case, fault: Fault = well, at: int = -1, *, lasting: bool = False, keyless: bool = False
    ) -> None:
        """Its request number `at` meets the fault; if `lasting`, all that follow too. `keyless`: no assertions."""
        self.case = case
        self.outside = case.outside()
        self.http = ScriptedHttp(self.outside, fault, at, lasting=lasting)
        self.mint = ScriptedMint(broken=keyless)
        self.provider: Provider = case.plugin("contract", dict(case.settings), self.http)
        self.ask = self.provider.read_ask(case.ask, case.actions)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.close()

    @property
    def secrets(self) -> set[str]:
        return {each for each in (*self.mint.given, *self.outside.secrets) if each}

    def wanted(self, actions: tuple[str, ...] | None = None, task_id: str = "task_contract") -> Wanted:
        return Wanted(
            task_id=task_id,
            task_type="contract",
            spiffe_id=SpiffeId.parse(SPIFFE_ID),
            resource=self.case.resource,
            actions=self.case.obtainable[0] if actions is None else actions,
            ask=self.ask,
            ends=datetime.now(UTC) + LEFT,
        )

    async def exchange(self, actions: tuple[str, ...] | None = None, task_id: str = "task_contract") -> Obtained:
        return await self.provider.exchange(self.wanted(actions, task_id), self.mint)

    async def attempt(self) -> Obtained | ProviderRefused | ProviderUnavailable:
        """An exchange, or the error that it may end with. Raise Broken for any other."""
        try:
            return await self.exchange()
        except (ProviderRefused, ProviderUnavailable) as error:
            self.hidden(error)
            return error
        except Exception as error:
            raise Broken(f"exchange raised {type(error).__name__}: {error}") from error

    async def take_back(self, ended: Ended) -> ProviderRefused | ProviderUnavailable | None:
        """None: confirmed; or the error that it may end with. Raise Broken for any other."""
        try:
            await self.provider.take_back(ended, self.mint)
        except (ProviderRefused, ProviderUnavailable) as error:
            self.hidden(error)
            return error
        except Exception as error:
            raise Broken(f"take_back raised {type(error).__name__}: {error}") from error
        return None

    async def check(self, *, alone: bool = False, at_most: int | None = None) -> list[Step]:
        """The steps of a check, up to so many, after which nobody reads on. `alone`: there is nobody to ask for."""
        steps: list[Step] = []
        told = cast("AsyncGenerator[Step]", self.provider.check(None if alone else self.wanted(), self.mint))
        try:
            while at_most is None or len(steps) < at_most:
                steps.append(await anext(told))
        except StopAsyncIteration:
            pass
        except Exception as error:
            raise Broken(f"check raised {type(error).__name__}: {error}") from error
        finally:
            await told.aclose()
        for step in steps:
            self.unseen("a step of the check", repr(step))
        return steps

    def ended(self, obtained: Obtained, **other: Any) -> Ended:
        ended = Ended(
            task_id="task_contract",
            spiffe_id=SpiffeId.parse(SPIFFE_ID),
            resource=self.case.resource,
            ask=self.ask,
            handle=obtained.handle,
            public=obtained.public,
            expires_at=obtained.expires_at,
        )
        return replace(ended, **other)

    def hidden(self, error: SojournError) -> None:
        """Raise Broken if an error of the provider's tells a secret, or does not tell what it must."""
        self.unseen("an error", repr(error), str(error), error.detail, str(getattr(error, "hint", "")))
        cause = error.__cause__ or error.__context__
        while cause is not None:  # the log has them too
            self.unseen("the cause of an error", repr(cause), str(cause))
            cause = cause.__cause__ or cause.__context__
        expect(error.public, "an error says nothing")

    def unseen(self, where: str, *texts: str) -> None:
        """Raise Broken if a secret is in one of the texts."""
        for text in texts:
            found = next((each for each in self.secrets if each in text), None)
            expect(found is None, f"{where} has a secret in it: {text[:300]}")


async def answers(case: Case, do: Callable[[Tried], Awaitable[object]]) -> list[bytes]:
    """What the outside answers while `do` is done and nothing goes wrong: the body for each request."""
    async with Tried(case) as tried:
        await do(tried)
        return [each.body for each in tried.http.answers]


async def cut_off(work: "asyncio.Future[Any]", sent: Callable[[], int], at: int) -> bool:
    """Cancel `work` once request number `at` is under way. Return whether it came to that."""
    while sent() <= at and not work.done():  # noqa: ASYNC110  # what is tried knows of no event
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    if work.done():
        return False
    work.cancel()
    await asyncio.wait([work], timeout=1.0)
    expect(work.done(), "it goes on after it was cancelled")
    expect(work.cancelled(), f"it was cancelled, and made something else of it: {work}")
    return True
