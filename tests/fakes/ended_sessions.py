"""The store of people's sessions that have ended, in memory."""

from collections.abc import Sequence

from sojourn.audit.journal import Event
from sojourn.errors import SojournError
from sojourn.people.ended_sessions import Ended, KeptEnds
from sojourn.runtime.forgotten_times import Forgotten

KEY = b"k" * 32


class FakeEndedStore:
    """Keeps what has ended in a dictionary. `failure` is raised in the place of a write."""

    def __init__(self, after: int = -1) -> None:
        self.rows: dict[str, Ended] = {}
        self.forgotten = Forgotten()
        self.after = after
        self.events: list[Event] = []
        self.failure: SojournError | None = None

    def load(self) -> KeptEnds:
        return KeptEnds(list(self.rows.values()), self.forgotten, self.after)

    async def put(
        self, ended: Sequence[Ended], dropped: Sequence[str], forgotten: Forgotten, events: Sequence[Event]
    ) -> None:
        if self.failure is not None:
            raise self.failure
        for digest in dropped:
            self.rows.pop(digest, None)
        self.rows.update({each.digest: each for each in ended})
        self.forgotten = forgotten
        self.events += events
