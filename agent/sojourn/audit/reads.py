"""Reads of the journal, which are recorded in it: who, what they looked for, and how many records they were given.

The first read is recorded at once. Others of the same operator with the same filter are counted for READS_SECONDS, and
recorded together then: whoever looks every second does not fill the journal by looking.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sojourn.audit.journal import Audit
from sojourn.jose.canonical_json import canonical
from sojourn.operating_limits import READS_SECONDS, READS_TOLD
from sojourn.runtime.clock import Alarms

_TIMES = ("since_ms", "until_ms", "after_seq")  # which move on with each look of the same kind


@dataclass(slots=True)
class _Later:
    """What was read in this while, beside what is recorded already."""

    by: Mapping[str, Any]
    wanted: Mapping[str, Any]
    reads: int = 0
    records: int = 0


class JournalReads:
    """Records reads."""

    def __init__(self, audit: Audit, alarms: Alarms) -> None:
        self._audit = audit
        self._alarms = alarms
        self._later: dict[tuple[Any, str], _Later] = {}
        self._told: dict[Any, int] = {}  # by uid: how many filters are counted just now

    def tell(self, by: Mapping[str, Any], wanted: Mapping[str, Any], count: int) -> None:
        """Record that an operator was given so many records. `by`: as other records of operators say it. `wanted`: what
        was looked for, without what leaves none out.
        """
        uid = by.get("by_uid")
        lasting = {name: value for name, value in wanted.items() if name not in _TIMES}
        key = (uid, canonical(lasting))
        if key not in self._later and self._told.get(uid, 0) >= READS_TOLD:
            wanted = lasting = {"others": True}
            key = (uid, canonical(lasting))
        if (later := self._later.get(key)) is not None:
            later.reads, later.records, later.wanted = later.reads + 1, later.records + count, wanted
            return
        self._later[key] = later = _Later(by, wanted, 1, count)
        self._told[uid] = self._told.get(uid, 0) + 1
        self._note(later)
        self._alarms.after(READS_SECONDS, self._settle, key)

    def finish(self) -> None:
        """Record what was read and is not recorded yet."""
        for later in self._later.values():
            self._note(later)
        self._later.clear()

    def _settle(self, key: tuple[Any, str]) -> None:
        """Record what was read in the time that is over. If there was something, the next time begins at once."""
        if (later := self._later.get(key)) is None:
            return
        if later.reads:
            self._note(later)
            self._alarms.after(READS_SECONDS, self._settle, key)
            return
        del self._later[key]
        self._told[key[0]] -= 1
        if not self._told[key[0]]:
            del self._told[key[0]]

    def _note(self, later: _Later) -> None:
        if later.reads:
            self._audit.note(
                "journal_read", wanted=dict(later.wanted), count=later.records, reads=later.reads, **later.by
            )
            later.reads = later.records = 0
