"""A record of each event of the journal, with fields as the agent records them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sojourn.audit.journal import FIRST, Event, Record, digest_of
from sojourn.jose.canonical_json import canonical

FILE = Path(__file__).parents[1] / "recorded" / "journal.ndjson"
AT_MS = 1_893_456_000_000


def recorded() -> dict[str, dict[str, Any]]:
    """The fields of each event."""
    found = map(json.loads, FILE.read_text("utf-8").splitlines())
    return {each["event"]: each["fields"] for each in found}


def record(event: str, fields: object, seq: int = 1, before: str = FIRST) -> Record:
    """One that follows on this digest."""
    made = Event(AT_MS + seq, event, fields if isinstance(fields, str) else canonical(fields))
    return Record(seq, made.at_ms, event, made.fields, digest_of(before, seq, made))


def records() -> Iterator[Record]:
    """One of each event, each following on the one before it."""
    before = FIRST
    for seq, (event, fields) in enumerate(recorded().items(), 1):
        made = record(event, fields, seq, before)
        before = made.digest
        yield made
