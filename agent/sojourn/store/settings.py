"""Named values that outlive the agent."""

from sqlalchemy import Connection, bindparam, select

from sojourn.store.database import Database
from sojourn.store.prepared_statements import Prepared
from sojourn.store.tables import settings

_GET = select(settings.c.value).where(settings.c.name == bindparam("named"))
_SET = Prepared(settings.update().where(settings.c.name == bindparam("named")).values(value=bindparam("text")))


def get(connection: Connection, name: str) -> str | None:
    """A value; None: it was never put."""
    found: str | None = connection.execute(_GET, {"named": name}).scalar()
    return found


def put(connection: Connection, name: str, value: str) -> None:
    """Put a value in the place of the one before."""
    if _SET.run(connection, {"named": name, "text": value}).rowcount == 0:
        connection.execute(settings.insert().values(name=name, value=value))


async def next_epoch(database: Database, known: int = 0) -> tuple[int, int]:
    """Count this start of the agent. Return its number, which is above `known` and above all that the database has
    counted, and the last of those, or 0.
    """

    def work(connection: Connection) -> tuple[int, int]:
        before = int(get(connection, "epoch") or 0)
        epoch = max(before, known) + 1
        put(connection, "epoch", str(epoch))
        return epoch, before

    return await database.write(work)
