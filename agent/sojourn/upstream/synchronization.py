"""What a SPIRE server has given this node: entries, and bundles, as of the last sync, and what is news of them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import structlog

from sojourn.errors import NodeRefused, SojournError, Unavailable
from sojourn.identity.entries import Entry
from sojourn.limits import FOREIGN_DOMAINS, UPSTREAM_FEDERATED_AT_ONCE, UPSTREAM_LEFT_OUT_TOLD
from sojourn.runtime.hooks import Hooks
from sojourn.runtime.single_flight import SingleFlight
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.upstream import authorized_entries
from sojourn.upstream.authorized_entries import Authorized
from sojourn.upstream.membership import Link
from sojourn.upstream.vouching import Vouching

log = structlog.get_logger()


class Synchronization:
    """The entries and bundles of now. Each piece of news is in force before the hooks are told of it."""

    def __init__(self, bundle: Bundle) -> None:
        """`bundle`: the one that the server is verified by until it has given another."""
        self.bundle = bundle
        self.vouching = Vouching(bundle)
        self.authorized = Authorized()
        self.federated: Mapping[TrustDomain, Bundle] = {}
        self.on_entries: Hooks[[Mapping[str, Entry], Collection[str]]] = Hooks()
        self.on_bundle: Hooks[[Bundle, frozenset[str]]] = Hooks()
        self.on_own: Hooks[[]] = Hooks()  # the trust domain's bundle has come, changed or not
        self.on_federated: Hooks[[Mapping[TrustDomain, Bundle], Collection[TrustDomain]]] = Hooks()
        self._flights = SingleFlight[str, None]()
        self._withheld = False
        self._not_had: Mapping[TrustDomain, str] = {}
        self._domains_left_out: Sequence[TrustDomain] = ()

    def take(self, bundle: Bundle, authorized: Authorized, federated: Mapping[TrustDomain, Bundle]) -> None:
        """Have what was kept of an earlier run."""
        self._set_bundle(bundle)
        self.authorized, self.federated = authorized, dict(federated)

    async def refresh(self, link: Link, node_id: SpiffeId) -> None:
        """Have all of it as the server has it now: what cannot be had keeps nothing else away, unless the server does
        not answer, or refuses this node. Raise what a call raises; what has come is in force.
        """
        fault: SojournError | None = None
        parts: list[Callable[[], Awaitable[None]]] = [
            lambda: self.refresh_bundle(link),
            lambda: self._refresh_entries(link, node_id),
            lambda: self._refresh_federated(link),  # of the entries that have come
        ]
        for refresh in parts:
            try:
                await refresh()
            except (NodeRefused, Unavailable):
                raise
            except SojournError as error:
                fault = fault or error
        if fault is not None:
            raise fault

    async def refresh_bundle(self, link: Link) -> None:
        """Have the trust domain's own bundle as it is now: by one call at a time, so that no older one comes later."""
        await self._flights.run("bundle", lambda: self._refresh_bundle(link))

    async def close(self) -> None:
        await self._flights.close()

    async def _refresh_bundle(self, link: Link) -> None:
        domain = self.bundle.trust_domain
        self._set_bundle(await link.call(lambda server: authorized_entries.own_bundle(server, domain)))
        self.on_own.tell()

    async def _refresh_entries(self, link: Link, node_id: SpiffeId) -> None:
        known = self.authorized
        self._set_entries(await link.call(lambda server: authorized_entries.sync(server, known, node_id)))

    def withhold(self) -> None:
        """Give out no entry, and no bundle of others, until `give` was called: this node is banned."""
        self._set_entries(Authorized())
        self._set_federated({})
        self._withheld = True  # also what a sync brings that had begun before

    def give(self) -> None:
        """Give out again what the next sync brings."""
        self._withheld = False

    # --- bundles ----------------------------------------------------------------------------------------------------

    def _set_bundle(self, bundle: Bundle) -> None:
        before = self.bundle
        if _same(before, bundle):
            return
        vouched, self.vouching = self.vouching, Vouching(bundle)
        self.bundle = bundle
        lost = vouched.ids - self.vouching.ids
        if lost:
            log.warning("node_authorities_lost", ids=sorted(lost)[:UPSTREAM_LEFT_OUT_TOLD])
        self.on_bundle.tell(bundle, lost)

    async def _refresh_federated(self, link: Link) -> None:
        wanted = self._federated_domains()
        places = asyncio.Semaphore(UPSTREAM_FEDERATED_AT_ONCE)
        found, not_had = dict(self.federated), dict(self._not_had)

        async def have(domain: TrustDomain) -> None:
            """One that cannot be read is as it was: it is no reason to have none of the others."""
            try:
                async with places:
                    bundle = await link.call(lambda server: authorized_entries.federated_bundle(server, domain))
            except (NodeRefused, Unavailable):
                raise
            except SojournError as error:
                not_had[domain] = error.public
                return
            if bundle is not None:
                found[domain] = bundle
                not_had.pop(domain, None)
                return
            not_had[domain] = "the SPIRE server has none"
            found.pop(domain, None)

        calls = [asyncio.ensure_future(have(each)) for each in wanted]
        try:
            await asyncio.gather(*calls)
        finally:
            await _ended(calls)
            self._tell_not_had({each: not_had[each] for each in wanted if each in not_had})
            self._set_federated({each: found[each] for each in wanted if each in found})

    def _federated_domains(self) -> Sequence[TrustDomain]:
        """Those that entries name; of more than FOREIGN_DOMAINS the first ones by their names."""
        named = sorted(self.authorized.federates_with - {self.bundle.trust_domain})
        wanted, left_out = named[:FOREIGN_DOMAINS], named[FOREIGN_DOMAINS:]
        if left_out and left_out != self._domains_left_out:
            shown = [each.name for each in left_out[:UPSTREAM_LEFT_OUT_TOLD]]
            log.warning("node_trust_domains_left_out", count=len(left_out), trust_domains=shown)
        self._domains_left_out = left_out
        return wanted

    def _tell_not_had(self, not_had: Mapping[TrustDomain, str]) -> None:
        for domain, why in not_had.items():
            if self._not_had.get(domain) != why:
                log.warning("node_bundle_not_had", trust_domain=domain.name, reason=why)
        self._not_had = not_had

    def _set_federated(self, found: Mapping[TrustDomain, Bundle]) -> None:
        if self._withheld:
            return
        before = self.federated
        kept = {name: before[name] for name, each in found.items() if name in before and _same(before[name], each)}
        changed = {name: each for name, each in found.items() if name not in kept}
        gone = before.keys() - found.keys()
        if changed or gone:
            self.federated = {**kept, **changed}
            self.on_federated.tell(changed, gone)

    # --- entries ----------------------------------------------------------------------------------------------------

    def _set_entries(self, authorized: Authorized) -> None:
        if self._withheld:
            return
        before, self.authorized = self.authorized, authorized
        if authorized.unread and authorized.unread != before.unread:
            shown = dict(sorted(authorized.unread.items())[:UPSTREAM_LEFT_OUT_TOLD])
            log.error("node_entries_left_out", count=len(authorized.unread), entries=shown)
        old, new = before.entries, authorized.entries
        changed = {
            name: each for name, each in new.items() if (was := old.get(name)) is not each and was != each
        }  # the same object is the same entry, as most are
        gone = old.keys() - new.keys()
        if changed or gone:
            self.on_entries.tell(changed, gone)


async def _ended(calls: Sequence["asyncio.Future[None]"]) -> None:
    """Give up what is under way of them, and return when it has ended."""
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


def _same(one: Bundle, other: Bundle) -> bool:
    if one is other:
        return True
    numbers = one.sequence == other.sequence and one.refresh_hint_seconds == other.refresh_hint_seconds
    return numbers and one.tainted == other.tainted and one.same_keys(other)
