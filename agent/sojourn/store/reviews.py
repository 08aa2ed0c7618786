"""What is known of items that are reviewed, one JSON document each, and the evidence that was shown of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection, delete, func, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert

from sojourn.audit.journal import Event
from sojourn.operating_limits import (
    REVIEW_AHEAD_SECONDS,
    REVIEW_DECIDED_SECONDS,
    REVIEW_READ,
    REVIEW_SHOWN_EACH,
    REVIEW_SHOWN_SECONDS,
    REVIEW_WRITTEN,
)
from sojourn.oversight.review_rules import Shown
from sojourn.oversight.review_state import ReviewState
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.tables import review_items, review_shown

log = structlog.get_logger()
Each = TypeVar("Each")
_PRUNED: Final = 500  # rows that are too old, which go with one write


class ReviewTable:
    """The store that recertification asks for."""

    def __init__(self, database: Database, audit: AuditTable) -> None:
        self._database = database
        self._audit = audit

    def load(self) -> dict[str, ReviewState]:
        """All, read in the calling thread: for the start. What cannot be read is known since ever, and so due."""

        def work(connection: Connection) -> dict[str, ReviewState]:
            rows = connection.execute(select(review_items))
            return {row.item: _state(row.item, row.document) for row in rows}

        return self._database.read_now("reviews", work)

    async def save(self, states: Mapping[str, ReviewState], events: Sequence[Event] = ()) -> None:
        """Put these in the place of those before, and record that, in one transaction. The evidence of a decision is
        kept longer from now on.
        """
        rows = [{"item": item, "document": json.dumps(state.document())} for item, state in states.items()]
        decided = [(item, state.last) for item, state in states.items() if state.last is not None]

        def work(connection: Connection) -> None:
            made = insert(review_items)
            put = made.on_conflict_do_update(index_elements=["item"], set_={"document": made.excluded.document})
            connection.execute(put, rows)
            for item, last in decided:
                which = (review_shown.c.item == item, review_shown.c.digest == last.digest)
                connection.execute(update(review_shown).where(*which).values(decided_ms=last.at_ms))
            self._audit.append_in(connection, events)

        await self._database.write(work)

    async def forget(self, items: Sequence[str]) -> None:
        """Take away what is known of these."""
        for some in _some(items, REVIEW_WRITTEN):
            await self._database.write(lambda connection, some=some: _forget(connection, some))  # type: ignore[misc]

    async def show(self, shown: Sequence[Shown], now_ms: int) -> None:
        """Keep evidence as shown, and let go of what is too old, or was shown of an item several times since."""
        for some in _some(shown, REVIEW_WRITTEN):
            await self._database.write(lambda connection, some=some: _show(connection, some, now_ms))  # type: ignore[misc]

    async def shown(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Shown]:
        """What was shown, by item and digest."""
        found: dict[tuple[str, str], Shown] = {}
        for some in _some(wanted, REVIEW_READ):
            for each in await self._database.read(lambda connection, some=some: _shown(connection, some)):  # type: ignore[misc]
                found[each.item, each.digest] = each
        return found


def _state(item: str, text: str) -> ReviewState:
    try:
        return ReviewState.read(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        log.error("review_not_read", item=item, reason=str(error)[:200])
        return ReviewState(0)


def _forget(connection: Connection, items: Sequence[str]) -> None:
    connection.execute(delete(review_items).where(review_items.c.item.in_(items)))


def _show(connection: Connection, some: Sequence[Shown], now_ms: int) -> None:
    made = insert(review_shown)
    put = made.on_conflict_do_update(index_elements=["item", "digest"], set_={"shown_ms": made.excluded.shown_ms})
    rows = [
        {"item": each.item, "digest": each.digest, "shown_ms": each.at_ms, "decided_ms": 0, "evidence": each.evidence}
        for each in some
    ]
    connection.execute(put, rows)
    of = review_shown.c
    ahead = of.shown_ms > now_ms + REVIEW_AHEAD_SECONDS * 1_000  # nobody may decide by these
    newest = (ahead, of.shown_ms.desc(), of.digest)
    place = func.row_number().over(partition_by=of.item, order_by=newest).label("place")
    versions = select(of.item, of.digest, place).where(
        of.item.in_({each.item for each in some}), of.decided_ms == 0
    ).subquery()  # fmt: skip
    surplus = select(versions.c.item, versions.c.digest).where(versions.c.place > REVIEW_SHOWN_EACH)
    connection.execute(delete(review_shown).where(tuple_(of.item, of.digest).in_(surplus)))
    old = (
        select(of.item, of.digest)
        .where(
            of.shown_ms < now_ms - REVIEW_SHOWN_SECONDS * 1_000, of.decided_ms < now_ms - REVIEW_DECIDED_SECONDS * 1_000
        )
        .order_by(of.shown_ms)
        .limit(_PRUNED)
    )
    connection.execute(delete(review_shown).where(tuple_(of.item, of.digest).in_(old)))


def _shown(connection: Connection, some: Sequence[tuple[str, str]]) -> list[Shown]:
    of = review_shown.c
    rows = connection.execute(select(review_shown).where(tuple_(of.item, of.digest).in_(some)))
    return [Shown(row.item, row.digest, row.shown_ms, row.evidence) for row in rows]


def _some(values: Sequence[Each], most: int) -> Iterator[Sequence[Each]]:
    """The values, so many at a time."""
    return (values[at : at + most] for at in range(0, len(values), most))
