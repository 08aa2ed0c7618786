"""Named values that outlive the agent."""

from sqlalchemy import Connection, bindparam, select

from sojourn.store.database import Database
from sojourn.store.prepared import Prepared
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


async def next_epoch(database: Database) -> int:
    """Count this start of the agent and return its number, which no earlier start had."""

    def work(connection: Connection) -> int:
        epoch = int(get(connection, "epoch") or 0) + 1
        put(connection, "epoch", str(epoch))
        return epoch

    return await database.write(work)
