"""Says what a guard refuses: in the log `sojourn.guard` at once, and to the agent each second, behind the requests."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.allowance import Allowance
from sojourn.limits import (
    REFUSAL_TARGETS_TOLD,
    REFUSALS_HELD,
    REFUSALS_LOGGED_PER_SECOND,
    REFUSALS_PER_REPORT,
    REFUSED_STRANGERS_HELD,
    TOKEN_USE_CALLS_MAX,
    TOKEN_USES_BYTES_PER_REPORT,
)
from sojourn.sdk.validating import Agent, served_message
from sojourn.tasks.served import NOTHING_SAID, Served
from sojourn.tasks.tokens import TaskToken

REPORT_SECONDS: Final = 1.0
SEND_SECONDS: Final = 2.0
# Of a token that is refused so somebody of ours may have had it; what is refused otherwise could say anything.
_MAY_BE_OURS: Final = frozenset(
    {"task_over", "superseded", "expired", "used", "unproved_binding", "wrong_binding", "wrong_audience"}
)
log = logging.getLogger("sojourn.guard")


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """One request that is refused. `token`: a good one, for whatever it is; None: there was none."""

    code: str  # why, stably
    reason: str
    request: Served
    token: TaskToken | None = None
    unverified_token: str = field(default="", repr=False)


_Named = tuple[str, str, Served]  # token, code, request


class Refusals:
    """Takes notes at once, and sends them behind. What is too much is counted, and what cannot be sent is lost."""

    def __init__(
        self,
        client: Agent,
        audience: str,
        *,
        every_seconds: float = REPORT_SECONDS,
        now: Callable[[], float] | None = None,
    ) -> None:
        """`now`: seconds of a clock that nobody sets, for the log's limit; None: time.monotonic."""
        self._client = client
        self._audience = audience
        self._every_seconds = every_seconds
        self._named: Counter[_Named] = Counter()
        self._targets: Counter[tuple[str, str]] = Counter()  # of each token and code: different requests
        self._strangers = 0  # of those: with tokens that are not known to be good
        self._others: Counter[str] = Counter()
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()  # the guard closes
        self._logged = Allowance(REFUSALS_LOGGED_PER_SECOND, now)
        self._unlogged = 0
        self._sender: asyncio.Task[None] | None = None
        self._told = False
        self._closing = False
        self.lost = 0  # requests

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send_always())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._some.set()
        self._hurry.set()
        if self._sender is not None:
            try:
                await asyncio.gather(self._sender, return_exceptions=True)  # what it is sending is not sent in vain
            finally:
                self._sender.cancel()
        await self._send()

    def note(self, refused: RefusedRequest) -> None:
        """A request was refused."""
        self._log(refused)
        text = refused.token.token if refused.token is not None else ""
        if not text and refused.code in _MAY_BE_OURS and self._strangers < REFUSED_STRANGERS_HELD:
            text = refused.unverified_token
            self._strangers += bool(text)
        if text:
            self._count(text, refused)
        else:
            self._others[refused.code] += 1
        self._some.set()

    def _count(self, text: str, refused: RefusedRequest) -> None:
        """Count for a token: each request by itself, up to so many; those that are more together."""
        named = (text, refused.code, refused.request)
        if named not in self._named and self._targets.get(named[:2], 0) >= REFUSAL_TARGETS_TOLD:
            named = (text, refused.code, NOTHING_SAID)
        if named not in self._named:
            if len(self._named) >= REFUSALS_HELD:
                self._others[refused.code] += 1
                return
            self._targets[named[:2]] += 1
        self._named[named] += 1

    def _log(self, refused: RefusedRequest) -> None:
        if not self._logged.allow("refused"):
            self._unlogged += 1
            return
        more, self._unlogged = self._unlogged, 0
        task = refused.token.task_id if refused.token is not None else "-"
        level = logging.WARNING if refused.token is not None else logging.INFO
        said = (task, refused.request.action or "-", refused.request.method, refused.request.target)
        log.log(level, "refused: task %s, action %s, %s %s: %s (%s)", *said, refused.reason, refused.code)
        if more:
            log.warning("%d refusals before that one were too many to be logged", more)

    async def _send_always(self) -> None:
        while not self._closing:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_seconds):
                    await self._hurry.wait()
            await self._send()

    async def _send(self) -> None:
        named, self._named = self._named, Counter()
        others, self._others = self._others, Counter()
        self._targets.clear()
        self._strangers = 0
        self._some.clear()
        for request in _reports(self._audience, named, others):
            count = sum(each.count for each in request.refusals) + sum(each.count for each in request.others)
            try:
                await self._client.connection.unary(
                    "/sojourn.v1.Validation/ReportRefusals", request, pb.ReportRefusalsResponse, SEND_SECONDS
                )
                self._told = False
            except Exception as error:  # noqa: BLE001  a report that fails must not stop those to come
                self.lost += count
                if not self._told:
                    self._told = True
                    log.warning("refusals cannot be told to the agent, and are in its records nowhere: %s", error)


def _reports(audience: str, named: Counter[_Named], others: Counter[str]) -> Iterator[pb.ReportRefusalsRequest]:
    """Cut into what one report may hold."""
    report, size = pb.ReportRefusalsRequest(audience=audience), 0
    for code, count in others.items():
        report.others.add(code=code, count=min(count, TOKEN_USE_CALLS_MAX))
    for (text, code, request), count in named.items():
        if report.refusals and (
            len(report.refusals) >= REFUSALS_PER_REPORT or size + len(text) > TOKEN_USES_BYTES_PER_REPORT
        ):
            yield report
            report, size = pb.ReportRefusalsRequest(audience=audience), 0
        report.refusals.append(
            pb.TokenRefusal(
                token=text,
                code=code,
                request=served_message(request) if request is not NOTHING_SAID else None,
                count=min(count, TOKEN_USE_CALLS_MAX),
            )
        )
        size += len(text) + len(request.target)
    if report.refusals or report.others:
        yield report
