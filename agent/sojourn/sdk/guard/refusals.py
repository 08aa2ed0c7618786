"""Says what a guard refuses: in the log `sojourn.guard` at once, and to the agent each second, behind the requests."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.limits import (
    REFUSAL_TARGETS_TOLD,
    REFUSALS_HELD,
    REFUSALS_LOGGED_PER_SECOND,
    REFUSALS_PER_REPORT,
    REFUSED_STRANGERS_HELD,
    TOKEN_USE_CALLS_MAX,
    TOKEN_USES_BYTES_PER_REPORT,
)
from sojourn.quota.rate import Rate
from sojourn.sdk.client.validation import Agent, served_message
from sojourn.sdk.guard.background_reports import REPORT_SECONDS, SEND_SECONDS, Behind, log
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from sojourn.tasktoken.tokens import TaskToken

# A token that is refused so may have been somebody's of ours; one that is refused otherwise could say anything.
_MAY_BE_OURS: Final = frozenset(
    {"task_over", "superseded", "expired", "used", "unproved_binding", "wrong_binding", "wrong_audience"}
)


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """One request that is refused. `token`: a good one, for whatever it is; None: there was none."""

    code: str  # why, stably
    reason: str
    request: Served
    token: TaskToken | None = None
    unverified_token: str = field(default="", repr=False)


_Named = tuple[str, str, Served]  # token, code, request


class Refusals(Behind):
    """Takes notes at once, and sends them behind. What is too much is counted alone; `lost` counts requests."""

    def __init__(
        self,
        client: Agent,
        audience: str,
        *,
        every_seconds: float = REPORT_SECONDS,
        now: Callable[[], float] | None = None,
    ) -> None:
        """`now`: seconds of a clock that nobody sets, for the log's limit; None: time.monotonic."""
        super().__init__(every_seconds, 0, "refusals cannot be told to the agent, and are in its records nowhere")
        self._client = client
        self._audience = audience
        self._named: Counter[_Named] = Counter()
        self._targets: Counter[tuple[str, str]] = Counter()  # of each token and code: different requests
        self._strangers = 0  # of those: with tokens that are not known to be good
        self._others: Counter[str] = Counter()
        self._logged = Rate(REFUSALS_LOGGED_PER_SECOND, now)
        self._unlogged = 0

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

    async def _send(self) -> None:
        named, self._named = self._named, Counter()
        others, self._others = self._others, Counter()
        self._targets.clear()
        self._strangers = 0
        for request in _reports(self._audience, named, others):
            count = sum(each.count for each in request.refusals) + sum(each.count for each in request.others)
            try:
                await self._client.connection.unary(
                    "/sojourn.v1.Validation/ReportRefusals", request, pb.ReportRefusalsResponse, SEND_SECONDS
                )
                self._sent()
            except Exception as error:  # noqa: BLE001  a report that fails must not stop those to come
                self._lose(count, str(error))


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
