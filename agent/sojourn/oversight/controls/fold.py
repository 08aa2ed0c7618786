"""One walk along the records of a journal for all queries together, from the first to the last."""

from collections.abc import Iterable
from typing import Final

from sojourn.operating_limits import CONTROL_GRACE_MS, CONTROL_KEYS
from sojourn.oversight.controls.live_tasks import CHANGES, Fields, LiveTasks
from sojourn.oversight.controls.queries import QUERIES
from sojourn.oversight.controls.query import WRONG, Answer, Journal, Query, Replayed, Seen, Types, Whole

_LOADED: Final = frozenset({"policy_loaded", "policy_last_good"})  # records of them say a set's digest as `digest`


class ControlFold:
    """Reads records in their order, and answers every query behind the last one.

    `unread`: records whose fields are no JSON, so that nobody knows what they say: no claim on all records holds then.
    One that lacks what a query looks for, such as that of an earlier release, is not judged by it.
    """

    def __init__(self, names: Iterable[str] = QUERIES) -> None:
        """`names`: the queries that are wanted."""
        self.tasks = LiveTasks()
        self.count = self.first_seq = self.last_seq = self.unread = self.gap_seq = 0
        self._first_ms = self._last_ms = 0
        self._queries: list[Query] = [QUERIES[name](self.tasks) for name in dict.fromkeys(names)]
        self._readers: dict[str, list[Query]] = {}
        for each in self._queries:
            for event in each.events:
                self._readers.setdefault(event, []).append(each)
        self._sets: dict[str, tuple[int, int]] = {}
        self._sets_left_out = 0

    def wants(self, event: str) -> bool:
        """Whether what a record of this event says is read: else its fields need not be parsed."""
        return event in self._readers or event in CHANGES or event in _LOADED

    def read(self, seq: int, at_ms: int, event: str, fields: Fields | None) -> None:
        """Read the next record. `fields` None: they are not wanted, or no JSON, which `unreadable` counts."""
        if not self.count:
            self.first_seq = self.tasks.first_seq = seq
            self._first_ms = at_ms
        elif seq != self.last_seq + 1 and not self.gap_seq:
            self.gap_seq = seq
        self.count += 1
        # Whoever writes late does so by some seconds: what is further behind is taken for as late as it stands.
        when_ms = at_ms if self._last_ms - at_ms <= CONTROL_GRACE_MS else self._last_ms + 1
        self.last_seq, self._last_ms = seq, max(self._last_ms, at_ms)
        if fields is None:
            return
        try:
            self._note_set(seq, event, fields)
            task = self.tasks.before(seq, at_ms, event, fields)
        except WRONG:
            self.tasks.cannot_read(fields)
            task = None
        self._ask(Seen(seq, at_ms, when_ms, event, fields, task))
        if event in CHANGES:
            try:
                self.tasks.behind(seq, at_ms, event, fields)
            except WRONG:
                self.tasks.cannot_read(fields)

    def unreadable(self) -> None:
        """Count a record whose fields are wanted and cannot be parsed."""
        self.unread += 1

    def _ask(self, seen: Seen) -> None:
        for each in self._readers.get(seen.event, ()):
            try:
                each.read(seen)
            except WRONG:
                each.not_judged += 1

    def _note_set(self, seq: int, event: str, fields: Fields) -> None:
        digest = fields.get("digest") if event in _LOADED else fields.get("policy_set")
        if not isinstance(digest, str):
            return
        known = self._sets.get(digest)
        if known is None and len(self._sets) >= CONTROL_KEYS:
            self._sets_left_out += 1
            return
        self._sets[digest] = (seq if known is None else known[0], seq)

    def seen_whole(self, journal: Journal) -> Journal:
        """What is known of the journal, with what was seen here: gaps, and records that cannot be read."""
        if journal.whole and (self.gap_seq or self.unread):
            return Journal(looked_at=True, whole=False, first_bad_seq=self.gap_seq)
        return journal

    def answers(self, journal: Journal, replayed: Replayed, types: Types) -> dict[str, Answer]:
        """What each query found, by its name. `journal`: as `seen_whole` has it."""
        whole = Whole(
            self.count, self._first_ms, self._last_ms, journal, replayed, types, self._sets_left_out, self._sets
        )
        return {each.name: each.answer(whole) for each in self._queries}
