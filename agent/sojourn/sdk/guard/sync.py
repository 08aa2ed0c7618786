"""The guard for code without an event loop, as WSGI applications are."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

from sojourn.sdk.client.greenlets import refuse_eventlet
from sojourn.sdk.client.loop_thread import Portal
from sojourn.sdk.guard.attempts import Attempt
from sojourn.sdk.guard.challenges import GuardAnswer, Refusal
from sojourn.sdk.guard.guard import Guard, HttpRequest
from sojourn.sdk.guard.lazy import LoopGuard, warn_of_absent_agent
from sojourn.sdk.guard.param_check import Stated
from sojourn.sdk.guard.person_check import REFUSED, Taking
from sojourn.sdk.guard.routes import Action, Actions, Route, action_finder, routes_of
from sojourn.tasktoken.sender_constraint import UNPROVEN, Proven
from sojourn.tasktoken.tokens import TaskToken


class SyncGuard:
    """A Guard with its own connection to the agent, in a thread of its own. May be shared by threads.

    It connects when first used, and anew in a process that was forked, as servers with workers do.
    """

    def __init__(
        self,
        actions: Actions,
        *,
        audience: str,
        socket: str | None = None,
        base_url: str | None = None,
        metadata: bool = True,
        routes: Sequence[Route] | None = None,
        strict: bool = False,
        person: Taking = REFUSED,
    ) -> None:
        """See Guard. Raise InvalidInput for a route that could match nothing, and under eventlet.

        `routes` are those that `actions` do not say. A guard that is `strict` does not begin where it would refuse
        tasks whose parameters its routes have no place for.
        """
        refuse_eventlet()
        action_finder(actions)
        warn_of_absent_agent(audience, socket)
        self.audience = audience
        self._make = partial(
            LoopGuard,
            audience,
            socket=socket,
            strict=strict,
            routes=routes_of(actions) if routes is None else routes,
            make=partial(Guard, actions=actions, base_url=base_url, metadata=metadata, person=person),
        )
        self._locks: dict[int, threading.Lock] = {}  # by process
        self._pid = 0
        self._open: tuple[Portal, LoopGuard, Guard] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection. Reports that wait are sent first."""
        with self._lock():
            opened, self._open = self._open, None
            if opened is not None and self._pid == os.getpid():
                portal, inner, _ = opened
                portal.run(inner.close())
                portal.close()

    def start(self) -> None:
        """Begin now, in this process, which must not fork any more. Raise what keeps it from that."""
        self._running()

    def check(self, request: HttpRequest, content: Callable[[], bytes]) -> TaskToken | GuardAnswer:
        """See Guard.check. `content` is called in this thread."""
        portal, guard = self._running()
        return portal.run_asking(lambda read: guard.check(request, read), content)

    def check_call(
        self,
        token: str,
        action: Action | str,
        params: Mapping[str, object] | None = None,
        digest: str | Callable[[], str] = "",
        proven: Proven = UNPROVEN,
    ) -> TaskToken | Refusal:
        """See Guard.check_call."""
        portal, guard = self._running()
        return portal.run(guard.check_call(token, action, params, digest, proven))

    def check_request(
        self,
        request: HttpRequest,
        action: Callable[[], Action | None],
        digest: Callable[[], str],
        stated: Stated | None = None,
    ) -> TaskToken | GuardAnswer:
        """See Guard.check_request. `digest` is called in this thread."""
        portal, guard = self._running()
        return portal.run_asking(lambda make: guard.check_request(request, action, make, stated), digest)

    def tell(self, tried: Attempt, refusal: Refusal, code: str) -> Refusal:
        """See Guard.tell."""
        portal, guard = self._running()

        async def told() -> Refusal:
            return guard.tell(tried, refusal, code)

        return portal.run(told())

    def over(self, token: TaskToken) -> str:
        """See TaskVerifier.over. A guard that is closed takes every task for ended."""
        opened = self._open
        return opened[1].over(token) if opened is not None else "the guard of this service is closed"

    def _running(self) -> tuple[Portal, Guard]:
        opened = self._open
        if opened is None or self._pid != os.getpid():
            with self._lock():
                if self._open is None or self._pid != os.getpid():
                    self._open, self._pid = self._start(), os.getpid()
                opened = self._open
        return opened[0], opened[2]

    def _lock(self) -> threading.Lock:
        """That of this process. One from before a fork may be held for good, or stop every greenlet."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _start(self) -> tuple[Portal, LoopGuard, Guard]:
        portal, inner = Portal(), self._make()
        try:
            return portal, inner, portal.run(inner.start())
        except BaseException:
            portal.close()
            raise
