"""The registration entries, in memory and on disk.

A change is on disk before it is answered, and those who hold streams hear of it before the call returns.
"""

import asyncio
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from sojourn.attestation.selectors import Selector
from sojourn.errors import AlreadyExists, FailedPrecondition, InvalidEntry, NotFound, SojournError, quoted
from sojourn.identity.entries import Entry, Registration, check, check_served, check_stored
from sojourn.identity.entry_changes import Change, ChangeOutcome, EntryStore, Recorder, recorded
from sojourn.identity.matcher import EntryIndex, Matches
from sojourn.identity.reconciliation import Plan, ReconciliationStep
from sojourn.identity.reconciliation import make as make_plan
from sojourn.identity.template_index import IdShapes
from sojourn.identity.templates import IdTemplate
from sojourn.limits import ENTRIES_PER_BATCH
from sojourn.runtime.background import whole
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.ids import SpiffeId, TrustDomain


class Registry:
    """All entries of this node's trust domain. Those whose parent is another node are kept and shown, not served."""

    def __init__(
        self,
        store: EntryStore,
        trust_domain: TrustDomain,
        node_ids: Sequence[SpiffeId],
        clock: Clock,
        alarms: Alarms,
        *,
        of_all_nodes: bool = False,
    ) -> None:
        """`node_ids`: this node's own ID first, then its aliases. Loads what is stored. `of_all_nodes`: it is a
        server's, which has the entries of all its nodes.
        """
        self.of_all_nodes = of_all_nodes
        self._store = store
        self._trust_domain = trust_domain
        self._node_ids = tuple(node_ids)
        self._clock = clock
        self._alarms = alarms
        self._lock = asyncio.Lock()
        self.on_change: Hooks[[Sequence[Change]]] = Hooks()  # of what is durable, at once
        self._entries: dict[str, Registration] = {}
        self._by_digest: dict[str, str] = {}
        self._index = EntryIndex()
        self._matches = Matches()  # of callers of whom all is known
        self._of_id: dict[SpiffeId, dict[str, Entry]] = {}  # that have not ended, also another node's
        self._shapes = IdShapes()  # the same, of those with a template
        self._ends: dict[str, tuple[float, Alarm]] = {}  # when at the latest, on the boot clock
        self._following = False
        for entry in store.load():
            check_stored(entry, trust_domain)
            self._hold(entry)

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> SpiffeId:
        return self._node_ids[0]

    @property
    def default_parent(self) -> SpiffeId | None:
        """Whose an entry is that names no parent; None: it has to name one."""
        return None if self.of_all_nodes else self.node_id

    @property
    def node_ids(self) -> tuple[SpiffeId, ...]:
        """The node's own ID and its aliases: the parents whose entries are served here."""
        return self._node_ids

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._entries.values())

    def get(self, entry_id: str) -> Registration | None:
        return self._entries.get(entry_id)

    def serves(self, entry: Registration) -> bool:
        """Whether `entry` is this node's to serve, now."""
        return entry.parent_id in self._node_ids and not self._expired(entry)

    def match(self, selectors: frozenset[Selector], untold: frozenset[str] = frozenset()) -> tuple[Entry, ...]:
        """The entries that a caller with these selectors has here, in the stated order: placeholders are filled.

        A registration whose placeholders cannot be filled, also as there may be more of the kinds `untold`, gives
        nothing. What was found is kept until any entry changes.
        """
        if not untold and (kept := self._matches.get(selectors)) is not None:
            return kept
        filed = self._index.match(selectors)
        made = [each.expand(selectors, untold) for each in filed if not self._expired(each)]
        found = _ordered(entry for entry in made if isinstance(entry, Entry))
        if not untold and not any(each.expires_at for each in filed):  # those are looked at each time
            self._matches.put(selectors, found)
        return found

    def known(self, entry_id: str, spiffe_id: SpiffeId) -> Entry | None:
        """The entry with this ID as it is for one SPIFFE ID; None if that cannot be had by it (any more)."""
        found = self._entries.get(entry_id)
        return found.expanded_to(spiffe_id) if found is not None else None

    def possible(self, selectors: frozenset[Selector], untold: frozenset[str]) -> Iterator[Registration]:
        """The entries that such a caller has not, and might have if more of the kinds `untold` were known."""
        return (entry for entry in self._index.possible(selectors, untold) if not self._expired(entry))

    def registered(self, spiffe_id: SpiffeId) -> tuple[Entry, ...]:
        """The entries for one SPIFFE ID that have not ended, of whichever node, in the stated order: those that say it,
        and those that make it of a template.
        """
        said = self._of_id.get(spiffe_id, {}).values()
        made = (each.named(spiffe_id) for each in self._shapes.find(spiffe_id) if not self._expired(each))
        return _ordered((*(entry for entry in said if not self._expired(entry)), *made))

    def has_still(self, entry: Entry) -> bool:
        """Whether an entry that was found here is what it was, and has not ended."""
        now = self._entries.get(entry.id)
        if now is None or now.revision != entry.revision or self._expired(now):
            return False
        # One that was deleted and made again under the same ID has the same revision.
        same = now.created_at == entry.created_at and now.selectors == entry.selectors
        makes = now.spiffe_id == entry.spiffe_id or (
            isinstance(now.spiffe_id, IdTemplate) and now.spiffe_id.makes(entry.spiffe_id)
        )
        return same and makes

    def that_make(self, spiffe_id: SpiffeId) -> Iterator[Registration]:
        """The same as they are registered, in no order."""
        found = chain(self._of_id.get(spiffe_id, {}).values(), self._shapes.find(spiffe_id))
        return (each for each in found if not self._expired(each))

    # --- changing ---------------------------------------------------------------------------------------------------

    @whole
    async def create(self, wanted: Sequence[Registration], record: Recorder | None = None) -> list[ChangeOutcome]:
        """Register entries; an empty ID gets a new one. Items fail one by one; what is done is on disk, and so are the
        records that `record` makes of it.
        """
        _check_batch(wanted)
        async with self._lock:
            now = int(self._clock.now().timestamp())
            outcomes: list[ChangeOutcome] = []
            fresh: dict[str, Registration] = {}
            digests: dict[str, Registration] = {}
            for item in wanted:
                entry = replace(item, id=item.id or str(uuid.uuid4()), revision=0, created_at=now)
                twin = self._twin(entry) or digests.get(entry.identity_digest)
                try:
                    check(entry, self._trust_domain)
                    if twin is not None:
                        outcomes.append(ChangeOutcome(twin, AlreadyExists("similar entry already exists")))
                        continue
                    if entry.id in self._entries or entry.id in fresh:
                        raise AlreadyExists(f"an entry with the ID {entry.id!r} exists already")
                except SojournError as error:
                    outcomes.append(ChangeOutcome(None, error))
                    continue
                fresh[entry.id] = digests[entry.identity_digest] = entry
                outcomes.append(ChangeOutcome(entry))
            await self._apply([Change(None, entry) for entry in fresh.values()], record)
            return outcomes

    @whole
    async def update(
        self, wanted: Sequence[tuple[str, Callable[[Registration], Registration]]], record: Recorder | None = None
    ) -> list[ChangeOutcome]:
        """Change entries, each by its ID and a function from what is there to what shall be."""
        _check_batch(wanted)
        async with self._lock:
            outcomes: list[ChangeOutcome] = []
            changes: dict[str, Change] = {}
            digests: dict[str, str] = {}
            for entry_id, change in wanted:
                old = changes[entry_id].new if entry_id in changes else self._entries.get(entry_id)
                try:
                    if old is None:
                        raise NotFound("failed to update entry")
                    self.check_by_hand(old)
                    new = replace(change(old), id=old.id, revision=old.revision + 1, created_at=old.created_at)
                    check(new, self._trust_domain)
                    twin = self._by_digest.get(new.identity_digest) or digests.get(new.identity_digest)
                    if twin is not None and twin != entry_id:
                        raise AlreadyExists("similar entry already exists")
                except SojournError as error:
                    outcomes.append(ChangeOutcome(None, error))
                    continue
                changes[entry_id] = Change(self._entries.get(entry_id), new)
                digests[new.identity_digest] = entry_id
                outcomes.append(ChangeOutcome(new))
            await self._apply(list(changes.values()), record)
            return outcomes

    @whole
    async def delete(self, ids: Sequence[str], record: Recorder | None = None) -> list[ChangeOutcome]:
        """Remove entries. What they served ends at once."""
        _check_batch(ids)
        async with self._lock:
            outcomes: list[ChangeOutcome] = []
            changes: dict[str, Change] = {}
            for entry_id in ids:
                entry = self._entries.get(entry_id)
                if not entry_id:
                    outcomes.append(ChangeOutcome(None, InvalidEntry("missing entry ID")))
                elif entry is None or entry_id in changes:
                    outcomes.append(ChangeOutcome(None, NotFound("entry not found")))
                elif reason := self.followed(entry):
                    outcomes.append(ChangeOutcome(None, FailedPrecondition(reason)))
                else:
                    changes[entry_id] = Change(entry, None)
                    outcomes.append(ChangeOutcome(entry))
            await self._apply(list(changes.values()), record)
            return outcomes

    async def apply(
        self, wanted: Sequence[Registration], *, prune: bool, dry_run: bool, record: Recorder | None = None
    ) -> Plan:
        """Make the entries the wanted ones, all or nothing, and return what that took.

        With `prune`, entries that this node serves (a server: all) and that are not wanted go, but for those of a
        followed folder. With `dry_run` nothing changes. Raise InvalidEntry with all faults, AlreadyExists if a wanted
        entry has a twin under another ID, FailedPrecondition if one of a followed folder would change.
        """
        _check_batch(wanted)

        def ours(entry: Registration) -> bool:
            return (self.of_all_nodes or entry.parent_id in self._node_ids) and not self.followed(entry)

        def plan() -> Plan:
            return make_plan(self, wanted, self._trust_domain, prune=ours if prune else None, locked=self.followed)

        return await self.apply_plan(plan, dry_run=dry_run, record=record)

    @whole
    async def apply_plan(self, make: Callable[[], Plan], *, dry_run: bool, record: Recorder | None = None) -> Plan:
        """Go through with the plan that `make` makes of what is there, all or nothing."""
        async with self._lock:
            plan = make()
            now = int(self._clock.now().timestamp())
            steps = [self._stamped(step, now) for step in plan.steps]
            self._check_twins(steps)
            if not dry_run:
                await self._apply([Change(step.old, step.new) for step in steps], record)
            return Plan(tuple(steps), plan.unchanged)

    def _stamped(self, step: ReconciliationStep, now: int) -> ReconciliationStep:
        """A step with what the registry sets: ID and time of a new entry, the revision of a changed one."""
        if step.new is None:
            return step
        if step.old is None:
            return replace(step, new=replace(step.new, id=step.new.id or str(uuid.uuid4()), revision=0, created_at=now))
        return replace(step, new=replace(step.new, revision=step.old.revision + 1))

    def _check_twins(self, steps: Sequence[ReconciliationStep]) -> None:
        going = {step.old.id for step in steps if step.old is not None}
        for step in steps:
            twin = self._by_digest.get(step.new.identity_digest) if step.new is not None else None
            if twin is not None and twin not in going:
                raise AlreadyExists(f"similar entry already exists: {twin}")

    # --- a server that says which there are ---------------------------------------------------------------------------

    def follow_server(
        self, node_id: SpiffeId, put: Mapping[str, Registration], gone: Collection[str] = ()
    ) -> dict[str, str]:
        """Take what a server above this node says: its ID here, entries by their IDs, and which are gone. They are in
        memory alone. Return why some are left out, by their IDs: they may not be served in this trust domain.
        """
        self._node_ids = (node_id,)
        unfit: dict[str, str] = {}
        for entry_id, entry in put.items():
            try:
                check_served(entry, self._trust_domain)
            except SojournError as error:
                unfit[entry_id] = error.public
        fit = [entry for entry_id, entry in put.items() if entry_id not in unfit]
        going = [old for entry_id in (*gone, *unfit) if (old := self._entries.get(entry_id)) is not None]
        changes = [Change(self._entries.get(entry.id), entry, served=self.serves(entry)) for entry in fit]
        self._take([*(Change(old, None) for old in going), *changes])
        return unfit

    # --- a followed folder ------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """From now on entries that come from a folder are changed by `apply_folder` alone."""
        self._following = True

    async def apply_folder(
        self, wanted: Sequence[Registration], folder: str, places: Sequence[str], record: Recorder | None = None
    ) -> Plan:
        """Make the entries that come from a folder the wanted ones, all or nothing; the others stay.

        `places` says where the wanted entries stand. Raise as `apply` does; FailedPrecondition if one that was made by
        hand is in the way.
        """
        _check_batch(wanted)
        marked = [replace(entry, origin=folder) for entry in wanted]

        def plan() -> Plan:
            return make_plan(
                self, marked, self._trust_domain, prune=lambda entry: bool(entry.origin), locked=_by_hand, places=places
            )

        return await self.apply_plan(plan, dry_run=False, record=record)

    def check_by_hand(self, entry: Registration) -> None:
        """Raise FailedPrecondition if an entry comes from a folder that is followed."""
        reason = self.followed(entry)
        if reason:
            raise FailedPrecondition(reason)

    def followed(self, entry: Registration) -> str:
        """Why an entry may not be changed by hand: it comes from a followed folder. Empty if it may."""
        if not self._following or not entry.origin:
            return ""
        return f"entry {entry.id} comes from the followed folder {quoted(entry.origin)}: change it there"

    # --- what all changes come to -----------------------------------------------------------------------------------

    async def _apply(self, changes: list[Change], record: Recorder | None) -> None:
        if not changes:
            return
        put = [change.new for change in changes if change.new is not None]
        gone = [change.old.id for change in changes if change.new is None and change.old]
        await self._store.write(put, gone, recorded(changes, record))
        self._take([replace(each, served=each.new is None or self.serves(each.new)) for each in changes])

    def _take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.old is not None:
                self._drop(change.old)
        for change in changes:
            if change.new is not None:
                self._hold(change.new)
        if changes:
            self.on_change.tell(changes)

    def _hold(self, entry: Registration) -> None:
        self._entries[entry.id] = entry
        self._by_digest[entry.identity_digest] = entry.id
        if self._expired(entry):
            return
        if isinstance(entry.spiffe_id, IdTemplate):
            self._shapes.add(entry, entry.spiffe_id)
        elif isinstance(entry, Entry):
            self._of_id.setdefault(entry.spiffe_id, {})[entry.id] = entry
        if entry.parent_id in self._node_ids:
            self._index.add(entry)
            self._matches.clear()
        if entry.expires_at:
            self._end_by(entry, self._end_of(entry))

    def check_clock(self) -> None:
        """The wall clock was set: entries end by it if that is sooner, and never later than planned."""
        for entry_id, (latest, alarm) in list(self._ends.items()):
            alarm.cancel()
            self._end_by(self._entries[entry_id], latest)

    def _end_of(self, entry: Registration) -> float:
        """When an entry ends by the wall clock, on the boot clock."""
        return self._clock.boot() + entry.expires_at - self._clock.now().timestamp()

    def _end_by(self, entry: Registration, latest: float) -> None:
        alarm = self._alarms.at(min(latest, self._end_of(entry)), self._expire, entry)
        self._ends[entry.id] = (latest, alarm)

    def _drop(self, entry: Registration) -> None:
        del self._entries[entry.id]
        if self._by_digest.get(entry.identity_digest) == entry.id:  # a server may have twins, below other parents
            del self._by_digest[entry.identity_digest]
        self._unserve(entry)

    def _unserve(self, entry: Registration) -> None:
        self._index.remove(entry.id)
        self._matches.clear()
        if isinstance(entry.spiffe_id, IdTemplate):
            self._shapes.remove(entry, entry.spiffe_id)
        else:
            of_id = self._of_id.get(entry.spiffe_id, {})
            if of_id.pop(entry.id, None) is not None and not of_id:
                del self._of_id[entry.spiffe_id]
        _, alarm = self._ends.pop(entry.id, (0.0, None))
        if alarm is not None:
            alarm.cancel()

    def _expire(self, entry: Registration) -> None:
        if self._entries.get(entry.id) is entry:
            self._unserve(entry)
            self.on_change.tell([Change(entry, None)])

    def _expired(self, entry: Registration) -> bool:
        return bool(entry.expires_at) and entry.expires_at <= self._clock.now().timestamp()

    def _twin(self, entry: Registration) -> Registration | None:
        return self._entries.get(self._by_digest.get(entry.identity_digest, ""))


def _ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.order))


def _check_batch(items: Sequence[object]) -> None:
    if len(items) > ENTRIES_PER_BATCH:
        raise InvalidEntry(f"more than {ENTRIES_PER_BATCH} entries in one call")


def _by_hand(entry: Registration) -> str:
    if entry.origin:
        return ""
    return f"is the same as the entry {entry.id}, which was made by hand: delete that, or take this out of the folder"
