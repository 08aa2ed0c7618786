"""Asking the agent for the tokens and proofs of requests: each token once, however many requests wait for it."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, Unpack

from sojourn.errors import SojournError
from sojourn.sdk.request.authorization import (
    AskProof,
    AskToken,
    Holding,
    HttpAnswer,
    ReadContent,
    RequestFlow,
    Send,
    Shelf,
    go_on,
    go_on_without,
)
from sojourn.sdk.request.flow import Call, Flow, drive, drive_async
from sojourn.sdk.task import acting
from sojourn.sdk.task.values import AccessToken, TokenOptions


class AsyncHolding(Holding, Protocol):
    """A task of code with an event loop."""

    async def token(
        self, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken: ...
    async def proof(self, method: str, url: str, token: AccessToken | str, nonce: str | None = None) -> str: ...


class SyncHolding(Holding, Protocol):
    """A task of code without one."""

    def token(
        self, resource: str = "", actions: Sequence[str] = (), **options: Unpack[TokenOptions]
    ) -> AccessToken: ...
    def proof(self, method: str, url: str, token: AccessToken | str, nonce: str | None = None) -> str: ...


Held = TypeVar("Held", AsyncHolding, SyncHolding)


class TaskAsking(ABC, Generic[Held]):
    """What is asked for the requests of one task, as flows: see AsyncAsking and SyncAsking."""

    def __init__(self, task: Held) -> None:
        self.task: Held = task
        self.shelf = Shelf()

    def until_send(self, flow: RequestFlow, answer: HttpAnswer | None, read: Call) -> Flow[Call, Send | None]:
        """Go on, after the service's answer to the last Send, to the next one; None: that answer is the caller's.

        `read` gives the whole content of the request.
        """
        acting.check(self.task.status.person)  # a token that is kept was asked for by nobody who is here
        step = go_on(flow, answer)
        while step is not None and not isinstance(step, Send):
            try:
                got = yield self._call(step, read)
            except SojournError as error:
                step = go_on_without(flow, error)
            else:
                step = go_on(flow, got)
        return step

    @abstractmethod
    def _in_turn(self, flow: Flow[Call, AccessToken]) -> Any:
        """Run a flow to its end while no other one of this task is run so."""

    def _call(self, step: AskToken | AskProof | ReadContent, read: Call) -> Call:
        """The call whose answer is that of a step."""
        if isinstance(step, AskProof):
            return partial(self.task.proof, step.method, step.url, step.token, step.nonce)
        if isinstance(step, ReadContent):
            return read
        # Nobody else can use a token for one request, so nobody waits for it.
        return self._issue(step) if step.digest else partial(self._in_turn, self._kept_or_new(step))

    def _kept_or_new(self, ask: AskToken) -> Flow[Call, AccessToken]:
        version = self.task.status.version
        token = self.shelf.token(ask, version)
        if token is None:
            token = yield self._issue(ask)
            self.shelf.keep(ask, token, version)
        return token

    def _issue(self, ask: AskToken) -> Call:
        options: TokenOptions = {"bound": "agent" if ask.bound else None, "params_digest": ask.digest}
        return partial(self.task.token, ask.resource, ask.actions, **options)


class AsyncAsking(TaskAsking[AsyncHolding]):
    """For one task and one event loop."""

    def __init__(self, task: AsyncHolding) -> None:
        super().__init__(task)
        self._one_at_a_time = asyncio.Lock()

    async def advance(
        self, flow: RequestFlow, answer: HttpAnswer | None, read: Callable[[], Awaitable[bytes]]
    ) -> Send | None:
        """See until_send."""
        return await drive_async(self.until_send(flow, answer, read))

    async def _in_turn(self, flow: Flow[Call, AccessToken]) -> AccessToken:
        async with self._one_at_a_time:
            return await drive_async(flow)


class SyncAsking(TaskAsking[SyncHolding]):
    """For one task and any number of threads."""

    def __init__(self, task: SyncHolding) -> None:
        super().__init__(task)
        self._one_at_a_time = threading.Lock()

    def advance(self, flow: RequestFlow, answer: HttpAnswer | None, read: Callable[[], bytes]) -> Send | None:
        """See until_send."""
        return drive(self.until_send(flow, answer, read))

    def _in_turn(self, flow: Flow[Call, AccessToken]) -> AccessToken:
        with self._one_at_a_time:
            return drive(flow)
