"""Looks at each record that is made in a test: that what it names is searched for, and that refusals count as such."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sojourn.audit.events import DENIALS, EVENTS
from sojourn.audit.journal import Audit, Event
from sojourn.audit.searchable import CALLERS, FIELDS

# Fields that name a workload, a person or who it was, and are found by another field of the same record, or by none.
NOT_SEARCHED = {
    "by_pid": "of no use when the process is gone",
    "by_role": "beside who it was",
    "by_token": "the ID of a token",
    "parent": "a task's ID: those are found wherever they stand",
    "task": "the same",
    "resource": "what a task has to do with, and not whom it is",
    "audience": "the same",
    "presented": "a token's own text",
}
_NAMES = ("spiffe://", "psn_")


def faults_of(event: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """The fields that name somebody and are in no table."""
    for name, value in fields.items():
        if name in FIELDS or name in CALLERS or name in NOT_SEARCHED:
            continue
        texts = value if isinstance(value, list | tuple) else [value]
        if name.startswith("by_") or any(isinstance(each, str) and each.startswith(_NAMES) for each in texts):
            yield f"{name} of {event} is not searched: {value!r:.80}"


@contextmanager
def watching() -> Iterator[list[str]]:
    """Have all that is wrong said in this list, while it lasts."""
    faults: list[str] = []
    make, deny = Audit.event, Audit.denied

    def event(self: Audit, name: str, fields: Mapping[str, Any]) -> Event:
        faults.extend(faults_of(name, fields))
        return make(self, name, fields)

    def denied(self: Audit, name: str, who: int | str, **fields: Any) -> None:
        if name in EVENTS and name not in DENIALS:
            faults.append(f"{name} is a refusal")
        deny(self, name, who, **fields)

    Audit.event, Audit.denied = event, denied  # type: ignore[method-assign]
    try:
        yield faults
    finally:
        Audit.event, Audit.denied = make, deny  # type: ignore[method-assign]
