"""What services tell of what they refused: which task it was is the agent's to find out, by the token."""

import asyncio

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidInput
from sojourn.limits import TOKEN_USE_CALLS_MAX, USES_JUDGED_AT_ONCE
from sojourn.oauth.validation import TokenValidation
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasktoken.request_record import NOTHING_SAID, Served


class RefusalReports:
    """Takes reports of services that may make them."""

    def __init__(self, judging: TokenValidation, refusals: RefusalCounts) -> None:
        self._judging = judging
        self._refusals = refusals

    async def told(self, by: str, report: pb.ReportRefusalsRequest) -> pb.ReportRefusalsResponse:
        """Note them. What is said to be refused with a token that we did not sign is counted alone."""
        for count in (*(each.count for each in report.refusals), *(each.count for each in report.others)):
            if not 1 <= count <= TOKEN_USE_CALLS_MAX:
                raise InvalidInput(f"count of a refusal is 1 to {TOKEN_USE_CALLS_MAX}")
        for other in report.others:
            self._refusals.count(by, report.audience, other.code, other.count)
        named = 0
        for place, each in enumerate(report.refusals, 1):
            task = self._judging.task_of(each.token)
            if task is None:
                self._refusals.count(by, report.audience, each.code, each.count)
            else:
                request = served_of(each.request) if each.HasField("request") else NOTHING_SAID
                self._refusals.note(by, report.audience, task, each.code, request, each.count)
                named += 1
            if place % USES_JUDGED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return pb.ReportRefusalsResponse(named=named)


def served_of(said: pb.Served) -> Served:
    """A request as a service tells it: bounded and printable, whatever it says."""
    return Served.of(said.action, said.method, said.target, said.compared, said.unchecked, said.times)
