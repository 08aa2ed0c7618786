"""The credentials of one outside resource of a task, as the agent gives them."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from sojourn.sdk.task import acting
from sojourn.sdk.task.values import AccessToken, TaskStatus

_ACTIVE: Final = "active"


class Giving(Protocol):
    """A task, as far as it concerns its credentials."""

    @property
    def status(self) -> TaskStatus: ...
    async def token(self, resource: str = "") -> AccessToken: ...


class CloudCredentials:
    """Asked of the agent once for all who wait, and kept for half of their life at most.

    They are kept while the task is as it was when they were given, and only if the task is told of its changes
    (`followed`): else each request is the agent's to judge.
    """

    def __init__(
        self,
        task: Giving,
        resource: str,
        *,
        followed: bool,
        boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self.resource = resource
        self._task = task
        self._followed = followed
        self._boot = boot
        self._one_at_a_time = asyncio.Lock()
        self._kept: tuple[AccessToken, int, float] | None = None  # with the task's version, and until when

    async def get(self) -> AccessToken:
        """Raise what the agent raises: TaskOver, Refused, Unavailable …"""
        async with self._one_at_a_time:
            status = self._task.status
            acting.check(status.person)  # what is kept was asked for by nobody who is here
            if self._kept is not None:
                token, version, until = self._kept
                if status.state == _ACTIVE and status.version == version and self._boot() < until:
                    return token
            self._kept = None
            token = await self._task.token(self.resource)
            left = (token.expires_at - datetime.now(UTC)).total_seconds()
            if self._followed:
                self._kept = token, status.version, self._boot() + left / 2
            return token

    def __repr__(self) -> str:
        return f"Credentials({self.resource})"


def followed(task: Any) -> bool:
    """Whether a task hears of its own end (Task, and not HeldTask)."""
    return hasattr(task, "wait_ended")
