"""Of sojourn.v1.Admin: reviews for assurance. What there is to review, the evidence, and decisions."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.attestation.peer import Peer
from sojourn.credentials.index import Index
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.endpoints.admin.usage import UsageApi
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import Pages
from sojourn.errors import InvalidInput, NotFound, quoted
from sojourn.identity.identities import Identities
from sojourn.identity.registry import Registry
from sojourn.jose.canonical_json import canonical
from sojourn.limits import PAGE_BYTES
from sojourn.operating_limits import REVIEW_DECISIONS, REVIEW_READ
from sojourn.oversight.review_evidence import Evidence
from sojourn.oversight.review_items import CredentialLife, Inventory, Item
from sojourn.oversight.review_names import TYPE, split
from sojourn.oversight.review_next import next_step
from sojourn.oversight.review_rules import Shown, Wanted
from sojourn.policy.approval_request import Person
from sojourn.runtime.clock import milliseconds
from sojourn.tasks.recertification import Recertification, overdue_named
from sojourn.tasks.requester import person_at
from sojourn.tasks.type_sets import Policies

_UNDATED: Final = 2**62  # behind all that have a date


class ReviewsApi:
    """For operators. What was shown is kept; nothing that anybody has is changed."""

    def __init__(
        self,
        recertifying: Recertification,
        policies: Policies,
        registry: Registry,
        credentials: Index,
        outlets: ProviderRoutes,
        usage: UsageApi,
        identities: Identities,
    ) -> None:
        self._recertifying = recertifying
        self._policies = policies
        self._registry = registry
        self._credentials = credentials
        self._outlets = outlets
        self._usage = usage
        self._identities = identities
        self._pages: Pages[Item, pb.ReviewItem] = Pages(
            (int, str), lambda item: (self._due_ms(item), item.id), self._message
        )

    def admin_methods(self) -> dict[str, Method]:
        return {
            "ListReviewItems": Method("unary", pb.ListReviewItemsRequest, self.list_items),
            "ShowReviewItems": Method("stream", pb.ShowReviewItemsRequest, self.show),
            "DecideReviews": Method("unary", pb.DecideReviewsRequest, self.decide),
        }

    async def list_items(self, _call: Call, request: pb.ListReviewItemsRequest) -> pb.ListReviewItemsResponse:
        found = await self._fitting(await self._inventory(), owner=request.owner, overdue=request.overdue)
        page, token = await self._pages.page_of_many(found, request)
        return pb.ListReviewItemsResponse(items=page, next_page_token=token, total=len(found))

    async def show(self, call: Call, request: pb.ShowReviewItemsRequest) -> AsyncIterator[pb.ShowReviewItemsResponse]:
        if request.digest:
            yield await self._shown_once(request)
            return
        inventory = await self._inventory()
        found = await self._fitting(inventory, owner=request.owner, overdue=request.overdue)
        if request.items:
            by_id = {item.id: item for item in found}
            found = [_known(by_id.get(name), name) for name in request.items]
        evidence = Evidence(inventory, *await self._usage.whole(call.peer.who, [*inventory.types.values()]))
        for at in range(0, len(found), REVIEW_READ):
            some = found[at : at + REVIEW_READ]
            made = await asyncio.to_thread(lambda some=some: [(each.id, canonical(evidence.of(each))) for each in some])  # type: ignore[misc]
            kept = await self._recertifying.show(made)
            for part in _parts([self._shown(item, shown) for item, shown in zip(some, kept, strict=True)]):
                yield part

    async def _shown_once(self, request: pb.ShowReviewItemsRequest) -> pb.ShowReviewItemsResponse:
        """Evidence by its digest, of an item that may be gone: it has its owners of then."""
        if len(request.items) != 1:
            raise InvalidInput("a digest is of the evidence of one item")
        shown = await self._recertifying.was_shown(request.items[0], request.digest)
        evidence = json.loads(shown.evidence)
        item = Item(*split(shown.item), (*evidence["owners"],), (*evidence["sponsors"],), None)
        return pb.ShowReviewItemsResponse(shown=[self._shown(item, shown)])

    async def decide(self, call: Call, request: pb.DecideReviewsRequest) -> pb.DecideReviewsResponse:
        if not request.decisions:
            raise InvalidInput("there is nothing to decide")
        if len(request.decisions) > REVIEW_DECISIONS:
            raise InvalidInput(f"more than {REVIEW_DECISIONS} decisions at once")
        person = await self._person(call.peer)
        inventory = await self._inventory()
        items = {item.id: item for item in await asyncio.to_thread(lambda: list(inventory.items()))}
        wanted = [Wanted(each.item, each.decision, each.digest, each.reason) for each in request.decisions]
        faults = await self._recertifying.decide(wanted, person, items, dry_run=request.dry_run)
        found = [(place, fault) for place, fault in enumerate(faults) if fault is not None]
        if found and len(wanted) == 1 and not request.as_faults:
            raise found[0][1]
        answer = pb.DecideReviewsResponse(decided=0 if found or request.dry_run else len(wanted))
        for place, fault in found:
            answer.faults.add(place=place, code=fault.code, reason=fault.public)
        if not found:
            folder = str(self._policies.folder.folder)
            answer.next.extend(next_step(inventory, items[each.item], each.decision, folder) for each in wanted)
        return answer

    async def _person(self, peer: Peer) -> Person:
        """Who decides, with the identities that their process has. Raise AttestationFailed if these cannot be told."""
        entries = await self._identities.any_of(peer)
        identities = frozenset(str(entry.spiffe_id) for entry in entries)
        return person_at(peer, identities)

    async def _inventory(self) -> Inventory:
        """All that there is now."""
        registered = list(self._registry)
        types = dict(self._policies.in_force)
        credentials = self._outliving()
        providers = frozenset(each.name for each in self._outlets.all())

        def make() -> Inventory:
            entries = [each for each in registered if self._registry.serves(each)]
            return Inventory(types, entries, credentials, providers)

        return await asyncio.to_thread(make)

    def _outliving(self) -> Sequence[CredentialLife]:
        return [
            CredentialLife(
                each.id,
                each.provider,
                str(each.spiffe_id),
                each.grant.resource,
                milliseconds(each.over_at),
                milliseconds(each.expires_at),
            )
            for each in self._credentials.residual()
            if each.over_at is not None
        ]

    async def _fitting(self, inventory: Inventory, *, owner: str, overdue: bool) -> list[Item]:
        late = {f"{TYPE}:{kind.name}" for _, kind in self._recertifying.overdue()} if overdue else None

        def fits(item: Item) -> bool:
            return (not owner or owner in item.owners) and (late is None or item.id in late)

        return await asyncio.to_thread(lambda: list(filter(fits, inventory.items())))

    def _due_ms(self, item: Item) -> int:
        kind = self._policies.in_force.get(item.name) if item.kind == TYPE else None
        due_ms = self._recertifying.due_ms(kind) if kind is not None else None
        return _UNDATED if due_ms is None else due_ms

    def _message(self, item: Item) -> pb.ReviewItem:
        made = pb.ReviewItem(item=item.id, owners=item.owners, sponsors=item.sponsors)
        kind = self._policies.in_force.get(item.name) if item.kind == TYPE else None
        if kind is not None and kind.review is not None:
            due_ms = self._due_ms(item)
            made.due_at, made.overdue = due_ms // 1_000, self._recertifying.is_overdue(kind)
            made.block_new, made.every_seconds = kind.review.block, int(kind.review.every.total_seconds())
        state = self._recertifying.state(item.id)
        if state is None:
            return made
        made.known_at, made.changed_at = state.known_ms // 1_000, state.changed_ms // 1_000
        if state.changed_uid is not None:
            made.changed_by_uid = state.changed_uid
        if state.changed_login_uid is not None:
            made.changed_by_login_uid = state.changed_login_uid
        if state.last is not None:
            last = state.last
            made.last.CopyFrom(
                pb.ReviewDecision(
                    decision=last.decision,
                    decided_at=last.at_ms // 1_000,
                    shown_at=last.shown_ms // 1_000,
                    digest=last.digest,
                    reason=last.reason,
                    by_uid=last.uid,
                    by_login_uid=last.login_uid,
                )
            )
        return made

    def _shown(self, item: Item, shown: Shown) -> pb.ShownReviewItem:
        return pb.ShownReviewItem(
            item=self._message(item), digest=shown.digest, shown_at=shown.at_ms // 1_000, evidence=shown.evidence
        )


def dates_message(recertifying: Recertification) -> pb.ReviewDates:
    """How many are due and overdue, for the agent's status."""
    overdue = recertifying.overdue()
    return pb.ReviewDates(due=recertifying.due(), overdue=len(overdue), items=overdue_named(overdue))


def _known(item: Item | None, name: str) -> Item:
    if item is None:
        raise NotFound(f"there is nothing to review under {quoted(name)}: `sojourn review list` has all")
    return item


def _parts(shown: Sequence[pb.ShownReviewItem]) -> Iterator[pb.ShowReviewItemsResponse]:
    """As many in one message as it has room for."""
    part, room = pb.ShowReviewItemsResponse(), PAGE_BYTES
    for each in shown:
        room -= each.ByteSize()
        if part.shown and room < 0:
            yield part
            part, room = pb.ShowReviewItemsResponse(), PAGE_BYTES - each.ByteSize()
        part.shown.append(each)
    if part.shown:
        yield part
