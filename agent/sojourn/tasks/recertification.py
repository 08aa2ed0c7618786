"""Recertification: when task types are to be reviewed, what was shown of an item, and what was decided on it.

No decision grants or changes anything: it is a record, and the date of the next one. A type that says so begins no new
tasks while its review is overdue.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import ReviewOverdue, SojournError, quoted
from sojourn.operating_limits import (
    REVIEW_AHEAD_SECONDS,
    REVIEW_LOOK_SECONDS,
    REVIEW_OVERDUE_TOLD,
    REVIEW_SETTLED_SECONDS,
    REVIEW_SOON_SECONDS,
    REVIEW_STATE_SECONDS,
    REVIEW_WRITTEN,
)
from sojourn.oversight.review_items import Item
from sojourn.oversight.review_names import TYPE, WORKLOAD, split
from sojourn.oversight.review_rules import Known, Shown, Wanted, changed_since, faults, not_shown
from sojourn.oversight.review_state import Decision, ReviewState
from sojourn.policy.approval_request import Person
from sojourn.policy.task_types import TaskType
from sojourn.runtime.background import whole
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.runtime.settled_wall import SettledWall
from sojourn.tasks.review_states import Change, ReviewStates, ReviewStore

log = structlog.get_logger()


class Recertification:
    """The dates of all items. They outlive the agent."""

    def __init__(
        self, store: ReviewStore, types: Callable[[], Mapping[str, TaskType]], audit: Audit, clock: Clock
    ) -> None:
        """`types`: those in force, by their names. Loads what is kept."""
        self._store = store
        self._types = types
        self._audit = audit
        self._clock = clock
        self._wall = SettledWall(clock)
        self._states = ReviewStates(store)
        self._deciding = asyncio.Lock()

    # --- dates ------------------------------------------------------------------------------------------------------

    def check(self, kind: TaskType) -> None:
        """Raise ReviewOverdue if no new task of a type begins now. It is asked at each beginning."""
        if self._blocks(kind):
            due_ms = self.due_ms(kind) or 0
            raise ReviewOverdue(
                f"the review of task type {kind.name!r} is overdue since {moment(due_ms)}, so that no new task of it"
                f" begins: {_whose(kind)} `sojourn review show {TYPE}:{kind.name}`, then `sojourn review decide`"
            )

    def due_ms(self, kind: TaskType) -> int | None:
        """When a type is to be reviewed; None: it does not say."""
        if kind.review is None:
            return None
        state = self._states.get(f"{TYPE}:{kind.name}")
        return (state or ReviewState(self._now())).due_ms(kind.review.every_ms)

    def state(self, item: str) -> ReviewState | None:
        """What is known of an item; None: nothing was decided on it, and it is no type."""
        return self._states.get(item)

    def is_overdue(self, kind: TaskType) -> bool:
        """Whether the review of a type is overdue. What was told as overdue stays so if the clock is set back."""
        due_ms = self.due_ms(kind)
        if due_ms is None:
            return False
        state = self._states.get(f"{TYPE}:{kind.name}")
        return due_ms <= self._now() or (state is not None and state.told_ms == due_ms)

    def overdue(self) -> list[tuple[int, TaskType]]:
        """The types whose review is overdue, each with its date, the longest first."""
        dated = [(self.due_ms(kind) or 0, kind) for kind in self._types().values() if self.is_overdue(kind)]
        return sorted(dated, key=lambda each: (each[0], each[1].name))

    def due(self) -> int:
        """How many types are to be reviewed soon, and are not overdue."""
        end_ms = self._now() + REVIEW_SOON_SECONDS * 1_000
        dated = [(self.due_ms(kind), kind) for kind in self._types().values()]
        return sum(due_ms is not None and due_ms <= end_ms and not self.is_overdue(kind) for due_ms, kind in dated)

    def newly_blocked(self, types: Mapping[str, TaskType], before: Mapping[str, TaskType]) -> list[str]:
        """The first types of a set of which no new task begins by their reviews, and would with the set before."""
        found = sorted(
            name for name, kind in types.items() if self._blocks(kind) and not self._blocks(before.get(name))
        )
        return found[:REVIEW_OVERDUE_TOLD]

    def _blocks(self, kind: TaskType | None) -> bool:
        return kind is not None and kind.review is not None and kind.review.block and self.is_overdue(kind)

    # --- what comes into force --------------------------------------------------------------------------------------

    async def types_changed(self, types: Mapping[str, TaskType], by: Mapping[str, Any]) -> None:
        """A set of types has come into force. `by`: of whoever reloaded it; empty: the agent followed the folder.

        A type that is changed, or that comes back, keeps its date. What cannot be written is tried again.
        """
        now, uid = self._now(), by.get("by_uid")
        for name, kind in types.items():
            item = f"{TYPE}:{name}"
            before = self._states.get(item)
            if before is None or before.digest != kind.digest:
                changer = None if uid is None else (uid, by.get("by_login_uid"))
                self._states.note(item, (before or ReviewState(now)).changed(kind.digest, now, changer))
        try:
            await self._keep()
        except SojournError as error:
            log.error("reviews_not_kept", reason=error.public, detail=error.detail)

    @whole
    async def _keep(self) -> None:
        await self._states.keep()

    async def run(self) -> NoReturn:
        """Tell of reviews as they become overdue, until cancelled."""
        while True:
            try:
                await self.look()
            except SojournError as error:
                log.error("reviews_not_kept", reason=error.public, detail=error.detail)
            await asyncio.sleep(REVIEW_LOOK_SECONDS)

    @whole
    async def look(self) -> None:
        """Record each review that has become overdue, once. Raise what the store raises."""
        self._wall.look()
        await self._states.keep()
        if self._wall.watched_seconds >= REVIEW_SETTLED_SECONDS:
            await self._mend()
            await self._forget_old()
        if not self._wall.stepped_within(REVIEW_SETTLED_SECONDS):
            await self._tell()

    async def _tell(self) -> None:
        said: dict[str, dict[str, Any]] = {}

        def plan() -> tuple[dict[str, Change], list[Event]]:
            changes: dict[str, Change] = {}
            for due_ms, kind in self.overdue():
                item = f"{TYPE}:{kind.name}"
                state = self._states.get(item)
                if state is None or state.told_ms != due_ms:
                    changes[item] = partial(replace, told_ms=due_ms)
                    block = kind.review is not None and kind.review.block
                    due = {"owner": kind.owner, "due": due_ms // 1_000, "block_new": block}
                    said[item] = {"item": item, "type": kind.name, **due}
            return changes, [self._audit.event("review_overdue", each) for each in said.values()]

        await self._states.change(plan, self._now())
        for each in said.values():
            log.warning("review_overdue", **each)

    async def _mend(self) -> None:
        """Have dates be now that are in the future: else nothing would be due until then."""
        now = self._now()
        latest = now + REVIEW_AHEAD_SECONDS * 1_000
        ahead = [item for item, state in self._states.items() if state.not_after(latest) is not state]
        if not ahead:
            return
        await self._states.change(lambda: (dict.fromkeys(ahead, lambda state: state.not_after(now)), []), now)
        log.warning("review_dates_ahead", items=len(ahead), first=ahead[:REVIEW_OVERDUE_TOLD])

    async def _forget_old(self) -> None:
        """Let the dates go of items of which nothing is heard any more; those of types in force stay."""
        oldest, types = self._now() - REVIEW_STATE_SECONDS * 1_000, self._types()
        await self._states.forget(
            lambda item, state: (
                state.touched_ms < oldest and not (item.startswith(f"{TYPE}:") and split(item)[1] in types)
            )
        )

    # --- showing and deciding ---------------------------------------------------------------------------------------

    async def show(self, evidence: Sequence[tuple[str, str]]) -> list[Shown]:
        """Keep evidence, canonical JSON, as shown of these items now. Raise what the store raises."""
        now = self._now()
        shown = [Shown(item, hashlib.sha256(text.encode()).hexdigest(), now, text) for item, text in evidence]
        await self._store.show(shown, now)
        return shown

    async def was_shown(self, item: str, digest: str) -> Shown:
        """Evidence that was shown once. Raise ReviewNotShown."""
        found = (await self._store.shown([(item, digest)])).get((item, digest))
        if found is None:
            raise not_shown(item)
        return found

    @whole
    async def decide(
        self,
        wanted: Sequence[Wanted],
        person: Person,
        items: Mapping[str, Item],
        *,
        dry_run: bool = False,
    ) -> list[SojournError | None]:
        """Look at all decisions, and make them if nothing is wrong with any; return what is wrong with each.

        `items`: all that there are to review. Raise what the store raises; of many the first may be made then.
        """
        async with self._deciding:
            shown = await self._store.shown([(each.item, each.digest) for each in wanted])
            known = Known(items, shown, self._states, self._now())
            found = await asyncio.to_thread(faults, wanted, person, known)
            if any(found) or dry_run:
                return found
            for at in range(0, len(wanted), REVIEW_WRITTEN):
                try:
                    await self._make(wanted[at : at + REVIEW_WRITTEN], person, items, shown)
                except SojournError as error:
                    error.public += f"; {at} of {len(wanted)} decisions were made before" if at else ""
                    raise
            return found

    async def _make(
        self,
        wanted: Sequence[Wanted],
        person: Person,
        items: Mapping[str, Item],
        shown: Mapping[tuple[str, str], Shown],
    ) -> None:
        """Make some decisions, all of which were in order. Raise ReviewStale if a type was changed since."""
        now = self._now()

        def plan() -> tuple[dict[str, Change], list[Event]]:
            changes: dict[str, Change] = {}
            events = []
            for each in wanted:
                item, seen = items[each.item], shown[each.item, each.digest]
                if item.kind == TYPE and not self._stands(item):
                    raise changed_since(item)
                made = Decision(each.decision, now, each.digest, seen.at_ms, each.reason, person.uid, person.login_uid)
                digest = item.about if item.kind == TYPE else ""
                changes[item.id] = partial(ReviewState.decided, decision=made, digest=digest)
                events.append(self._decided(item, made, person))
            return changes, events

        await self._states.change(plan, now)

    def _stands(self, item: Item) -> bool:
        """Whether a type is in force as it was, and it is known who changed it."""
        kind, state = self._types().get(item.name), self._states.get(item.id)
        return kind is not None and state is not None and kind.digest == state.digest == item.about

    def _decided(self, item: Item, made: Decision, person: Person) -> Event:
        named = {TYPE: {"type": item.name}, WORKLOAD: {"spiffe_id": item.name}}.get(item.kind, {})
        by = person.uid if person.login_uid is None else person.login_uid
        fields = {
            "item": item.id,
            **named,
            "decision": made.decision,
            "digest": made.digest,
            "reason": made.reason or None,
            "shown_at": made.shown_ms // 1_000,
            "owner": ", ".join(item.owners),
            "by": str(by),
            **person.record("by_"),
            "by_pid": person.pid,
        }
        return self._audit.event("review_decided", fields)

    def _now(self) -> int:
        return milliseconds(self._clock.now())


def overdue_named(found: Sequence[tuple[int, TaskType]]) -> list[str]:
    """The names of the first items that are overdue."""
    return [f"{TYPE}:{kind.name}" for _, kind in found[:REVIEW_OVERDUE_TOLD]]


def moment(at_ms: int) -> str:
    """A time in milliseconds since the epoch, for people."""
    return f"{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _whose(kind: TaskType) -> str:
    return f"its owner is {quoted(kind.owner)}; the operator does" if kind.owner else "the operator does"
