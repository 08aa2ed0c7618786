"""Following the bundles of other trust domains (SPIFFE Federation 4): asked for by the hint of each, and kept for ever.

What cannot be had changes nothing: the last good bundle stays, whatever becomes of its partner. Each relationship is on
its own, and those that are dead hold no more than a few places.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from sojourn.audit.journal import Audit
from sojourn.errors import BundleNotFetched, NotFound, SojournError, quoted
from sojourn.identity.federation_relationship import Relationship
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.limits import (
    FEDERATION_ASKED_AT_ONCE,
    FEDERATION_FETCHES_AT_ONCE,
    FEDERATION_JITTER_SHARE,
    FEDERATION_OVERTAKEN_MAX,
    FEDERATION_REFRESH_MAX_SECONDS,
    FEDERATION_REFRESH_MIN_SECONDS,
    FEDERATION_REFRESH_SECONDS,
    FEDERATION_RETRY_SECONDS,
)
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain

log = structlog.get_logger()


class Endpoints(Protocol):
    """Where bundles are fetched."""

    async def fetch(self, relationship: Relationship, vouching: Bundle | None) -> Bundle:
        """The bundle that an endpoint has now. `vouching`: that of the endpoint's trust domain, for `https_spiffe`.

        Raise BundleNotFetched, within FEDERATION_DEADLINE_SECONDS.
        """


class Own(Protocol):
    """What signs here, and its bundle, as it is now."""

    @property
    def bundle(self) -> Bundle: ...


@dataclass(eq=False)
class Followed:
    """One relationship, and how it fares. `fault`: why the last fetch failed; None: it did not, or there was none."""

    relationship: Relationship
    fault: BundleNotFetched | None = None
    failures: int = 0  # in a row
    alarm: Alarm | None = None
    fetching: "asyncio.Future[None] | None" = field(default=None, repr=False)
    placed: bool = False  # whether what is fetching has its place, and does not wait for one


class Federating:
    """Follows all relationships that there are, as soon as there are."""

    def __init__(
        self, foreign: ForeignBundles, own: Own, endpoints: Endpoints, audit: Audit, clock: Clock, alarms: Alarms
    ) -> None:
        self._foreign = foreign
        self._own = own
        self._endpoints = endpoints
        self._audit = audit
        self._clock = clock
        self._alarms = alarms
        self._followed: dict[TrustDomain, Followed] = {}
        self._background = Background("federation_failed")
        self._places = asyncio.Semaphore(FEDERATION_FETCHES_AT_ONCE)
        self._asked = asyncio.Semaphore(FEDERATION_ASKED_AT_ONCE)
        self._began = clock.now()
        self._closed = False

    def start(self) -> None:
        """Fetch each bundle, and follow it from then on."""
        self._foreign.on_relationship(self._related)
        self._foreign.on_change(self._bundle_changed)
        for domain in self._foreign.relationships:
            self._related(domain)

    async def close(self) -> None:
        """Follow nothing more."""
        self._closed = True
        for followed in list(self._followed.values()):
            self._drop(followed)
        with suppress(asyncio.CancelledError):
            await self._background.quiet()

    # --- looking ---

    def of(self, trust_domain: TrustDomain) -> Followed | None:
        return self._followed.get(trust_domain)

    def all(self) -> list[Followed]:
        """All that is followed, by the name of the trust domain."""
        return [self._followed[domain] for domain in sorted(self._followed)]

    def next_at(self, followed: Followed) -> datetime:
        """When its bundle is fetched next; now, if that is under way."""
        left = 0.0 if followed.alarm is None else followed.alarm.due - self._clock.boot()
        return self._clock.now() + timedelta(seconds=max(0.0, left))

    def interval(self, trust_domain: TrustDomain) -> float:
        """Seconds between two fetches that succeed: what the bundle's hint says, within limits."""
        bundle = self._foreign.get(trust_domain)
        hint = (bundle.refresh_hint_seconds if bundle is not None else 0) or FEDERATION_REFRESH_SECONDS
        return float(min(max(hint, FEDERATION_REFRESH_MIN_SECONDS), FEDERATION_REFRESH_MAX_SECONDS))

    @property
    def failing(self) -> int:
        """How many relationships there are whose last fetch failed."""
        return sum(each.fault is not None for each in self._followed.values())

    @property
    def oldest_seconds(self) -> float:
        """How long ago the one that was longest not fetched was; 0: there is none."""
        fetched = self._foreign.fetched_at
        found = [fetched.get(domain, self._began) for domain in self._followed]
        return max(0.0, (self._clock.now() - min(found)).total_seconds()) if found else 0.0

    # --- fetching ---

    async def refresh(self, trust_domain: TrustDomain) -> None:
        """Fetch a bundle now, and return when it is in force. Raise NotFound, or BundleNotFetched with what failed."""
        followed = self._followed.get(trust_domain)
        if followed is None:
            raise NotFound(f"no relationship with trust domain {quoted(trust_domain.name)}")
        if followed.fetching is not None and not followed.placed:  # an operator does not wait behind dead partners
            followed.fetching.cancel()
            followed.fetching = None
        elif followed.fetching is not None:  # it may have been answered before the caller looked at the partner
            await asyncio.wait({followed.fetching})
        while self._followed.get(trust_domain) is followed:
            fetching = followed.fetching or self._begin(followed, self._asked)
            await asyncio.wait({fetching})
            if not fetching.cancelled():  # by another who asked: then it was not fetched
                break
        if self._followed.get(trust_domain) is not followed:
            raise BundleNotFetched("the relationship was changed meanwhile", reason_code="overtaken")
        if followed.fault is not None:
            raise followed.fault

    def _related(self, trust_domain: TrustDomain) -> None:
        known, now = self._followed.get(trust_domain), self._foreign.relationships.get(trust_domain)
        if known is not None:
            self._drop(known)
        if now is not None and not self._closed:
            followed = self._followed[trust_domain] = Followed(now)
            self._begin(followed, self._places)

    def _bundle_changed(self, trust_domain: TrustDomain) -> None:
        """Whoever could not be verified by the bundle that was there may be by the one that is there now."""
        for followed in list(self._followed.values()):
            endpoint = followed.relationship.endpoint_id
            if endpoint is not None and endpoint.trust_domain == trust_domain and followed.fault is not None:
                self._begin(followed, self._places)

    def _drop(self, followed: Followed) -> None:
        del self._followed[followed.relationship.trust_domain]
        if followed.alarm is not None:
            followed.alarm.cancel()
        if followed.fetching is not None:
            followed.fetching.cancel()

    def _begin(self, followed: Followed, places: asyncio.Semaphore) -> "asyncio.Future[None]":
        if followed.fetching is None:
            if followed.alarm is not None:
                followed.alarm.cancel()
                followed.alarm = None
            followed.placed = False
            followed.fetching = self._background.run(self._run(followed, places))
        return followed.fetching

    async def _run(self, followed: Followed, places: asyncio.Semaphore) -> None:
        domain = followed.relationship.trust_domain
        fault: BundleNotFetched | None = None
        changed = False
        try:
            async with places:
                followed.placed = True
                changed = await self._fetch(followed.relationship)
        except BundleNotFetched as error:
            fault = error
        except SojournError as error:
            fault = BundleNotFetched(f"it cannot be kept: {error.public}", reason_code=error.code, detail=error.detail)
        except Exception:
            log.exception("federation_failed", trust_domain=domain.name)
            fault = BundleNotFetched("the agent failed; its log says how", reason_code="internal")
        followed.fetching = None
        if self._followed.get(domain) is not followed:
            return
        before, followed.fault = followed.fault, fault
        followed.failures = 0 if fault is None else followed.failures + 1
        self._tell(domain, before, fault, changed=changed)
        followed.alarm = self._alarms.after(self._pause(followed), self._begin, followed, self._places)

    async def _fetch(self, relationship: Relationship) -> bool:
        """Fetch and keep; whether it is another bundle than before."""
        endpoint = relationship.endpoint_id
        vouching = self._known(endpoint.trust_domain) if endpoint is not None else None

        def still() -> bool:
            return endpoint is None or self._known(endpoint.trust_domain) is vouching

        for _ in range(FEDERATION_OVERTAKEN_MAX):
            fetched = await self._endpoints.fetch(relationship, vouching)
            # Keys that were taken away while they vouched for the endpoint have vouched for nothing.
            taken = await self._foreign.take(relationship, fetched, self._clock.now(), still)
            if taken != "overtaken":
                return taken == "changed"
            vouching = self._known(endpoint.trust_domain) if endpoint is not None else None
        raise BundleNotFetched("what vouches for the endpoint changes all the time", reason_code="overtaken")

    def _known(self, trust_domain: TrustDomain) -> Bundle | None:
        own = self._own.bundle
        return own if own.trust_domain == trust_domain else self._foreign.get(trust_domain)

    def _pause(self, followed: Followed) -> float:
        """Seconds until the next fetch: never more than the interval, so that nothing is seen late."""
        pause = self.interval(followed.relationship.trust_domain)
        if followed.failures:
            doubled = min(followed.failures - 1, 32)
            pause = min(pause, FEDERATION_RETRY_SECONDS * 2**doubled)
        return pause * (1 - FEDERATION_JITTER_SHARE * random.random())  # noqa: S311  # it spreads load, no more

    def _tell(
        self, domain: TrustDomain, before: BundleNotFetched | None, fault: BundleNotFetched | None, *, changed: bool
    ) -> None:
        """Record a change, a recovery, and each failure of another kind than the one before."""
        if fault is not None:
            if before is None or before.reason_code != fault.reason_code:
                said = {"trust_domain": domain.name, "code": fault.reason_code, "reason": fault.public}
                log.warning("federated_bundle_failed", **said, detail=fault.detail)
                self._audit.note("federated_bundle_failed", **said)
            return
        bundle = self._foreign.get(domain)
        if bundle is not None and (changed or before is not None):
            said_of: dict[str, object] = {
                "trust_domain": domain.name,
                "changed": changed,
                "sequence": bundle.sequence,
                "x509_authorities": len(bundle.x509_authorities),
                "jwt_authorities": len(bundle.jwt_authorities),
            }
            log.info("federated_bundle_refreshed", **said_of)
            self._audit.note("federated_bundle_refreshed", **said_of)
