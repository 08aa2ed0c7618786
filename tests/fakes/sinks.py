"""A receiver within the test's process that does as it is told, and sinks over a real journal that send to it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes.signed_journals import SignedJournal
from sojourn.audit.journal import Record
from sojourn.sinks.items import Item, SinkState, Wanted
from sojourn.sinks.sender import Taken
from sojourn.sinks.sink import About, Sink
from sojourn.store.sinks import SinkTable

Deed = Callable[[Sequence[Item]], Taken | None]


@dataclass
class FakeReceiver:
    """Keeps what it takes. `deed`: what it does first with a batch; it raises, or returns what it says of it."""

    deed: Deed = lambda _items: None
    batches: list[list[Item]] = field(default_factory=list)
    asked: int = 0

    async def send(self, items: Sequence[Item]) -> Taken:
        self.asked += 1
        said = self.deed(items)
        self.batches.append(list(items))
        return said or Taken()

    async def close(self) -> None:
        """Nothing is kept."""

    @property
    def items(self) -> list[Item]:
        return [item for batch in self.batches for item in batch]

    @property
    def seqs(self) -> list[int]:
        """Of records."""
        return [item.seq for item in self.items if item.kind == "record"]

    def notices(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(item.line) for item in self.items if item.kind == kind]


def items(first: int, number: int = 1, size: int = 0) -> list[Item]:
    """Records from this number on, each with so long a text."""
    fields = '{"text":"' + "x" * size + '"}'
    return [Item.of_record(Record(each, 1, "task_begun", fields, "0" * 64)) for each in range(first, first + number)]


def table_of(here: SignedJournal) -> SinkTable:
    return SinkTable(here.database, here.journal.append_in)


def sink_of(
    here: SignedJournal, receiver: FakeReceiver, seq: int = 0, wanted: Wanted | None = None, name: str = "siem"
) -> Sink:
    """A sink that begins behind this record, or where it was left."""
    table = table_of(here)
    state = table.load().get(name) or SinkState(name, seq)
    about = About(name, "https", "siem.example.org")
    signed = here.signed
    return Sink(
        about, wanted or Wanted(), receiver, state, table, lambda: signed.state, here.audit, here.clock, lambda: 0
    )


async def drain(sink: Sink, most: int = 10_000) -> None:
    """Send all that there is; what is raised comes out."""
    for _ in range(most):
        if not await sink.step():
            return
    raise AssertionError("the sink does not come to an end")
