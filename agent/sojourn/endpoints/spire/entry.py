"""SPIRE's registration API on the admin socket: spire.api.server.entry.v1.Entry."""

from collections.abc import Callable, Sequence
from typing import Any

from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.audit.journal import Audit, Event
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import (
    Bug,
    FailedPrecondition,
    InvalidEntry,
    InvalidInput,
    NotFound,
    SojournError,
    quoted,
    told_as,
)
from sojourn.identity import adoption
from sojourn.identity.entries import Registration, check_for_nodes
from sojourn.identity.entry_changes import ChangeOutcome, Recorder, named_in_records
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.program_files import Cautions
from sojourn.identity.registry import Registry
from sojourn.spireapi import messages as convert

SERVICE = "spire.api.server.entry.v1.Entry"
_SECONDS_MAX_DIGITS = 16


class EntryApi:
    """Batch calls succeed as calls: each item has its own status."""

    def __init__(self, registry: Registry, foreign: ForeignBundles, cautions: Cautions, audit: Audit) -> None:
        self._registry = registry
        self._cautions = cautions
        self._foreign = foreign
        self._audit = audit

    def methods(self) -> dict[str, Method]:
        return {
            "CountEntries": Method("unary", pb.CountEntriesRequest, self.count),
            "ListEntries": Method("unary", pb.ListEntriesRequest, self.list),
            "GetEntry": Method("unary", pb.GetEntryRequest, self.get),
            "BatchCreateEntry": Method("unary", pb.BatchCreateEntryRequest, self.create),
            "BatchUpdateEntry": Method("unary", pb.BatchUpdateEntryRequest, self.update),
            "BatchDeleteEntry": Method("unary", pb.BatchDeleteEntryRequest, self.delete),
        }

    def admin_methods(self) -> dict[str, Method]:
        """What sojourn.v1.Admin has for entries beside SPIRE's API."""
        return {
            "ApplyEntries": Method("unary", admin_pb2.ApplyEntriesRequest, self.apply),
            "AdoptEntries": Method("unary", admin_pb2.AdoptEntriesRequest, self.adopt),
        }

    async def count(self, _call: Call, request: pb.CountEntriesRequest) -> pb.CountEntriesResponse:
        return pb.CountEntriesResponse(count=sum(map(_filter(request.filter), self._registry)))

    async def list(self, _call: Call, request: pb.ListEntriesRequest) -> pb.ListEntriesResponse:
        wanted = _filter(request.filter)
        after = _page_token(request.page_token)
        found = sorted((entry for entry in self._registry if wanted(entry)), key=lambda e: (e.created_at, e.id))
        if after is not None:
            found = [entry for entry in found if (entry.created_at, entry.id) > after]
        page, last = convert.page_of(found, request.page_size)
        token = f"{last.created_at}:{last.id}" if last else ""
        mask = convert.output_mask(request)
        return pb.ListEntriesResponse(
            entries=[convert.entry_message(entry, mask) for entry in page], next_page_token=token
        )

    async def get(self, _call: Call, request: pb.GetEntryRequest) -> types.Entry:
        if not request.id:
            raise InvalidInput("missing ID")
        entry = self._registry.get(request.id)
        if entry is None:
            raise NotFound("entry not found")
        return convert.entry_message(entry, convert.output_mask(request))

    async def create(self, call: Call, request: pb.BatchCreateEntryRequest) -> pb.BatchCreateEntryResponse:
        wanted, failed = _each(request.entries, self._new)
        outcomes = _merge(await self._registry.create(wanted, self._recorder(call)), failed, len(request.entries))
        answer = pb.BatchCreateEntryResponse()
        await self._answer(answer.results, outcomes, convert.output_mask(request))
        return answer

    async def update(self, call: Call, request: pb.BatchUpdateEntryRequest) -> pb.BatchUpdateEntryResponse:
        mask = request.input_mask if request.HasField("input_mask") else None
        parent = self._registry.default_parent
        changes = [(item.id, convert.entry_change(item, mask, parent)) for item in request.entries]
        wanted = [(entry_id, lambda old, change=change: self._known(change(old))) for entry_id, change in changes]
        outcomes = await self._registry.update(wanted, self._recorder(call))
        answer = pb.BatchUpdateEntryResponse()
        await self._answer(answer.results, outcomes, convert.output_mask(request))
        return answer

    async def delete(self, call: Call, request: pb.BatchDeleteEntryRequest) -> pb.BatchDeleteEntryResponse:
        outcomes = await self._registry.delete(list(request.ids), self._recorder(call))
        answer = pb.BatchDeleteEntryResponse()
        for entry_id, outcome in zip(request.ids, outcomes, strict=True):
            answer.results.add(status=convert.status(outcome.error), id=entry_id)
        return answer

    async def apply(self, call: Call, request: admin_pb2.ApplyEntriesRequest) -> admin_pb2.ApplyEntriesResponse:
        """sojourn.v1.Admin/ApplyEntries."""
        wanted, failed = _each(request.entries, self._new)
        if failed:
            raise InvalidEntry("; ".join(f"entry {place + 1}: {error.public}" for place, error in failed.items()))
        plan = await self._registry.apply(
            wanted, prune=request.prune, dry_run=request.dry_run, record=self._recorder(call)
        )
        answer = admin_pb2.ApplyEntriesResponse(unchanged=plan.unchanged)
        for step in plan.steps:
            entry = step.new or step.old
            assert entry is not None
            answer.steps.add(action=step.action, entry=convert.entry_message(entry), changed=step.changed)
        kept = [(message, step.new) for message, step in zip(answer.steps, plan.steps, strict=True) if step.new]
        warnings = await self._cautions.of([entry for _, entry in kept])
        for (message, _), said in zip(kept, warnings, strict=True):
            message.warnings.extend(said)
        return answer

    async def adopt(self, call: Call, request: admin_pb2.AdoptEntriesRequest) -> admin_pb2.AdoptEntriesResponse:
        """sojourn.v1.Admin/AdoptEntries."""
        record = self._recorder(call)
        done = await adoption.adopt(self._registry, request.node, dry_run=request.dry_run, record=record)
        if not request.dry_run:
            said = {"from": str(done.node), "entries": len(done.entries), **call.by}
            await self._audit.commit("entries_adopted", **said)
        answer = admin_pb2.AdoptEntriesResponse(from_id=str(done.node), node_id=str(self._registry.node_id))
        for found, messages in ((done.entries, answer.adopted), (done.left, answer.left)):
            for entry in found:
                messages.add(id=entry.id, spiffe_id=str(entry.spiffe_id))
        return answer

    def _new(self, message: types.Entry) -> Registration:
        return self._known(convert.new_entry(message, self._registry.default_parent))

    def _known(self, entry: Registration) -> Registration:
        """The entry, if we have the bundle of every trust domain that it federates with. Raise FailedPrecondition; of a
        server InvalidEntry for what its nodes cannot be given.
        """
        if self._registry.of_all_nodes:
            check_for_nodes(entry)
        for domain in entry.federates_with:
            if self._foreign.get(domain) is None:
                name = quoted(str(domain.id))
                raise FailedPrecondition(f"failed to create entry: unable to find federated bundle {name}")
        return entry

    async def _answer(self, results: Any, outcomes: Sequence[ChangeOutcome], mask: types.EntryMask | None) -> None:
        """Add each outcome, and what is to be said of an entry that was registered."""
        made = [outcome.entry for outcome in outcomes if outcome.error is None and outcome.entry is not None]
        warnings = iter(await self._cautions.of(made))
        for outcome in outcomes:
            status = convert.status(outcome.error)
            if isinstance(outcome.error, InvalidEntry) and not status.message.startswith("failed to "):
                status.message = "failed to convert entry: " + status.message
            result = results.add(status=status)
            if outcome.entry is not None:
                result.entry.CopyFrom(convert.entry_message(outcome.entry, mask))
                if outcome.error is None:
                    result.warnings.extend(next(warnings))

    def _recorder(self, call: Call) -> Recorder:
        return recorder(self._audit, call)


