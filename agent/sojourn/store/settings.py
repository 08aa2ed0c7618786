"""Named values that outlive the agent."""

from sqlalchemy import Connection, select

from sojourn.store.database import Database
from sojourn.store.tables import settings


async def next_epoch(database: Database) -> int:
    """Count this start of the agent and return its number, which no earlier start had."""

    def work(connection: Connection) -> int:
        stored = connection.execute(select(settings.c.value).where(settings.c.name == "epoch")).scalar()
        epoch = int(stored or 0) + 1
        if stored is None:
            connection.execute(settings.insert().values(name="epoch", value=str(epoch)))
        else:
            connection.execute(settings.update().where(settings.c.name == "epoch").values(value=str(epoch)))
        return epoch

    return await database.write(work)
