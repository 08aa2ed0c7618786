"""Promises of a provider: how what it gave is taken back, and how it is checked."""

import asyncio
import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from sojourn.limits import PROVIDER_CHECK_STEPS
from sojourn.providers.provider import Obtained, Step
from sojourn.testing.faults import hangs, of, plain, unreachable
from sojourn.testing.outside import Fault
from sojourn.testing.promises import expect, promised, told
from sojourn.testing.provider_case import Case, Tried, answers, cut_off

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OUTCOMES: Final = get_args(Step.__annotations__["outcome"])


class Ending:
    """Those of the end, which a provider without `recall` has none of, and those of the check."""

    case: Case

    @promised("what it takes back is good no more; doing so again, and late, is no error")
    async def ends(self) -> None:
        async with Tried(self.case) as tried:
            if tried.provider.recall == "none":
                return
            obtained = await tried.exchange()
            for ended in (
                tried.ended(obtained),
                tried.ended(obtained),
                tried.ended(obtained, ask=None),
                tried.ended(obtained, expires_at=datetime.now(UTC) - timedelta(days=1)),
            ):
                failed = await tried.take_back(ended)
                expect(failed is None, f"take_back failed: {failed!r}")
                if tried.provider.recall == "revoke":
                    expect(not tried.outside.live(), "it is good still")

    @promised("it is taken back by another run, that knows its handle alone")
    async def over_restarts(self) -> None:
        async with Tried(self.case) as tried:
            if tried.provider.recall == "none":
                return
            obtained = await tried.exchange()
            again = self.case.plugin("contract", dict(self.case.settings), tried.http)
            try:
                await again.take_back(tried.ended(obtained), tried.mint)
            finally:
                await again.close()
            if again.recall == "revoke":
                expect(not tried.outside.live(), "it is good still")

    @promised("one whose answer was lost is not an error of its own")
    async def without_handle(self) -> None:
        async with Tried(self.case) as tried:
            if tried.provider.recall == "none":
                return
            obtained = Obtained("unknown", datetime.now(UTC) + tried.provider.longest)
            await tried.take_back(tried.ended(obtained))

    @promised("whatever the outside answers, taking back is done, ProviderRefused or ProviderUnavailable")
    async def garbage_at_the_end(self) -> None:
        for name, at, fault in await self._faults_at_the_end():
            await self._spoilt_end(name, at, fault)

    async def _faults_at_the_end(self) -> list[tuple[str, int, Fault]]:
        async def both(tried: Tried) -> None:
            if tried.provider.recall != "none":
                await tried.take_back(tried.ended(await tried.exchange()))

        before = len(await answers(self.case, Tried.exchange))
        bodies = (await answers(self.case, both))[before:]
        return [
            (name, before + at, fault)
            for at, body in enumerate(bodies)
            for name, fault in itertools.chain(plain(), of(body))
        ]

    async def _spoilt_end(self, name: str, at: int, fault: Fault) -> None:
        async with Tried(self.case, fault, at) as tried:
            with told(f"request {at + 1}, {name}"):
                obtained = await tried.exchange()
                failed = await tried.take_back(tried.ended(obtained))
                if failed is None and tried.provider.recall == "revoke":
                    expect(not tried.outside.live(), "it is confirmed, and good still")
                if failed is not None and await tried.take_back(tried.ended(obtained)) is None:
                    expect(tried.provider.recall != "revoke" or not tried.outside.live(), "it is good still")

    @promised("taking back that is cut off ends at once, and can be done again")
    async def cancelled_end(self) -> None:
        before = len(await answers(self.case, Tried.exchange))
        async with Tried(self.case, hangs, before) as tried:
            if tried.provider.recall == "none":
                return
            ended = tried.ended(await tried.exchange())
            work = asyncio.ensure_future(tried.provider.take_back(ended, tried.mint))
            expect(await cut_off(work, tried.http.count, before), "it does not wait for its answer")
            expect(await tried.take_back(ended) is None, "it cannot be taken back any more")

    # --- the check ---

    @promised("a check goes well step by step, and leaves nothing behind")
    async def checks(self) -> None:
        async with Tried(self.case) as tried:
            steps = await tried.check()
            self._formed(steps)
            failed = [step for step in steps if step.outcome == "failed"]
            expect(not failed, f"a step failed though all is well: {failed}")
            self._nothing_left(tried)

    @promised("a check for nobody skips the exchange")
    async def checks_for_nobody(self) -> None:
        async with Tried(self.case) as tried:
            steps = await tried.check(alone=True)
            self._formed(steps)
            expect(all(step.outcome != "failed" for step in steps), f"a step failed though all is well: {steps}")
            expect(any(step.outcome == "skipped" for step in steps), "no step says that it is skipped")
            expect(not tried.outside.secrets, "it obtained something for nobody")

    @promised("a check never raises: it ends with the step that failed")
    async def failed_checks(self) -> None:
        bodies = await answers(self.case, Tried.check)
        for at, body in enumerate(bodies):
            for name, fault, lasting in (
                *((name, fault, lasting) for name, fault in plain() for lasting in (False, True)),
                *((name, fault, False) for name, fault in of(body)),
            ):
                async with Tried(self.case, fault, at, lasting=lasting) as tried:
                    with told(f"request {at + 1}{' and later ones' if lasting else ''}, {name}"):
                        self._formed(await tried.check())
        for alone in (True, False):
            async with Tried(self.case, unreachable, 0) as tried:
                steps = await tried.check(alone=alone)
                asked = bool(tried.http.sent)
                expect(not asked or steps[-1].outcome == "failed", "nobody is there, and no step fails")
        async with Tried(self.case, keyless=True) as tried:
            steps = await tried.check()
            self._formed(steps)
            expect(steps[-1].outcome == "failed", "there is no key to sign with, and no step fails")

    @promised("a check that nobody reads to its end leaves nothing behind")
    async def left_checks(self) -> None:
        async with Tried(self.case) as tried:
            whole = len(await tried.check())
        for at_most in range(whole):
            async with Tried(self.case) as tried:
                with told(f"after {at_most} steps"):
                    await tried.check(at_most=at_most)
                    self._nothing_left(tried)

    @promised("a check whose step hangs can be cut off")
    async def cancelled_checks(self) -> None:
        for at in range(len(await answers(self.case, Tried.check))):
            async with Tried(self.case, hangs, at) as tried:
                work = asyncio.ensure_future(tried.check())
                await cut_off(work, tried.http.count, at)

    def _formed(self, steps: list[Step]) -> None:
        expect(0 < len(steps) <= PROVIDER_CHECK_STEPS, f"a check of {len(steps)} steps")
        for step in steps:
            expect(_NAME.fullmatch(step.name), f"{step.name!r} is no name of a step")
            expect(step.outcome in _OUTCOMES, f"{step.outcome!r} is no outcome")
            expect(step.told and "\n" not in step.told + step.hint, f"step {step.name} is not told in one sentence")
        expect(len({step.name for step in steps}) == len(steps), "two steps have one name")
        for step in steps[:-1]:
            expect(step.outcome != "failed", f"it goes on after {step.name} failed")

    def _nothing_left(self, tried: Tried) -> None:
        if tried.provider.recall == "revoke":
            expect(not tried.outside.live(), "a credential of the check is good still")
