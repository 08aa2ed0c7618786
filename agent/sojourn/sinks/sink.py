"""One sink: it reads the journal behind its place, sends what is next, and moves its place once that is taken.

A sink has a coroutine of its own, holds no record, and is waited for by nobody. What a crash leaves is sent again from
the place that is on disk, the same bytes for the same record; so a receiver may have a record twice, and is told where
it has not had one.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.audit.log_state import LogState
from sojourn.errors import SojournError
from sojourn.operating_limits import (
    SINK_BATCH_RECORDS,
    SINK_CHECKPOINT_SECONDS,
    SINK_IDLE_SAVE_SECONDS,
    SINK_PAUSE_SECONDS,
    SINK_REFUSED_IN_ROW,
    SINK_RETRY_MAX_SECONDS,
    SINK_RETRY_SECONDS,
    SINK_SAVE_SECONDS,
)
from sojourn.quota.rate import Rate
from sojourn.runtime.backoff import pause_after
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.sinks.items import Item, Passage, SinkState, Wanted
from sojourn.sinks.sender import ItemsRefused, Sender, SinkDown

log = structlog.get_logger()


class SinkStore(Protocol):
    """Where the journal is read, and sinks' places are kept."""

    async def passage(self, seq: int, most: int, wanted: Wanted) -> Passage:
        """The next records behind this one, `most` of them at most. Raise StoreFailed."""

    async def save(self, state: SinkState, events: Sequence[Event]) -> None:
        """Write a sink's place, with these records in the same write. Raise StoreFailed, StoreFull, LimitExceeded."""


@dataclass(frozen=True, slots=True)
class About:
    """What a sink is, for people. `to`: a path, or the authority of a URL."""

    name: str
    kind: str
    to: str
    required: bool = False
    format: str = "sojourn"


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is sent at once. `state`: the sink's, once it has that. `more`: whether there is more to be had then."""

    items: tuple[Item, ...]
    state: SinkState
    more: bool
    gap: tuple[int, int] | None = None  # the first and the last record of a gap that it tells of


