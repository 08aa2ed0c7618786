"""Whose database it is: an agent's, or a server's. What one has kept means something else to the other."""

from sqlalchemy import Connection

from sojourn.errors import CannotStart
from sojourn.store import settings
from sojourn.store.database import Database

_ROLE, _SERVER = "role", "server"


def check_role(database: Database, *, server: bool, used: bool) -> None:
    """Raise CannotStart if the database is that of the other. `used`: there are keys of an earlier run."""
    found = database.read_now("role", lambda connection: settings.get(connection, _ROLE))
    if found == _SERVER and not server:
        raise CannotStart("the data folder is a server's: run `sojourn server run`, or give another --data-dir")
    if server and used and found != _SERVER:
        raise CannotStart(
            "the data folder is an agent's, whose entries are for itself, and not for nodes: give another --data-dir"
        )


async def put_server(database: Database) -> None:
    """Have it known that this is a server's."""

    def work(connection: Connection) -> None:
        settings.put(connection, _ROLE, _SERVER)

    await database.write(work)
