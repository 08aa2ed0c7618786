"""What the doors for other machines are made from, where whatever signs opens them itself."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.identity.revocations import Revocations
from sojourn.runtime.readiness import Readiness
from sojourn.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class DoorParts:
    """What a door needs of a run. `recordable` raises if no further issue may be recorded of a SPIFFE
    ID; `descriptors`: how many files this process may have open.
    """

    own: AgentSvid
    readiness: Readiness
    revocations: Revocations
    recordable: Callable[[SpiffeId], None]
    descriptors: int
    stack: AsyncExitStack