class Sink:
    """Sends to one sink until it is cancelled. Figures are those of the last look."""

    def __init__(
        self,
        about: About,
        wanted: Wanted,
        sender: Sender,
        state: SinkState,
        store: SinkStore,
        signed: Callable[[], LogState],
        audit: Audit,
        clock: Clock,
        chance: Callable[[], float] = random.random,
        cosigned: Callable[[LogState], Sequence[str]] = lambda _: (),
    ) -> None:
        """`signed`: the log of the journal as it is now. `cosigned`: what witnesses have cosigned of it, as notes.

        `chance`: a number from 0 to 1, by which pauses differ.
        """
        self.about = about
        self.state = state  # as the sink has it; what is on disk may be somewhat behind
        self.fault = ""  # why the sink takes nothing now
        self.failing_since = 0.0  # seconds since the epoch; 0: it is not
        self.taken_at = 0.0  # when it last took something in this run, seconds since the epoch
        self.wake = asyncio.Event()
        self.at_end = asyncio.Event()  # it had all that there was at the last look
        self._wanted = wanted
        self._sender = sender
        self._store = store
        self._signed = signed
        self._cosigned = cosigned
        self._audit = audit
        self._clock = clock
        self._chance = chance
        self._saved, self._saved_at = state, clock.boot()
        self._events: list[Event] = []  # that are recorded with its place
        self._sent_at = clock.boot()
        self._unsigned = True  # whether it may have records that no checkpoint has that it was sent
        self._most = SINK_BATCH_RECORDS
        self._tried = 0  # failures in a row
        self._refused_in_row = 0
        self._oldest_ms = 0
        self._logged = Rate(1, clock.boot)

    @property
    def lag_seconds(self) -> float:
        """How long ago the oldest record was written that the sink has not had. 0: it has had all."""
        return max(0.0, self._clock.now().timestamp() - self._oldest_ms / 1000) if self._oldest_ms else 0.0

    def is_behind(self, head: int) -> bool:
        """Whether something is to be sent, of the journal up to this record."""
        signed = self._signed()
        return self.state.seq < head or (self._unsigned and self._is_new(signed) and self.state.seq >= signed.end_seq)

    async def run(self) -> NoReturn:
        """Send until cancelled."""
        while True:
            await self.wake.wait()
            await asyncio.sleep(SINK_PAUSE_SECONDS)
            self.wake.clear()
            await self._catch_up()

    async def close(self) -> None:
        """Have its place on disk, if that is possible, and let go of what it sends by. `run` is over."""
        with suppress(SojournError):  # then it is sent again what it has
            await self._save()
        await self._sender.close()

    async def _catch_up(self) -> None:
        """Send all that there is, however long the sink takes nothing."""
        while True:
            try:
                if not await self.step():
                    self.at_end.set()
                    return
            except SojournError as error:
                await asyncio.sleep(await self.failed(error))
            except Exception as error:
                log.exception("audit_sink_broken", sink=self.about.name)
                await asyncio.sleep(await self.failed(SinkDown(f"the agent failed: {type(error).__name__}")))

    async def step(self) -> bool:
        """Send the next batch, if any. Return whether there is more. Raise SinkDown, and what the store raises."""
        passage = await self._store.passage(self.state.seq, self._most, self._wanted)
        self._oldest_ms = passage.oldest_ms
        batch = self._next(passage)
        if not batch.items:
            self.state = batch.state
            await self._save_now_and_then(SINK_IDLE_SAVE_SECONDS)
            self._oldest_ms = 0 if not batch.more else self._oldest_ms
            return batch.more
        try:
            taken = await self._sender.send(batch.items)
        except ItemsRefused as error:
            return await self._refused(batch, error.reason)
        self._takes()
        if taken.refused:
            self._set_aside(batch, taken.refused, taken.reason)
        await self._go_on(batch, taken.refused)
        return batch.more

    def _next(self, passage: Passage) -> _Batch:
        """A gap first, then records, then the checkpoint that signs what was sent up to there."""
        now, state = milliseconds(self._clock.now()), self.state
        gap = (state.seq + 1, passage.first - 1) if passage.first > state.seq + 1 else None
        items = [*([] if gap is None else [Item.of_gap(*gap, now, self._wanted.lines)]), *passage.items]
        signed = self._signed()
        idle = self._clock.boot() - self._sent_at >= SINK_CHECKPOINT_SECONDS
        covered = max(passage.reached, state.seq) >= signed.end_seq
        signs = covered and self._is_new(signed) and (items or self._unsigned or idle)
        if signs:
            items.append(Item.of_checkpoint(signed, now, self._wanted.lines, self._cosigned(signed)))
        cut = tuple(items[: self._most])
        whole = len(cut) == len(items)
        reached = max(state.seq, passage.reached if whole else cut[-1].seq)
        after = replace(state, seq=reached, gap=state.gap + (0 if gap is None else gap[1] - gap[0] + 1))
        if signs and whole:
            after = replace(after, log=signed.number, size=signed.size)
        return _Batch(cut, after, not whole or reached < passage.head, gap)

    def _is_new(self, signed: LogState) -> bool:
        return bool(signed.checkpoint) and (signed.number, signed.size) != (self.state.log, self.state.size)

    async def _go_on(self, batch: _Batch, refused: int) -> None:
        """Go on behind a batch that was taken, or whose one item was set aside."""
        signed = (batch.state.log, batch.state.size) != (self.state.log, self.state.size)
        self._unsigned, self._sent_at = not signed, self._clock.boot()
        self.state = replace(batch.state, refused=self.state.refused + refused)
        if not batch.more:
            self._oldest_ms = 0
        if batch.gap is not None:
            first, last = batch.gap
            log.warning("audit_sink_gap", sink=self.about.name, from_seq=first, until_seq=last)
            fields = {"sink": self.about.name, "from_seq": first, "until_seq": last}
            self._events.append(self._audit.event("sink_gap", fields))
        await self._save_now_and_then(SINK_SAVE_SECONDS if batch.more else 0.0)

    async def _refused(self, batch: _Batch, reason: str) -> bool:
        """Try half of what was refused, or set aside the one item that it was. Return that there is more."""
        if len(batch.items) > 1:
            self._most = len(batch.items) // 2
            return True
        self._refused_in_row += 1
        self._set_aside(batch, 1, reason)
        await self._go_on(batch, 1)
        if self._refused_in_row > SINK_REFUSED_IN_ROW:
            raise SinkDown(f"it refuses one record after the other: {reason}")
        return True

    def _set_aside(self, batch: _Batch, count: int, reason: str) -> None:
        """Tell of items that the sink will never have. What tells of that, and is refused itself, is counted only."""
        told = [each.seq for each in batch.items if each.is_told_of]
        if self._logged.allow("refused"):
            log.warning("audit_sink_refused", sink=self.about.name, reason=reason, count=count)
        if told:
            of = {"from_seq": told[0], "until_seq": told[-1], "count": count, "reason": reason}
            self._events.append(self._audit.event("sink_refused", {"sink": self.about.name, **of}))

    def _takes(self) -> None:
        """The sink has taken something."""
        if self.fault:
            log.info("audit_sink_takes_again", sink=self.about.name)
        self.fault, self.failing_since, self._tried, self._refused_in_row = "", 0.0, 0, 0
        self.taken_at = self._clock.now().timestamp()
        self._most = min(SINK_BATCH_RECORDS, self._most * 2)

    async def failed(self, error: SojournError) -> float:
        """The sink takes nothing now, or cannot be sent anything. Return for how many seconds it is left alone."""
        if not self.fault:
            self.failing_since = self._clock.now().timestamp()
            log.warning("audit_sink_failing", sink=self.about.name, reason=error.public, detail=error.detail or None)
        self.fault = error.public
        with suppress(SojournError):
            await self._save()
        self._tried += 1
        asked = error.after if isinstance(error, SinkDown) else 0.0
        return max(asked, pause_after(self._tried - 1, SINK_RETRY_SECONDS, SINK_RETRY_MAX_SECONDS, self._chance()))

    async def _save_now_and_then(self, seconds: float) -> None:
        """Have its place on disk, unless that was done within the last seconds and nothing is to be told with it."""
        if self._events or self._clock.boot() - self._saved_at >= seconds:
            await self._save()

    async def _save(self) -> None:
        state, events = self.state, self._events
        if state == self._saved and not events:
            return
        self._events = []
        try:
            await self._store.save(state, events)
        except BaseException:
            self._events = [*events, *self._events]
            raise
        self._saved, self._saved_at = state, self._clock.boot()
