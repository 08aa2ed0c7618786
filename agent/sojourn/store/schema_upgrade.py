"""Bringing a database's schema up to date, and whether a release can work on one of a newer release.

Each migration says whether releases before it can go on with what it leaves: it does if it only adds (`READABLE_BY` in
store/tables.py is then left as it is). So a release that was installed in the place of its follower starts on the
follower's database, without what that has added. Before a migration the database is copied beside itself.
"""

import os
import sqlite3
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path

import structlog
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.engine import Engine

from sojourn.errors import CannotStart
from sojourn.files.data_folder import COPIES
from sojourn.limits import COPIES_BEFORE_MIGRATIONS
from sojourn.store import settings, snapshot, tables
from sojourn.store.room import NoRoom

log = structlog.get_logger()
READABLE_BY = "readable_by"  # the setting: a schema, and the oldest one whose releases can work on what has that


def bring_up(engine: Engine, path: Path) -> None:
    """Make the schema of the database at `path` the one that this release works with. Raise CannotStart."""
    found = _schema(engine, path)
    if found is not None and found < tables.SCHEMA:
        _copy(path)
    with engine.begin() as connection:
        if found is None and not inspect(connection).get_table_names():
            tables.create(connection)
        elif found is None or found < tables.SCHEMA:
            upgrade(connection)
        if found is None or found < tables.SCHEMA:
            settings.put(connection, READABLE_BY, f"{tables.SCHEMA} {tables.READABLE_BY}")


def _schema(engine: Engine, path: Path) -> str | None:
    """The schema of a database that this release can work on, or can bring up to date; None: it has none yet."""
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names())
        if "alembic_version" not in names:
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if not (isinstance(found, str) and found.isdecimal()):
            raise CannotStart("the database does not say of which schema it is: restore it from a backup")
        if found < tables.SCHEMA:
            return found
        if found > tables.SCHEMA:
            _check_readable(connection, found, path)
        lost = sorted(tables.metadata.tables.keys() - names)
        if lost:
            raise CannotStart(f"the database has lost its {', '.join(lost)}: restore it from a backup")
        connection.execute(select(tables.settings).limit(1))
        return found


def _check_readable(connection: Connection, found: str, path: Path) -> None:
    """Raise CannotStart unless a newer release has left the database so that this one can go on with it."""
    least = None
    with suppress(Exception):  # that release may have other tables, and then it says so in its own way
        least = snapshot.readable_by(found, settings.get(connection, READABLE_BY))
    if least is not None and least <= tables.SCHEMA:
        log.warning("database_of_newer_release", schema=found, known=tables.SCHEMA, readable_by=least)
        return
    raise CannotStart(
        f"the database was written by a newer Sojourn (schema {found}, this one knows {tables.SCHEMA}): install that"
        f" one again, or {_way_back(path)}"
    )


def _way_back(path: Path) -> str:
    """The command by which this release has its own database again."""
    for each in reversed(copies(path.parent)):
        with suppress(Exception):
            if snapshot.state(each).schema <= tables.SCHEMA:
                return (
                    "go back to what was there before, which loses what came since:"
                    f" sojourn restore {each} --data-dir {path.parent} --accept-loss"
                )
    return "restore a backup of this release with `sojourn restore FILE`"


def copies(folder: Path) -> list[Path]:
    """The copies in a data folder that were made before migrations, the oldest first."""
    return sorted((folder / COPIES).glob("pre-*.db"), key=lambda each: each.stat().st_mtime_ns)


def _copy(path: Path) -> None:
    """Copy the database before it is migrated. Raise OSError and sqlite3.Error: then it is not migrated."""
    folder = path.parent / COPIES
    folder.mkdir(mode=0o700, exist_ok=True)
    made, scratch = folder / f"pre-{installed('sojourn')}.db", folder / ".copy.db"
    for each in folder.glob(".copy.db*"):  # a crash may have left it
        each.unlink()
    try:
        snapshot.copy(path, scratch)
        os.rename(scratch, made)
    except (OSError, sqlite3.Error) as error:
        full = os.statvfs(folder).f_bavail == 0  # before the half copy makes room again
        for each in folder.glob(".copy.db*"):
            each.unlink()
        if full:
            raise NoRoom from error
        raise
    os.utime(made)
    for each in copies(path.parent)[:-COPIES_BEFORE_MIGRATIONS]:
        each.unlink()
    log.info("database_copied", reason="it is about to be migrated", copy=str(made))


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing. Alembic takes long to import: only where there is something to migrate."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
