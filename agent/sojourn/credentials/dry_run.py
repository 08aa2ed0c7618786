"""Trying a provider, step by step, up to the one that fails: first what this agent has, then the provider itself.

It goes past the circuit breaker, and counts for nothing there. What is told is looked through for assertions and for
whatever looks like a token: an outside system may repeat what it was sent.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import structlog

from sojourn.audit.journal import Audit
from sojourn.credentials.provider_routes import Outlet, ProviderRoutes
from sojourn.errors import InvalidInput, LimitExceeded, SojournError, Unavailable
from sojourn.limits import (
    PROVIDER_CHECK_ENDING_SECONDS,
    PROVIDER_CHECK_STEPS,
    PROVIDER_CHECK_TEXT,
    PROVIDER_CHECKS_PER_MINUTE,
)
from sojourn.policy.task_types import TaskType
from sojourn.providers.answers import own_clock
from sojourn.providers.errors import wordless
from sojourn.providers.provider import Mint, Step, Wanted
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import SpiffeId

log = structlog.get_logger()
ENDS: Final = timedelta(minutes=2)  # of the task that a check stands for: what it leaves by accident is short
TASK_ID: Final = "task_check"
_LOOK: Final = "see whether it runs and this machine reaches it; its own log and docs/providers.md have the rest"
_JWT: Final = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*")
_NAME: Final = re.compile(r"[^a-z0-9_]")


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is to be tried. All but the provider may be left out."""

    provider: str
    spiffe_id: SpiffeId | None = None  # None: the exchange itself is skipped
    task_type: str = ""
    resource: str = ""
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A step that is done, and how long it took."""

    step: Step
    milliseconds: int


class _Failed(Exception):
    """A first step failed."""

    def __init__(self, told: str, hint: str) -> None:
        super().__init__(told)
        self.told = told
        self.hint = hint


class DryRun:
    """Checks providers, each once at a time."""

    def __init__(
        self,
        outlets: ProviderRoutes,
        types: Callable[[], Mapping[str, TaskType]],
        registered: Callable[[SpiffeId], bool],
        mints: Callable[[SpiffeId], Mint],
        audit: Audit,
        clock: Clock,
    ) -> None:
        """`types`: those in force. `registered`: whether an entry gives the SPIFFE ID. `mints`: what signs for it."""
        self._outlets = outlets
        self._types = types
        self._registered = registered
        self._mints = mints
        self._audit = audit
        self._clock = clock
        self._running: set[str] = set()
        self._hanging: dict[str, asyncio.Future[None]] = {}  # checks that go on though they were told to end
        self._begun: dict[str, deque[float]] = {}

    async def check(self, request: CheckRequest, **by: Any) -> AsyncGenerator[TimedStep, None]:
        """Each step as it is done, up to one that fails. `by`: who asks, for the audit. Raise LimitExceeded."""
        self._admit(request.provider)
        self._running.add(request.provider)
        outcome, failed = "interrupted", None
        try:
            async with aclosing(self._timed(request)) as steps:
                async for timed in steps:
                    if timed.step.outcome == "failed":
                        outcome, failed = "failed", timed.step.name
                    yield timed
            outcome = "failed" if failed else "ok"
        finally:
            self._running.discard(request.provider)
            self._audit.note(
                "provider_checked",
                provider=request.provider[:64],
                spiffe_id=None if request.spiffe_id is None else str(request.spiffe_id),
                task_type=request.task_type[:64] or None,
                resource=request.resource[:PROVIDER_CHECK_TEXT] or None,
                outcome=outcome,
                step=failed,
                **by,
            )

    def _admit(self, name: str) -> None:
        hanging = self._hanging.get(name)
        if name in self._running or (hanging is not None and not hanging.done()):
            raise LimitExceeded(f"provider {name[:64]!r} is being checked already")
        if self._outlets.find(name) is None:
            return  # nobody outside is asked
        now = self._clock.boot()
        begun = self._begun.setdefault(name, deque())
        while begun and begun[0] <= now - 60:
            begun.popleft()
        if len(begun) >= PROVIDER_CHECKS_PER_MINUTE:
            raise LimitExceeded(
                f"provider {name[:64]!r} was checked {PROVIDER_CHECKS_PER_MINUTE} times within a minute: wait a little"
            )
        begun.append(now)

    async def _timed(self, request: CheckRequest) -> AsyncGenerator[TimedStep, None]:
        hidden: list[str] = []  # assertions that were made for it
        began = self._clock.boot()
        async with aclosing(self._steps(request, hidden)) as steps:
            async for step in steps:
                now = self._clock.boot()
                yield TimedStep(_shown(step, hidden), max(0, round((now - began) * 1000)))
                if step.outcome == "failed":
                    return
                began = self._clock.boot()

    async def _steps(self, request: CheckRequest, hidden: list[str]) -> AsyncGenerator[Step, None]:
        outlet = self._outlets.find(request.provider)
        if outlet is None:
            there = ", ".join(sorted(each.name for each in self._outlets.all())) or "none"
            hint = f"add [providers.{_name(request.provider)}] to the agent's configuration; there are: {there}"
            yield Step("configured", "failed", "the configuration has no such provider", hint)
            return
        provider = outlet.provider
        yield Step("configured", "ok", f"{outlet.name} is of kind {provider.kind}; at a task's end: {_end(outlet)}")
        yield own_clock(self._clock)
        try:
            step, wanted = self._wanted(request, outlet)
        except _Failed as error:
            yield Step("task_types", "failed", error.told, error.hint)
            return
        yield step
        if wanted is not None:
            if not self._registered(wanted.spiffe_id):
                hint = f"sojourn entry create --spiffe-id {wanted.spiffe_id} --selector …"
                yield Step("identity", "failed", f"no entry gives {wanted.spiffe_id}", hint)
                return
            yield Step("identity", "ok", f"{wanted.spiffe_id} is registered")
        async with aclosing(self._asked(outlet, wanted, hidden)) as steps:
            async for step in steps:
                yield step

    def _wanted(self, request: CheckRequest, outlet: Outlet) -> tuple[Step, Wanted | None]:
        """What to ask for, and the step that found it. Raise _Failed."""
        types = self._types()
        naming = [(kind.name, resource) for kind, resource in _pairs(types, outlet.name)]
        if not naming and not (request.task_type or request.resource):
            hint = f'set provider = "{outlet.name}" in a [[ceiling]] of a task type'
            return Step(
                "task_types", "skipped", "no task type names it: nobody can ask for its credentials", hint
            ), None
        found = [
            (kind, resource)
            for kind, resource in naming
            if request.task_type in {"", kind} and request.resource in {"", resource}
        ]
        listed = "; ".join(f"--type {kind} --resource {resource}" for kind, resource in naming[:5])
        if not found:
            if request.task_type and request.task_type not in types:
                raise _Failed(f"there is no task type {request.task_type[:64]!r}", f"there are: {_some(types)}")
            hint = listed or f'set provider = "{outlet.name}" in a [[ceiling]] of it'
            raise _Failed("the task type does not name this provider for that resource", hint)
        if request.spiffe_id is None:
            some = _some({kind: None for kind, _ in found})
            return Step("task_types", "ok", f"named by {some}; without --spiffe-id the exchange is skipped"), None
        if len(found) > 1:
            raise _Failed("more than one task type or resource has it: say which", listed)
        kind, resource = types[found[0][0]], found[0][1]
        actions = self._actions(request, kind, resource)
        try:
            route = self._outlets.route(kind, resource)
        except InvalidInput as error:
            raise _Failed(
                f"task type {kind.name}: {error.public}", f"set `ask` of that [[ceiling]] in {kind.name}.toml"
            ) from error
        assert route is not None
        wanted = Wanted(
            task_id=TASK_ID,
            task_type=kind.name,
            spiffe_id=request.spiffe_id,
            resource=resource,
            actions=actions,
            ask=route.ask,
            ends=self._clock.now() + ENDS,
        )
        return Step("task_types", "ok", f"{kind.name} has {', '.join(actions)} at {resource}"), wanted

    def _actions(self, request: CheckRequest, kind: TaskType, resource: str) -> tuple[str, ...]:
        has = kind.ceiling.at(resource)
        outside = next((each for each in request.actions if each not in has), None)
        if outside is not None:
            raise _Failed(f"task type {kind.name} does not have {outside[:100]!r} there", f"it has: {', '.join(has)}")
        return tuple(sorted(set(request.actions))) or has

    async def _asked(self, outlet: Outlet, wanted: Wanted | None, hidden: list[str]) -> AsyncGenerator[Step, None]:
        """The provider's own steps, each within its deadline."""
        told: asyncio.Queue[Step | None] = asyncio.Queue()
        trying = asyncio.ensure_future(self._try(outlet, wanted, hidden, told))
        try:
            while True:
                try:
                    async with asyncio.timeout(outlet.seconds):
                        step = await told.get()
                except TimeoutError:
                    yield _broken(
                        f"the next step did not end within {outlet.seconds:g} s",
                        "see whether the provider answers, from this machine; or raise its `timeout`",
                    )
                    return
                if step is None:
                    return
                yield step
        finally:
            trying.cancel()  # what it has obtained it takes back now
            await asyncio.wait([trying], timeout=PROVIDER_CHECK_ENDING_SECONDS)
            if not trying.done():
                log.warning("provider_check_hangs", provider=outlet.name)
                self._hanging[outlet.name] = trying

    async def _try(
        self, outlet: Outlet, wanted: Wanted | None, hidden: list[str], told: "asyncio.Queue[Step | None]"
    ) -> None:
        """Put each step of the provider's into `told`, and None at the end."""
        steps = cast("AsyncGenerator[Step, None]", outlet.provider.check(wanted, self._mint(wanted, hidden)))
        count = 0
        try:
            async for step in steps:
                count += 1
                if count > PROVIDER_CHECK_STEPS:
                    told.put_nowait(_broken(f"it has more than {PROVIDER_CHECK_STEPS} steps"))
                    break
                told.put_nowait(step)
        except SojournError as error:
            told.put_nowait(_broken(error.public, getattr(error, "hint", "")))
        except Exception as error:
            log.error("provider_raised", provider=outlet.name, exc_info=wordless(error))
            told.put_nowait(_broken(f"it failed: {type(error).__name__}"))
        finally:
            await steps.aclose()
            told.put_nowait(None)

    def _mint(self, wanted: Wanted | None, hidden: list[str]) -> Mint:
        async def mint(audience: str, **options: Any) -> str:
            if wanted is None:
                raise Unavailable("there is nobody to sign for")
            made = await self._mints(wanted.spiffe_id)(audience, **options)
            hidden.append(made)
            return made

        return mint


