"""Queries on the journal itself: that it is whole, that nothing was lost, that others have it, that it says why."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from sojourn.audit.log_state import FIRST_LOG
from sojourn.operating_limits import CONTROL_NAMES
from sojourn.oversight.controls.live_tasks import LiveTasks
from sojourn.oversight.controls.query import Query, Seen, Whole

_DAY_MS: Final = 86_400_000
_OTHERS: Final = "others"
_CODE_MAX: Final = 64  # characters; those of the agent are shorter
_COUNT_MAX: Final = 1 << 53  # more is no number of records


class JournalWhole(Query):
    name = "journal_whole"
    assertion = "each record is as it was written, in its order, and none is missing"
    events = frozenset()

    def read(self, seen: Seen) -> None:
        """Whoever reads the records checks them, too."""

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        if not whole.journal.looked_at:
            self.not_judged = whole.records
            return {}
        self.n = whole.records
        if not whole.journal.whole:
            self.exceptions.count = 1
            self.exceptions.seqs = [whole.journal.first_bad_seq] if whole.journal.first_bad_seq else []
        return {}


class NothingLost(Query):
    name = "nothing_lost"
    assertion = (
        "the agent lost no record, no database, no root and no key of the journal, no database was put back, and no"
        " signed log was begun a second time for any such reason"
    )
    events = frozenset(
        {"records_lost", "database_lost", "database_restored", "root_lost", "audit_key_lost", "audit_log_begun"}
    )

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._logs = 0

    def read(self, seen: Seen) -> None:
        if seen.event == "audit_log_begun":
            self._logs += 1
            if seen.fields.get("reason") == FIRST_LOG:
                return
        count = seen.fields.get("count")
        self.exceptions.add(seen.seq, min(max(1, count), _COUNT_MAX) if type(count) is int else 1)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        self.n = whole.records
        return {"days": round(max(0, whole.last_ms - whole.first_ms) / _DAY_MS, 1), "logs_begun": self._logs}


class Sinks(Query):
    name = "sinks"
    assertion = (
        "of no sink records say that it missed one: that one was pruned before it had it, or that it refused one"
    )
    events = frozenset({"sink_begun", "sink_gap", "sink_refused"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._names: set[str] = set()

    def read(self, seen: Seen) -> None:
        name = seen.fields["sink"]
        if name not in self._names and len(self._names) < CONTROL_NAMES:
            self._names.add(name)
            self.n += 1
        if seen.event != "sink_begun":
            self.exceptions.add(seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return {"sinks": sorted(self._names)} if self._names else {}


class Refusals(Query):
    name = "refusals_say_why"
    assertion = (
        "each refusal of a task, a token, a hand-over or a request that has a record says why: a code, or a reason"
    )
    events = frozenset({"begin_denied", "token_denied", "delegation_denied", "request_refused"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._codes: Counter[str] = Counter()

    def read(self, seen: Seen) -> None:
        code = seen.fields.get("code")
        name = code if isinstance(code, str) else seen.event
        name = name[:_CODE_MAX]
        self._codes[name if name in self._codes or len(self._codes) < CONTROL_NAMES else _OTHERS] += 1
        self.judge(any(isinstance(each, str) and each.strip() for each in (code, seen.fields.get("reason"))), seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return dict(sorted(self._codes.items()))
