"""The audit journal: a record of each issue, denial and task transition, chained by digests.

Each record's digest is SHA-256 over the digest before it and the record, so that a change, a gap or another order
anywhere shows. Records never hold tokens, keys or selectors.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from sojourn.audit.waiting import Waiting, Whose, in_order
from sojourn.errors import SojournError
from sojourn.errors.oauth import NotOnDisk
from sojourn.jose.canonical_json import canonical
from sojourn.limits import WRITES_WAITING
from sojourn.quota.rate import Rate
from sojourn.runtime import trace
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
FIRST = "0" * 64
LOST_NAMED = 20  # of whom it is said one by one that records of theirs are lost
_BY: Final = ("by_uid", "uid", "spiffe_id", "address")
_OWN: Final[Whose] = ("", "")
DENIALS_PER_SECOND = 20  # over that they are counted, and the count is recorded: refusals cost the refused nothing


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, before it has its place in the journal."""

    at_ms: int
    event: str
    fields: str  # JSON object, canonical
    # What `fields` was made of, while it is at hand: so whoever counts records as they are written reads none again.
    said: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the journal. `digest` is lower-case hex."""

    seq: int
    at_ms: int
    event: str
    fields: str
    digest: str


def digest_of(before: str, seq: int, event: Event) -> str:
    text = f"{before}\n{seq}\n{event.at_ms}\n{event.event}\n{event.fields}"
    return hashlib.sha256(text.encode()).hexdigest()


def named(who: int | str) -> dict[str, int | str]:
    """Who it was, as a record says it: a uid, or of a caller over the network its SPIFFE ID, or where it came from."""
    if isinstance(who, int):
        return {"uid": who}
    return {"spiffe_id" if who.startswith("spiffe://") else "address": who}


class AuditStore(Protocol):
    """Where the journal is kept."""

    async def append(self, events: Sequence[Event]) -> None: ...


class Audit:
    """Writes the journal. `note` returns at once, `commit` once the record is on disk."""

    def __init__(self, store: AuditStore, clock: Clock, *, waiting_max: int = WRITES_WAITING) -> None:
        """`waiting_max`: how many records may wait for a disk that takes nothing."""
        self.user_of: Callable[[int], int] = lambda uid: uid  # the user who may become a uid
        self._store = store
        self._clock = clock
        self.lost = 0  # records so far, of those that waited
        self._logged = Rate(1, clock.boot)  # that some are lost: the log is not to fill another disk
        self._waiting: Waiting[Event] = Waiting(waiting_max)
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._denials: dict[int | str, int] = {}  # who -> denials in this second
        self._second = 0
        self.denial_seconds = 1.0  # in which DENIALS_PER_SECOND of each are recorded one by one
        self.on_event: Hooks[[str, Mapping[str, Any]]] = Hooks()  # each that happens, with its fields

    def note(self, event: str, **fields: Any) -> None:
        """Record something that need not wait for the disk. What the disk does not take stays here for a while."""
        if self._waiting.add(self._whose(fields), self.event(event, fields)):
            self._lose(1)
        self._wake.set()

    def _whose(self, fields: Mapping[str, Any]) -> Whose:
        """By whom there is a record: the operator, or else the workload or caller; a user is one by all of his uids."""
        for name in _BY:
            if (value := fields.get(name)) is not None:
                return (name, self.user_of(value) if name == "uid" else value)
        return _OWN

    def _lose(self, count: int) -> None:
        self.lost += count
        if self._logged.allow("lost"):
            reason = "the journal cannot be written and too many records wait"
            log.error("audit_record_lost", reason=reason, lost=self.lost)

    async def commit(self, event: str, **fields: Any) -> None:
        """Record what was done in no database, and return when that is on disk. Raise NotOnDisk."""
        self.note(event, **fields)
        await self.recorded()

    async def recorded(self) -> None:
        """Return when what was noted is on disk. Raise NotOnDisk: the records wait then, as others do."""
        try:
            await self.flush()
        except SojournError as error:
            raise NotOnDisk(
                f"it is done, and its record is not on disk yet: {error.public}", detail=error.detail
            ) from error

    def denied(self, event: str, who: int | str, **fields: Any) -> None:
        """Record a refusal, up to DENIALS_PER_SECOND for each uid, SPIFFE ID, or network of callers that have none."""
        self._note_suppressed()
        count = self._denials[who] = self._denials.get(who, 0) + 1
        if count <= DENIALS_PER_SECOND:
            self.note(event, **{**named(who), **fields})
        else:
            self.on_event.tell(event, fields)

    def _note_suppressed(self) -> None:
        """Record how many denials of a second that is over were not recorded one by one."""
        second = int(self._clock.boot() / self.denial_seconds)
        if second != self._second:
            suppressed = {who: count - DENIALS_PER_SECOND for who, count in self._denials.items()}
            self._second, self._denials = second, {}
            for noisy, count in suppressed.items():
                if count > 0:
                    self.note("denials_suppressed", **named(noisy), count=count)

    def event(self, event: str, fields: Mapping[str, Any]) -> Event:
        """Make an event that happens now; None values are left out. It has the trace of the request under way."""
        self.on_event.tell(event, fields)
        kept = {name: value for name, value in fields.items() if value is not None}
        if (of_trace := trace.trace_id()) is not None:
            kept["trace_id"] = of_trace
        return Event(milliseconds(self._clock.now()), event, canonical(kept), kept)

    @property
    def waiting(self) -> int:
        """How many records wait for the disk."""
        return len(self._waiting)

    async def flush(self) -> None:
        """Write what waits, and what another began to write. Raises what the store raises; nothing is lost then."""
        async with self._writing:
            self._note_suppressed()
            batch, lost = self._waiting.take(), self._waiting.lost
            self._waiting.lost = Counter()
            try:
                if batch or lost:
                    await self._store.append((*self._told(lost), *in_order(batch)))
            except BaseException:
                self._waiting.lost += lost
                if over := self._waiting.put_back(batch):
                    self._lose(over)
                raise

    def _told(self, lost: "Counter[Whose]") -> list[Event]:
        """Records of how many are lost, and whose: of those with most, and of the others together."""
        named = lost.most_common(LOST_NAMED)
        others = lost.total() - sum(count for _, count in named)
        told = [*named, (_OWN, others)] if others else named
        return [
            self.event("records_lost", {**({} if whose == _OWN else dict([whose])), "count": count})
            for whose, count in told
        ]

    async def settle(self) -> int:
        """Write what waits, if the disk takes it now. Return how many records wait on, and are not in the journal."""
        with suppress(SojournError):  # the log has it, by `run`
            await self.flush()
        return len(self._waiting)

    async def finish(self) -> None:
        """Write that the agent has stopped, and what waits. If that cannot be, the log says so."""
        self.note("agent_stopped")
        try:
            await self.flush()
        except SojournError as error:
            log.error("audit_not_written", reason=error.public, detail=error.detail)

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0 if self._denials else None):  # then their number may be to be told
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
            except SojournError as error:
                log.error("audit_not_written", reason=error.public, detail=error.detail, waiting=len(self._waiting))
                await asyncio.sleep(1)
                self._wake.set()
            await asyncio.sleep(0.02)  # so that a burst shares a commit