def _broken(told: str, hint: str = "") -> Step:
    return Step("check", "failed", told, hint or "this is for the provider's plugin to mend: the agent's log has more")


def _pairs(types: Mapping[str, TaskType], name: str) -> list[tuple[TaskType, str]]:
    return [
        (kind, resource)
        for kind in types.values()
        for resource, outside in sorted(kind.outside.items())
        if outside.provider == name
    ]


def _end(outlet: Outlet) -> str:
    does = {"revoke": "taken back", "deny": "denied", "none": "left until it expires"}[outlet.provider.recall]
    offline = outlet.provider.recall != "none" and outlet.provider.offline
    return f"its credential is {does}" + (", but services that do not ask take it until it expires" if offline else "")


def _some(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)[:10]) or "none"


def _name(text: str) -> str:
    return text if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", text) else "NAME"


def _shown(step: Step, hidden: list[str]) -> Step:
    """A step as it may be told."""
    hint = step.hint or (_LOOK if step.outcome == "failed" else "")
    name = _NAME.sub("_", step.name)[:64] or "check"
    return Step(name, step.outcome, _safe(step.told, hidden), _safe(hint, hidden))


def _safe(text: str, hidden: list[str]) -> str:
    for each in hidden:
        text = text.replace(each, "…")
    return _JWT.sub("…", text)[:PROVIDER_CHECK_TEXT]
