"""The bundles of foreign trust domains: kept apart, never merged, given to those whose entries federate with them."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from sojourn.audit.journal import Event
from sojourn.errors import (
    AlreadyExists,
    BundleNotFetched,
    FailedPrecondition,
    InvalidInput,
    LimitExceeded,
    NotFound,
    quoted,
)
from sojourn.identity.entries import Registration
from sojourn.identity.entry_changes import Recorder
from sojourn.identity.federation_relationship import Relationship
from sojourn.identity.registry import Registry
from sojourn.limits import FOREIGN_DOMAINS
from sojourn.runtime.background import whole
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain


class ForeignStore(Protocol):
    """Where foreign bundles and relationships are kept, each change with its audit records."""

    def load(self) -> tuple[list[Bundle], dict[TrustDomain, dict[str, Any]]]: ...

    async def put_bundle(self, bundle: Bundle, events: Sequence[Event] = ()) -> None: ...

    async def remove_bundle(self, trust_domain: TrustDomain, events: Sequence[Event] = ()) -> None: ...

    async def put_relationship(
        self, trust_domain: TrustDomain, document: Mapping[str, Any], events: Sequence[Event] = ()
    ) -> None: ...

    async def remove_relationship(self, trust_domain: TrustDomain, events: Sequence[Event] = ()) -> None: ...

    async def record(self, events: Sequence[Event]) -> None: ...


class ForeignBundles:
    """What this agent knows of other trust domains."""

    def __init__(self, store: ForeignStore, own: TrustDomain, registry: Registry) -> None:
        self._store = store
        self._own = own
        self._registry = registry
        self._lock = asyncio.Lock()
        self.on_change: Hooks[[TrustDomain]] = Hooks()  # its bundle is another one, or has gone
        self.on_relationship: Hooks[[TrustDomain]] = Hooks()  # it is there, is another one, or has gone
        found, documents = store.load()
        self._bundles = {bundle.trust_domain: bundle for bundle in found}
        self.relationships = {domain: Relationship.of(domain, each) for domain, each in documents.items()}
        # When each was last fetched by the relationship that there is now.
        self.fetched_at = {
            domain: datetime.fromtimestamp(each["fetched_at"], UTC)
            for domain, each in documents.items()
            if "fetched_at" in each
        }

    def __len__(self) -> int:
        return len(self._bundles)

    def all(self) -> list[Bundle]:
        """All foreign bundles, by the name of their trust domain."""
        return [self._bundles[domain] for domain in sorted(self._bundles)]

    def get(self, trust_domain: TrustDomain) -> Bundle | None:
        return self._bundles.get(trust_domain)

    def of(self, entries: Sequence[Registration]) -> dict[TrustDomain, Bundle]:
        """The foreign bundles that callers with these entries may have."""
        wanted = sorted({domain for entry in entries for domain in entry.federates_with})
        return {domain: self._bundles[domain] for domain in wanted if domain in self._bundles}

    def follow_server(self, put: Mapping[TrustDomain, Bundle], gone: Collection[TrustDomain] = ()) -> None:
        """Take what a server above this node says: bundles, and which are gone. They are in memory alone."""
        self._bundles.update(put)
        for domain in gone:
            self._bundles.pop(domain, None)
        for domain in (*put, *gone):
            self.on_change.tell(domain)

    async def put(self, bundle: Bundle, events: Sequence[Event] = (), *, must_exist: bool | None = None) -> Bundle:
        """Keep a bundle. `must_exist` True refuses a new one (NotFound), False refuses to replace (AlreadyExists).

        `events`: the audit records that are written with it, here as below.
        """
        async with self._lock:
            known = bundle.trust_domain in self._bundles
            if must_exist is True and not known:
                raise NotFound("bundle not found")
            if must_exist is False and known:
                raise AlreadyExists("bundle already exists")
            await self._put(bundle, events)
            return bundle

    async def _put(self, bundle: Bundle, events: Sequence[Event] = ()) -> None:
        known = self._bundles.get(bundle.trust_domain)
        if known is None and len(self._bundles) >= FOREIGN_DOMAINS:
            raise LimitExceeded(f"more than {FOREIGN_DOMAINS} foreign trust domains")
        await self._store.put_bundle(bundle, events)
        self._bundles[bundle.trust_domain] = bundle
        if known is None or not known.same_keys(bundle):
            self.on_change.tell(bundle.trust_domain)

    @whole  # who follows it may stop meanwhile; operators' calls are gone through with by the door
    async def take(
        self, relationship: Relationship, bundle: Bundle, at: datetime, still: Callable[[], bool]
    ) -> Literal["changed", "same", "overtaken"]:
        """Keep a bundle that was fetched `at` by a relationship, if it is another one than the one that is there.

        `overtaken`: by now there is another relationship, or `still` says no; nothing was kept. Raise BundleNotFetched
        for a bundle that is older than the one that is there (SPIFFE Federation 4.2). An operator may set any.
        """
        domain = relationship.trust_domain
        async with self._lock:
            if self.relationships.get(domain) != relationship or not still():
                return "overtaken"
            known = self._bundles.get(domain)
            if known is not None and 0 < bundle.sequence < known.sequence:
                raise BundleNotFetched(
                    f"the endpoint has an older bundle, of sequence {bundle.sequence}, than the one that is kept, of"
                    f" {known.sequence}: if {quoted(domain.name)} has begun anew, set its bundle by hand",
                    reason_code="older",
                )
            same = known is not None and known.document() == bundle.document()
            if not same:
                await self._put(bundle)
            await self._store.put_relationship(domain, {**relationship.document(), "fetched_at": at.timestamp()})
            self.fetched_at[domain] = at
            return "same" if same else "changed"

    async def remove(
        self, trust_domain: TrustDomain, mode: str, events: Sequence[Event] = (), record: Recorder | None = None
    ) -> None:
        """Forget a bundle. With entries that federate with it: `restrict` refuses, `delete` deletes them, `dissociate`
        takes the trust domain out of them, which `record` makes the audit records of.
        """
        async with self._lock:
            if trust_domain not in self._bundles:
                raise NotFound("bundle not found")
            federated = [entry for entry in self._registry if trust_domain in entry.federates_with]
            if federated and mode == "restrict":
                raise FailedPrecondition(
                    "failed to delete federated bundle: datastore-sql: cannot delete bundle; federated with"
                    f" {len(federated)} registration entries"
                )
            for entry in federated:
                self._registry.check_by_hand(entry)
            if federated and mode == "delete":
                await self._registry.delete([entry.id for entry in federated], record)
            elif federated:
                await self._registry.update([(entry.id, _without(trust_domain)) for entry in federated], record)
            await self._store.remove_bundle(trust_domain, events)
            del self._bundles[trust_domain]
            self.on_change.tell(trust_domain)

    async def relate(
        self, relationship: Relationship, bundle: Bundle | None = None, events: Sequence[Event] = ()
    ) -> None:
        """Keep how another trust domain's bundle is to be had; `bundle`: the first one, or another in its place."""
        domain = relationship.trust_domain
        if domain == self._own:
            raise InvalidInput("unable to create federation relationship for server trust domain")
        async with self._lock:
            known = self.relationships.get(domain)
            if known is None and len(self.relationships) >= FOREIGN_DOMAINS:
                raise LimitExceeded(f"more than {FOREIGN_DOMAINS} foreign trust domains")
            if bundle is not None:
                await self._put(bundle)
            if known == relationship:
                await self._store.record(events)
                return
            await self._store.put_relationship(domain, relationship.document(), events)
            self.relationships[domain] = relationship
            self.fetched_at.pop(domain, None)
            self.on_relationship.tell(domain)

    async def unrelate(self, trust_domain: TrustDomain, events: Sequence[Event] = ()) -> None:
        """Follow a bundle no more. The bundle stays until it is removed."""
        async with self._lock:
            if trust_domain not in self.relationships:
                raise NotFound("federation relationship not found")
            await self._store.remove_relationship(trust_domain, events)
            del self.relationships[trust_domain]
            self.fetched_at.pop(trust_domain, None)
            self.on_relationship.tell(trust_domain)


def _without(trust_domain: TrustDomain) -> Callable[[Registration], Registration]:
    return lambda entry: replace(
        entry, federates_with=tuple(domain for domain in entry.federates_with if domain != trust_domain)
    )
