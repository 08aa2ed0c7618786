"""The last good set of task types, as one value in the database."""

from sqlalchemy import Connection

from sojourn.store import settings
from sojourn.store.database import Database

NAME = "task_types"


class KeptPolicy:
    """What `tasks/last_good_types.py` keeps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> str | None:
        """Read in the calling thread: for the start."""

        def work(connection: Connection) -> str | None:
            return settings.get(connection, NAME)

        return self._database.read_now("last good set of task types", work)

    async def save(self, text: str) -> None:
        def work(connection: Connection) -> None:
            settings.put(connection, NAME, text)

        await self._database.write(work)