def recorder(audit: Audit, call: Call) -> Recorder:
    """Makes the audit records of what a call does to entries."""

    def record(event: str, entry: Registration) -> Event:
        fields = named_in_records(entry)
        return audit.event(event, {**fields, **call.by})

    return record


def _each(
    items: Sequence[types.Entry], make: Callable[[types.Entry], Registration]
) -> tuple[list[Registration], dict[int, SojournError]]:
    """Convert each item; those that cannot be are kept apart with their place."""
    made: list[Registration] = []
    failed: dict[int, SojournError] = {}
    for place, item in enumerate(items):
        try:
            made.append(make(item))
        except SojournError as error:
            failed[place] = error
    return made, failed


def _merge(outcomes: Sequence[ChangeOutcome], failed: dict[int, SojournError], count: int) -> list[ChangeOutcome]:
    rest = iter(outcomes)
    return [ChangeOutcome(None, failed[place]) if place in failed else next(rest) for place in range(count)]


def _page_token(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    created, colon, entry_id = text.partition(":")
    if not colon or not (created.isascii() and created.isdecimal()) or len(created) > _SECONDS_MAX_DIGITS:
        raise Bug(f"failed to list entries: could not parse token {text[:64]!r}")
    return int(created), entry_id


def _filter(message: Any) -> Callable[[Registration], bool]:
    """What a list or count filter lets through. Raise InvalidInput if it is malformed."""
    tests: list[Callable[[Registration], bool]] = []
    for name, field, what in (
        ("by_parent_id", "parent_id", "parent ID"),
        ("by_spiffe_id", "spiffe_id", "SPIFFE ID"),
    ):
        if message.HasField(name):
            tests.append(_by_id(getattr(message, name), field, what))
    if message.HasField("by_selectors"):
        tests.append(_by_selectors(message.by_selectors))
    if message.HasField("by_federates_with"):
        tests.append(_by_federates_with(message.by_federates_with))
    if message.HasField("by_hint"):
        hint = message.by_hint.value
        tests.append(lambda entry: entry.hint == hint)
    if message.by_downstream.value:  # SPIRE's command always says false, and means all
        tests.append(lambda entry: entry.downstream)
    return lambda entry: all(test(entry) for test in tests)


def _by_id(message: types.SPIFFEID, field: str, what: str) -> Callable[[Registration], bool]:
    with told_as(InvalidInput, f"malformed {what} filter"):
        wanted = convert.id_or_template(message) if field == "spiffe_id" else convert.spiffe_id(message)
    return lambda entry: bool(getattr(entry, field) == wanted)


def _by_selectors(message: types.SelectorMatch) -> Callable[[Registration], bool]:
    with told_as(InvalidInput, "malformed selectors filter"):
        wanted = convert.selectors(message.selectors)
    if message.match not in types.SelectorMatch.MatchBehavior.values():
        raise InvalidInput("malformed selectors filter: unhandled match behavior")
    if not wanted:
        raise InvalidInput("malformed selectors filter: empty selector set")
    return lambda entry: matches(entry.selectors, wanted, message.match)


def _by_federates_with(message: types.FederatesWithMatch) -> Callable[[Registration], bool]:
    if not message.trust_domains:
        raise InvalidInput("malformed federates with filter: empty trust domain set")
    if message.match not in types.FederatesWithMatch.MatchBehavior.values():
        raise InvalidInput("malformed federates with filter: unhandled match behavior")
    wanted = frozenset(name.removeprefix("spiffe://") for name in message.trust_domains)
    return lambda entry: matches(frozenset(each.name for each in entry.federates_with), wanted, message.match)


def matches(held: frozenset[Any], wanted: frozenset[Any], behavior: int) -> bool:
    match behavior:
        case types.SelectorMatch.MATCH_EXACT:
            return held == wanted
        case types.SelectorMatch.MATCH_SUBSET:
            return held <= wanted
        case types.SelectorMatch.MATCH_SUPERSET:
            return held >= wanted
        case _:
            return not held.isdisjoint(wanted)
