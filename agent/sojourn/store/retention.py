"""Which records of the journal may not be pruned, whatever its size."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from sojourn.store.audit_pages import before_time_in
from sojourn.store.tables import audit_sinks


@dataclass(frozen=True, slots=True)
class Retention:
    """`keep_ms`: nothing goes that is younger, in milliseconds; 0: that holds nothing. `required`: names of sinks of
    which nothing goes that they have not had.
    """

    keep_ms: int = 0
    required: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return bool(self.keep_ms or self.required)

    def until(self, connection: Connection, now_ms: int, head: int) -> int:
        """The last record that may go; `head` if none is held. A sink that has no place yet holds all."""
        last = head
        if self.required:
            rows = connection.execute(select(audit_sinks).where(audit_sinks.c.name.in_(self.required)))
            places = {row.name: int(row.seq) for row in rows}
            last = min(last, *(places.get(name, 0) for name in self.required))
        if self.keep_ms:
            last = min(last, before_time_in(connection, self.oldest(now_ms)))
        return last

    def oldest(self, now_ms: int) -> int:
        """From when on records are kept for their age, milliseconds since the epoch."""
        return now_ms - self.keep_ms
