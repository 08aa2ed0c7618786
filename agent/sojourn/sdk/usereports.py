"""Reports to the agent which calls were let through with which tokens, so that tasks spend their budgets."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Final, Self

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.limits import (
    TOKEN_USE_CALLS_MAX,
    TOKEN_USES_BYTES_PER_REPORT,
    TOKEN_USES_HELD,
    TOKEN_USES_PER_REPORT,
)
from sojourn.sdk.validating import Agent

REPORT_SECONDS: Final = 1.0
SEND_SECONDS: Final = 2.0
log = logging.getLogger("sojourn.guard")


class UseReports:
    """Takes notes at once, and sends them behind. What cannot be sent is lost, which the log tells once."""

    def __init__(self, client: Agent, *, every_seconds: float = REPORT_SECONDS) -> None:
        self._client = client
        self._every_seconds = every_seconds
        self._noted: dict[tuple[str, str], int] = {}
        self._some = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._told = False
        self.lost = 0  # calls

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send_always())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._send()

    def note(self, token: str, action: str) -> None:
        """A call for `action` was let through with `token`."""
        use = (token, action)
        if use not in self._noted and len(self._noted) >= TOKEN_USES_HELD:
            self._lose(1, "there are too many")
            return
        self._noted[use] = self._noted.get(use, 0) + 1
        self._some.set()

    async def _send_always(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(self._every_seconds)
            await self._send()

    async def _send(self) -> None:
        noted, self._noted = self._noted, {}
        self._some.clear()
        for uses in _reports(noted):
            try:
                await self._client.connection.unary(
                    "/sojourn.v1.Validation/ReportUse",
                    pb.ReportUseRequest(uses=uses),
                    pb.ReportUseResponse,
                    SEND_SECONDS,
                )
                self._told = False
            except Exception as error:  # noqa: BLE001  a report that fails must not stop those to come
                self._lose(sum(use.calls for use in uses), str(error))

    def _lose(self, calls: int, why: str) -> None:
        self.lost += calls
        if not self._told:
            self._told = True
            log.warning("calls under tasks cannot be reported to the agent, and do not count: %s", why)


def _reports(noted: dict[tuple[str, str], int]) -> Iterator[list[pb.TokenUse]]:
    """Cut into what one report may hold."""
    uses: list[pb.TokenUse] = []
    size = 0
    for (token, action), calls in noted.items():
        if uses and (len(uses) >= TOKEN_USES_PER_REPORT or size + len(token) > TOKEN_USES_BYTES_PER_REPORT):
            yield uses
            uses, size = [], 0
        uses.append(pb.TokenUse(token=token, action=action, calls=min(calls, TOKEN_USE_CALLS_MAX)))
        size += len(token) + len(action)
    if uses:
        yield uses
