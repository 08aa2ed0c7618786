"""Reports to the agent which calls were let through with which tokens, so that tasks spend their budgets and records
say what was done.

The first call of each task is reported at once, those that follow each second, and all that is left as soon as
something is heard of the task, as its end.
"""

from collections.abc import Iterator
from typing import Final

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.limits import (
    TOKEN_USE_CALLS_MAX,
    TOKEN_USES_BYTES_PER_REPORT,
    TOKEN_USES_HELD,
    TOKEN_USES_PER_REPORT,
    USED_TASKS_KEPT,
)
from sojourn.quota.lru import Lru
from sojourn.sdk.client.validation import Agent
from sojourn.sdk.guard.background_reports import REPORT_SECONDS, SEND_SECONDS, Behind

GAP_SECONDS: Final = 0.02  # between two reports, however much is at once


class UseReporter(Behind):
    """Takes notes at once, and sends them behind. `lost` counts calls."""

    def __init__(self, client: Agent, *, every_seconds: float = REPORT_SECONDS) -> None:
        loss = "calls under tasks cannot be reported to the agent, and do not count"
        super().__init__(every_seconds, GAP_SECONDS, loss)
        self._client = client
        self._noted: dict[tuple[str, str], int] = {}
        self._tasks: set[str] = set()  # of what was noted
        self._known: Lru[str, bool] = Lru(USED_TASKS_KEPT, by_age=True)  # tasks of which something was reported

    def note(self, token: str, action: str, task_id: str = "") -> None:
        """A call for `action` was let through with `token`, of this task."""
        use = (token, action)
        if use not in self._noted and len(self._noted) >= TOKEN_USES_HELD:
            self._lose(1, "there are too many")
            return
        self._noted[use] = self._noted.get(use, 0) + 1
        self._some.set()
        if task_id:
            self._tasks.add(task_id)
            if task_id not in self._known:
                self._due.set()
                self._known.put(task_id, True)

    def heard(self, task_id: str) -> None:
        """Something was heard of a task, or of all (''): what was noted of it is reported at once."""
        if task_id in self._tasks or not task_id:
            self._due.set()

    async def _send(self) -> None:
        noted, self._noted = self._noted, {}
        self._tasks.clear()
        for uses in _reports(noted):
            try:
                await self._client.connection.unary(
                    "/sojourn.v1.Validation/ReportUse",
                    pb.ReportUseRequest(uses=uses),
                    pb.ReportUseResponse,
                    SEND_SECONDS,
                )
                self._sent()
            except Exception as error:  # noqa: BLE001  a report that fails must not stop those to come
                self._lose(sum(use.calls for use in uses), str(error))


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
