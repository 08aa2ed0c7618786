"""Logouts and events whose key is not known yet, each tried again when its issuer's keys may be there.

Their senders are told to come again, and many never do. Anybody can make up a key ID. So a delivery that is pending
says nothing before its signature is verified, has the issuer's keys fetched no more often than whoever asks for them,
and takes its room from its own sender first.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from sojourn.limits import (
    PENDING_DELIVERIES,
    PENDING_DELIVERIES_OF_ISSUER,
    PENDING_DELIVERY_MAX_BYTES,
    PENDING_DELIVERY_PAUSE_SECONDS,
    PENDING_DELIVERY_SECONDS,
)
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.runtime.single_flight import SingleFlight

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """A signed token as it came: `who` has sent it, by whom it is for the audit is `by`, and `since` when on the boot
    clock.
    """

    issuer: str
    who: int | str
    by: Mapping[str, Any]
    unverified_text: str = field(repr=False)
    since: float


class PendingDeliveries:
    """Those of all issuers, in memory alone, the first that came first.

    When an issuer has PENDING_DELIVERIES_OF_ISSUER, or all have PENDING_DELIVERIES, the newest goes of the sender that
    has the most.
    """

    def __init__(self, settle: Callable[[PendingDelivery], Awaitable[bool]], clock: Clock, alarms: Alarms) -> None:
        """`settle` tries one, and returns whether that is done with; False: its keys are not to be had yet, and so no
        others' of its issuer. It never raises.
        """
        self._settle = settle
        self._clock = clock
        self._alarms = alarms
        self._kept: dict[tuple[str, str], PendingDelivery] = {}
        self._tries: SingleFlight[str, None] = SingleFlight()
        self._next: Alarm | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, delivery: PendingDelivery) -> bool:
        """Keep one that is good but for its key, which is not known. Return whether there is room for it."""
        if len(delivery.unverified_text) > PENDING_DELIVERY_MAX_BYTES:
            return False
        key = (delivery.issuer, delivery.unverified_text)
        self._kept.setdefault(key, delivery)
        of_issuer = [each for each in self._kept if each[0] == delivery.issuer]
        if len(of_issuer) > PENDING_DELIVERIES_OF_ISSUER:
            self._drop_one_of(of_issuer)
        elif len(self._kept) > PENDING_DELIVERIES:
            self._drop_one_of(self._kept)
        self._come_back()
        return key in self._kept

    def forget(self, issuer: str, unverified_text: str) -> None:
        """It has come again, and was taken."""
        self._kept.pop((issuer, unverified_text), None)

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        await self._tries.close()

    def _drop_one_of(self, keys: Collection[tuple[str, str]]) -> None:
        """Forget the newest of whoever has the most of these."""
        held = Counter(self._kept[each].who for each in keys)
        most = max(held.values())
        del self._kept[[each for each in keys if held[self._kept[each].who] == most][-1]]

    def _come_back(self) -> None:
        """Look again in a while, if there is anything to look for."""
        if self._kept and (self._next is None or self._next.cancelled):
            self._next = self._alarms.after(PENDING_DELIVERY_PAUSE_SECONDS, self._look)

    def _look(self) -> None:
        for issuer in {each.issuer for each in self._kept.values()}:
            self._tries.begin(issuer, partial(self._try, issuer))
        self._come_back()

    async def _try(self, issuer: str) -> None:
        """Try those of an issuer, up to the first whose key is still not to be had: those that came later have none
        that is known either.
        """
        for key, each in [(key, each) for key, each in self._kept.items() if each.issuer == issuer]:
            if self._kept.get(key) is not each:
                continue
            late = self._clock.boot() - each.since
            if late > PENDING_DELIVERY_SECONDS:
                log.warning("pending_delivery_given_up", issuer=issuer, seconds=round(late), **each.by)
            elif not await self._settle(each):
                return
            self._kept.pop(key, None)
