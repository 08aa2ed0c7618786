"""Where a task comes from: who began it, and how it is held. Tasks of one caller have this alike, and share it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sojourn.attestation.selectors import Selector
from sojourn.limits import ORIGINS_KEPT
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.kept_fields import ONE_SHOT

NO_UID: Final = -1  # of a task whose client is on another machine


@dataclass(frozen=True, slots=True)
class Origin:
    """Who began a task, and how it is held. `binding`: STREAM, PROCESS or ONE_SHOT. `session`: whether others than the
    holder may use it. `selectors`: those that the caller was attested with when the task began.
    """

    spiffe_id: SpiffeId
    entry_id: str
    uid: int
    binding: str
    session: bool = False
    selectors: frozenset[Selector] = frozenset()

    @property
    def owner(self) -> int | str:
        """Whose share of what there is the task takes: that of a uid, or of a SPIFFE ID on another machine."""
        return self.uid if self.uid != NO_UID else str(self.spiffe_id)

    @property
    def held_as(self) -> str:
        """The binding as task types name it: with `session` others than the holder may use the task."""
        return "session" if self.session and self.binding != ONE_SHOT else self.binding


shared_origin = lru_cache(ORIGINS_KEPT)(Origin)  # one for all tasks that say the same


class Originated:
    """What has an origin, and says as its own what that says."""

    __slots__ = ()

    origin: Origin

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.origin.spiffe_id

    @property
    def entry_id(self) -> str:
        return self.origin.entry_id

    @property
    def uid(self) -> int:
        return self.origin.uid

    @property
    def binding(self) -> str:
        return self.origin.binding

    @property
    def session(self) -> bool:
        return self.origin.session

    @property
    def selectors(self) -> frozenset[Selector]:
        return self.origin.selectors

    @property
    def owner(self) -> int | str:
        return self.origin.owner

    @property
    def held_as(self) -> str:
        return self.origin.held_as
