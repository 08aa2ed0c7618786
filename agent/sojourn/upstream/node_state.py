"""How this agent fares as a node of a SPIRE server: for `sojourn status`, metrics and readiness."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sojourn.limits import UPSTREAM_BEHIND_POLLS, UPSTREAM_BEHIND_SECONDS
from sojourn.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class NodeState:
    """One moment. Times are aware UTC; None: it has never been so.

    `server`: HOST:PORT of the one that answers, empty while there is none. `synced_at`, `synced_seconds`: when the last
    sync succeeded, by the wall clock, and how long ago, by the boot clock. `behind_seconds`: for how long none has
    succeeded, if that is longer than it should be. `fault`: why the last one failed, or why it does not join or renew,
    for people; empty: all is well; `away_seconds`: for how long no server has answered, None if one does. `refused`:
    why the server takes this agent for no node of its own (`NodeRefused.reason_code`), empty if it does; `remedy`: what
    an operator does about it. `left_out`: entries that the server gives and that are not served. `svids_near_end`:
    X.509-SVIDs of workloads that should have been renewed by now. `clock_behind_seconds`: by which this machine's clock
    is behind the server's at the least.
    """

    server: str
    spiffe_id: SpiffeId | None
    svid_ends: datetime | None
    reattestable: bool
    synced_at: datetime | None
    synced_seconds: float | None
    behind_seconds: float | None
    away_seconds: float | None
    fault: str
    refused: str
    remedy: str
    entries: int
    left_out: int
    federated: int
    svids: int
    svids_near_end: int
    clock_behind_seconds: float = 0.0

    @property
    def banned(self) -> bool:
        return self.refused == "banned"


def behind(seconds: float, poll: timedelta) -> float | None:
    """The same if it is longer than syncs every `poll` have to take until one succeeds."""
    return seconds if seconds > max(UPSTREAM_BEHIND_SECONDS, UPSTREAM_BEHIND_POLLS * poll.total_seconds()) else None


def near_end(begins: datetime, ends: datetime, now: datetime, renew_at: float) -> bool:
    """Whether an SVID has used up half of what it has after it should have been renewed."""
    return now >= ends - (ends - begins) * ((1 - renew_at) / 2)
