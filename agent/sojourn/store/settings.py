"""Named values that outlive the agent."""

from sqlalchemy import Connection, bindparam, select

from sojourn.store.prepared_statements import Prepared
from sojourn.store.tables import settings

AUDIT_HEAD = "audit_head"  # the last record of the journal: its seq and its digest
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
