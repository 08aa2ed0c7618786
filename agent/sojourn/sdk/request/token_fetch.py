"""Asking the agent for the tokens and proofs of requests: each token once, however many requests wait for it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, Unpack

from sojourn.errors import SojournError
from sojourn.sdk.request.authorization import (
    AskProof,
    AskToken,
    Flow,
    Holding,
    HttpAnswer,
    Send,
    Shelf,
    go_on,
    go_on_without,
)
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


class AsyncAsking:
    """For one task and one event loop."""

    def __init__(self, task: AsyncHolding) -> None:
        self.task = task
        self.shelf = Shelf()
        self._one_at_a_time = asyncio.Lock()

    async def advance(self, flow: Flow, answer: HttpAnswer | None, read: Callable[[], Awaitable[bytes]]) -> Send | None:
        """Go on, after the service's answer to the last Send, to the next one; None: that answer is the caller's.

        `read` gives the whole content of the request.
        """
        step = go_on(flow, answer)
        while step is not None and not isinstance(step, Send):
            try:
                if isinstance(step, AskToken):
                    got: Any = await self.token(step)
                else:
                    got = await (self.proof(step) if isinstance(step, AskProof) else read())
            except SojournError as error:
                step = go_on_without(flow, error)
            else:
                step = go_on(flow, got)
        return step

    async def token(self, ask: AskToken) -> AccessToken:
        if ask.digest:
            return await self._ask(ask)
        async with self._one_at_a_time:
            version = self.task.status.version
            token = self.shelf.token(ask, version)
            if token is None:
                token = await self._ask(ask)
                self.shelf.keep(ask, token, version)
            return token

    async def proof(self, ask: AskProof) -> str:
        return await self.task.proof(ask.method, ask.url, ask.token, ask.nonce)

    async def _ask(self, ask: AskToken) -> AccessToken:
        return await self.task.token(ask.resource, ask.actions, **_options(ask))


class SyncAsking:
    """For one task and any number of threads."""

    def __init__(self, task: SyncHolding) -> None:
        self.task = task
        self.shelf = Shelf()
        self._one_at_a_time = threading.Lock()

    def advance(self, flow: Flow, answer: HttpAnswer | None, read: Callable[[], bytes]) -> Send | None:
        """See AsyncAsking."""
        step = go_on(flow, answer)
        while step is not None and not isinstance(step, Send):
            try:
                if isinstance(step, AskToken):
                    got: Any = self.token(step)
                else:
                    got = self.proof(step) if isinstance(step, AskProof) else read()
            except SojournError as error:
                step = go_on_without(flow, error)
            else:
                step = go_on(flow, got)
        return step

    def token(self, ask: AskToken) -> AccessToken:
        if ask.digest:
            return self._ask(ask)
        with self._one_at_a_time:
            version = self.task.status.version
            token = self.shelf.token(ask, version)
            if token is None:
                token = self._ask(ask)
                self.shelf.keep(ask, token, version)
            return token

    def proof(self, ask: AskProof) -> str:
        return self.task.proof(ask.method, ask.url, ask.token, ask.nonce)

    def _ask(self, ask: AskToken) -> AccessToken:
        return self.task.token(ask.resource, ask.actions, **_options(ask))


def _options(ask: AskToken) -> TokenOptions:
    return {"bound": "agent" if ask.bound else None, "params_digest": ask.digest}
