"""Which calls are made again that an agent has not answered because it stops, as it does for a restart.

Only those of which nothing can have come: what the agent refused before it did anything, and what changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc

from sojourn.errors import SojournError
from sojourn.errors.oauth import ShuttingDown

T = TypeVar("T")
_PAUSE_SECONDS: Final = 0.2
# Methods that change nothing, and begin nothing that would outlive them. GetToken is none: it spends what a task has.
READS: Final = frozenset({
    *("GetStatus", "Explain", "ListStreams", "ListSvids", "ListTasks", "GetTask", "ListBlocks", "ExplainPolicy"),
    *("GetShadowReport", "ListAudit", "ReadAudit", "VerifyAudit", "GetBundle", "ListRevocations", "ListFacts"),
    *("GetAuditLog", "ListAuditSinks", "ProveAudit", "ExportAudit", "SearchAudit", "GetUsage", "ListStanding"),
    *("ListReviewItems", "ShowReviewItems"),
    *("ListApprovals", "ListReviews", "ListFederation", "ListProviders", "ListExternalCredentials", "ShowTask"),
    *("CountBundles", "ListFederatedBundles", "GetFederatedBundle", "CountAgents", "ListAgents", "GetAgent"),
    *("CountEntries", "ListEntries", "GetEntry", "ListFederationRelationships", "GetFederationRelationship"),
    *("GetJWTAuthorityState", "GetX509AuthorityState", "GetWITAuthorityState", "GetInfo", "GetLogger", "Check"),
    *("FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "FetchWITSVID", "FetchWITBundles"),
    *("ValidateJWTSVID", "DescribeAudience", "ListPeople", "GetPerson"),
})  # fmt: skip


def may_repeat(method: str, error: SojournError) -> bool:
    """Whether a call may be made again that ended so: its agent is stopping, and nothing came of it."""
    if error.remote_code:
        return error.remote_code == ShuttingDown.code
    cause = error.__cause__
    cut_off = isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.UNAVAILABLE
    return cut_off and error.code == "unavailable" and method.rpartition("/")[2] in READS


async def repeated(
    method: str, call: Callable[[], Awaitable[T]], seconds: float, until: Callable[[], bool] = lambda: False
) -> T:
    """What a call answers, made again for up to `seconds` for as long as it may be, and not once `until` is so. Raise
    its last SojournError.
    """
    clock = asyncio.get_running_loop().time
    last = clock() + seconds
    while True:
        try:
            return await call()
        except SojournError as error:
            if clock() >= last or until() or not may_repeat(method, error):
                raise
        await asyncio.sleep(_PAUSE_SECONDS)
