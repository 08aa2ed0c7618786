"""Where the kill switch keeps what is off: a disk that takes it, or fails."""

from collections.abc import Sequence

from sojourn.audit.journal import Event
from sojourn.tasks.blocks import Block


class KeptBlocks:
    """`failure`: is raised at each write."""

    def __init__(self) -> None:
        self.kept: list[Block] = []
        self.events: list[str] = []
        self.failure: Exception | None = None
        self.writes = 0

    async def save(self, values: Sequence[Block], events: Sequence[Event]) -> None:
        if self.failure is not None:
            raise self.failure
        self.kept, self.writes = list(values), self.writes + 1
        self.events += [each.event for each in events]
