"""A guard that starts itself: with the first call that needs it, in the process and the loop that serve the call."""

import asyncio
import atexit
import os
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, TypedDict

from sojourn.errors import InvalidInput, SojournError
from sojourn.sdk.answers import Answer, Refusal
from sojourn.sdk.client import Client
from sojourn.sdk.guard import Guard
from sojourn.sdk.portal import Portal
from sojourn.sdk.routes import Actions
from sojourn.sdk.verifier import TaskVerifier
from sojourn.tasks.tokens import TaskToken

UNREADY: Final = Refusal(503, "temporarily_unavailable", "the guard of this service cannot start now")
Verdict = TaskToken | Answer
Ask = Callable[[Guard], Awaitable[Verdict]]
AskBlocking = Callable[[Guard, "Caller"], Awaitable[Verdict]]


class GuardOptions(TypedDict, total=False):
    """For which service, and by which agent.

    `audience`: the resource that tokens are for. `socket`: the agent's; none: the default one. `base_url`: where clients
    find the service, if that is not at its audience's origin; DPoP proofs are for it. `guard`: a running one in the
    place of these, for servers of one event loop.
    """

    audience: str | None
    socket: str | None
    base_url: str | None
    guard: Guard | None


class Guards:
    """Where guarded calls find their guard."""

    def __init__(
        self,
        *,
        actions: Actions | None = None,
        metadata: bool = False,
        audience: str | None = None,
        socket: str | None = None,
        base_url: str | None = None,
        guard: Guard | None = None,
    ) -> None:
        if (guard is None) == (audience is None):
            raise InvalidInput("a guard needs either an audience, or is given")
        self._audience = audience or ""
        self._socket = socket
        self._base_url = base_url
        self._actions: Actions = actions if actions is not None else {}
        self._metadata = metadata
        self._given = guard
        self._running: Guard | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._stack = AsyncExitStack()
        self._process = _Process()

    async def judge(self, ask: Ask) -> Verdict:
        """Have the guard of this event loop judge. A guard that cannot start refuses."""
        try:
            guard = await self._of_loop()
        except SojournError:
            return UNREADY
        return await ask(guard)

    def judge_blocking(self, ask: AskBlocking) -> Verdict:
        """The same for a thread without an event loop, by the guard of this process."""
        if self._given is not None:
            raise InvalidInput("a guard that was given belongs to its event loop: give an audience instead")
        caller = Caller()
        return caller.wait(self._process.portal(), lambda: self.judge(lambda guard: ask(guard, caller)))

    async def close(self) -> None:
        """End what `judge` began in this loop; the next call begins it anew."""
        stack, self._stack, self._running = self._stack, AsyncExitStack(), None
        await stack.aclose()

    async def _of_loop(self) -> Guard:
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._starting is None or self._loop is not loop:  # nothing of another loop is of use in this one
            self._loop, self._starting, self._running = loop, asyncio.Lock(), None
            self._stack = AsyncExitStack()
        if self._running is None:
            async with self._starting:
                if self._running is None:
                    self._running = await self._start(self._stack)
        return self._running

    async def _start(self, stack: AsyncExitStack) -> Guard:
        client = await stack.enter_async_context(Client(self._socket))
        verifier = await stack.enter_async_context(TaskVerifier(client, self._audience))
        return await stack.enter_async_context(
            Guard(verifier, self._actions, base_url=self._base_url, metadata=self._metadata)
        )


class Caller:
    """A thread that waits for a verdict, and meanwhile does what only it may: read its request."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def wait(self, portal: Portal, judging: Callable[[], Awaitable[Verdict]]) -> Verdict:
        async def judged() -> Verdict:
            return await judging()

        future = portal.submit(judged())
        future.add_done_callback(lambda _: self._work.put(None))
        try:
            while (work := self._work.get()) is not None:
                work()
        except BaseException:  # this thread was interrupted: so is the verdict
            future.cancel()
            raise
        return future.result()

    async def do(self, read: Callable[[], bytes]) -> bytes:
        """Have the thread call `read`, while others are judged."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()

        def settle(content: bytes, error: Exception | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(content)
            else:
                done.set_exception(error)

        def work() -> None:
            content, error = b"", None
            try:
                content = read()
            except SojournError as raised:
                error = raised
            except Exception:  # noqa: BLE001  # whatever a server's stream raises: its client has gone
                error = InvalidInput("content of the request cannot be read")
            loop.call_soon_threadsafe(settle, content, error)

        self._work.put(work)
        return await done


class _Process:
    """The loop in a thread of its own that serves this process's threads: a forked process makes one for itself."""

    def __init__(self) -> None:
        self._portal: Portal | None = None
        self._lock = threading.Lock()
        forked, closing = weakref.WeakMethod(self._forked), weakref.WeakMethod(self._close)
        os.register_at_fork(after_in_child=lambda: _if_there(forked))
        atexit.register(lambda: _if_there(closing))

    def portal(self) -> Portal:
        with self._lock:
            if self._portal is None:
                self._portal = Portal()
            return self._portal

    def _forked(self) -> None:
        self._portal, self._lock = None, threading.Lock()

    def _close(self) -> None:
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.close()


def _if_there(method: "weakref.WeakMethod[Callable[[], None]]") -> None:
    found = method()
    if found is not None:
        found()
