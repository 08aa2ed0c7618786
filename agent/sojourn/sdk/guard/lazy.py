"""The guard of an event loop, which begins with the first call there: for servers that tell nobody when they start."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

from sojourn.config.paths import public_socket
from sojourn.errors import SojournError
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.grpc_status import unreachable_sentence
from sojourn.sdk.guard.attempts import Attempt
from sojourn.sdk.guard.challenges import GuardAnswer, Refusal
from sojourn.sdk.guard.guard import Guard
from sojourn.sdk.guard.person_check import REFUSED, Taking
from sojourn.sdk.guard.route_check import hold
from sojourn.sdk.guard.routes import Route
from sojourn.sdk.guard.task_feed import LOG
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.tasktoken.tokens import TaskToken

UNREADY: Final = Refusal(503, "temporarily_unavailable", "the guard of this service cannot start now")
Verdict = TaskToken | GuardAnswer


def warn_of_absent_agent(audience: str, socket: str | None) -> None:
    """Say at once in the service's log that no agent is where it is asked to be, and not with the first request.

    A guard that begins with its first request is made long before it, perhaps before the agent is there.
    """
    try:
        path = public_socket(socket)
    except SojournError as error:
        LOG.warning("no request for %s can be judged: %s", audience, error.public)
        return
    if not Path(path).exists():
        LOG.warning("no request for %s can be judged: %s", audience, unreachable_sentence(path))


class GuardOptions(TypedDict, total=False):
    """By which agent: `socket`, none: the default one. `base_url`: where clients find the service, if that is not at
    its audience's origin; DPoP proofs are for it. `strict`: it does not begin where it would refuse tasks whose
    parameters it has no place for. `person`: whether tokens are taken that are for a person, where an action does not
    say.
    """

    socket: str | None
    base_url: str | None
    strict: bool
    person: Taking


class LoopGuard:
    """A Guard with its own connection to the agent. In another event loop it begins anew."""

    def __init__(
        self,
        audience: str,
        *,
        socket: str | None = None,
        base_url: str | None = None,
        strict: bool = False,
        routes: Sequence[Route] = (),
        make: Callable[[TaskVerifier], Guard] | None = None,
        person: Taking = REFUSED,
    ) -> None:
        """`make` makes the Guard of a running verifier, in the place of one whose requests say their own action."""
        self._audience = audience
        self._socket = socket
        self._routes, self._strict = routes, strict
        self._make = make or partial(Guard, actions={}, base_url=base_url, metadata=False, person=person)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()
        self._running: Guard | None = None
        self._verifier: TaskVerifier | None = None
        self._stack = AsyncExitStack()

    async def start(self) -> Guard:
        """Begin before the first call, and return the guard. Raise what keeps it from that, as RoutesNotBound."""
        return await self._begun()

    async def judge(self, ask: Callable[[Guard], Awaitable[Verdict]]) -> Verdict:
        """Have the guard judge. One that cannot start refuses."""
        guard = await self.running()
        return UNREADY if guard is None else await ask(guard)

    async def running(self) -> Guard | None:
        """The guard of the running loop, which is started if it has to be. None if it cannot start now."""
        try:
            return await self._begun()
        except SojournError as error:
            LOG.warning("the guard of %s cannot start: %s", self._audience, error.public)
            return None

    async def _begun(self) -> Guard:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # nothing of another loop is of use in this one
            self._loop, self._starting, self._running = loop, asyncio.Lock(), None
            self._stack = AsyncExitStack()
        if self._running is None:
            async with self._starting:
                if self._running is None:
                    try:
                        self._running = await self._start(self._stack)
                    except BaseException:
                        await self.close()
                        raise
        return self._running

    def tell(self, tried: Attempt, refusal: Refusal, code: str) -> Refusal:
        """See Guard.tell."""
        return self._running.tell(tried, refusal, code) if self._running is not None else refusal

    def over(self, token: TaskToken) -> str:
        """See TaskVerifier.over. A guard that is closed takes every task for ended."""
        return self._verifier.over(token) if self._verifier is not None else "the guard of this service is closed"

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one. Reports that wait are sent first."""
        stack, self._stack, self._running = self._stack, AsyncExitStack(), None
        self._verifier = None
        await stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> Guard:
        client = await stack.enter_async_context(Client(self._socket))
        self._verifier = verifier = await stack.enter_async_context(TaskVerifier(client, self._audience))
        await hold(verifier, self._routes, strict=self._strict)
        return self._make(verifier)
