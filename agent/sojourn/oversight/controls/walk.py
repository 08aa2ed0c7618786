"""The walk of the control map along a journal, wherever its records come from: an agent, or an export."""

from collections.abc import Mapping, Sequence
from typing import Any

from sojourn.audit.journal import Record
from sojourn.errors import InvalidInput
from sojourn.evidence.decisions import fields_of
from sojourn.oversight.controls.exported_types import ExportedTypes
from sojourn.oversight.controls.fold import ControlFold
from sojourn.oversight.controls.frameworks import Framework
from sojourn.oversight.controls.query import Journal, Replayed
from sojourn.oversight.controls.verdicts import counted, judged, needed


class ControlWalk:
    """Hears of each record, and says in the end what that makes of the rows."""

    def __init__(self, frameworks: Sequence[Framework]) -> None:
        self._frameworks = frameworks
        self._fold = ControlFold(needed(frameworks))

    def read(self, record: Record) -> Mapping[str, Any] | None:
        """Look at the next record. Return its fields if they were parsed for that."""
        fields = None
        if self._fold.wants(record.event):
            try:
                fields = fields_of(record)
            except (ValueError, RecursionError, InvalidInput):
                self._fold.unreadable()
        self._fold.read(record.seq, record.at_ms, record.event, fields)
        return fields

    def summary(self, journal: Journal, replayed: Replayed, types: ExportedTypes) -> dict[str, Any]:
        """All of it, as JSON has it."""
        fold = self._fold
        journal = fold.seen_whole(journal)
        answers = fold.answers(journal, replayed, types)
        found = list(judged(self._frameworks, answers, journal))
        tasks = fold.tasks
        return {
            "records": fold.count,
            "first_seq": fold.first_seq or None,
            "last_seq": fold.last_seq or None,
            "unread": fold.unread,
            "journal": {
                "looked_at": journal.looked_at,
                "whole": journal.whole if journal.looked_at else None,
                "first_bad_seq": journal.first_bad_seq or None,
            },
            "tasks_begun_before": len(tasks.begun_before) + tasks.begun_before_more,
            "tasks_not_kept": tasks.not_kept,
            "verdicts": counted(found),
            "frameworks": found,
        }
