"""Migrations: the schema that is migrated to is the one that the code expects, and nothing else is touched."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fakes.databases import opened
from sojourn.errors import CannotStart
from sojourn.store import schema_upgrade, tables
from sqlalchemy import create_engine


def by_hand(path, *statements):
    """Run SQL past the store."""
    path.touch(0o600)
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_constant_is_the_newest_migration():
    """The schema that the code names is the head of the migrations, of which there is one."""
    config = Config()
    folder = schema_upgrade.__file__.replace("schema_upgrade.py", "migrations")
    config.set_main_option("script_location", folder)
    assert [tables.SCHEMA] == ScriptDirectory.from_config(config).get_heads()


def migrated(path):
    """A database that the migrations alone have made, from the first to the newest."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        schema_upgrade.upgrade(connection)
    return engine


def schema(path):
    """Tables, columns with type and key, and indexes, as SQLite has them; the order of columns is nobody's business."""
    connection = sqlite3.connect(path)
    names = connection.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall()
    columns = {
        name: sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({name})"))
        for kind, name, _ in names
        if kind == "table"
    }
    indexes = {
        name: (table, [row[2] for row in connection.execute(f"PRAGMA index_info({name})")])
        for kind, name, table in names
        if kind == "index"
    }
    unique = {row[1] for _, _, table in names for row in connection.execute(f"PRAGMA index_list({table})") if row[2]}
    connection.close()
    return columns, indexes, unique


def test_migrations_make_the_tables(path):
    """Migrations lead to the tables that the code uses: Alembic finds no difference."""
    engine = migrated(path)
    with engine.connect() as connection:
        found = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True}),
            tables.metadata,
        )
    engine.dispose()
    assert [] == found


def test_a_new_database_is_as_the_migrations_make_it(path, tmp_path):
    """A new database, which is made without them, has the schema that migrations lead to, and its version."""
    with opened(path):
        pass
    migrated(tmp_path / "migrated.db").dispose()
    assert schema(tmp_path / "migrated.db") == schema(path)


def test_a_new_database_needs_no_alembic(path):
    """Neither a new database nor one that is up to date has Alembic imported."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom sojourn.store.database import open_sqlite\n"
        f"for _ in range(2):\n    open_sqlite(Path({str(path)!r})).close()\nprint('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "False" == done.stdout.strip()


def test_opening_again_changes_nothing(path):
    """A database that is up to date is not migrated again."""
    for _ in range(2):
        with opened(path):
            pass
    connection = sqlite3.connect(path)
    assert [(tables.SCHEMA,)] == connection.execute("SELECT version_num FROM alembic_version").fetchall()
    connection.close()


def test_a_newer_schema_is_refused(path):
    """A database of a newer release is refused, named as such, and left alone."""
    with opened(path):
        pass
    by_hand(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CannotStart, match="newer"), opened(path):
        pass
    connection = sqlite3.connect(path)
    assert [("9999",)] == connection.execute("SELECT version_num FROM alembic_version").fetchall()
    connection.close()


def test_foreign_tables_are_refused(path):
    """A database that belongs to another program is refused, and nothing is added to it."""
    by_hand(path, "CREATE TABLE recipes (name TEXT)")
    with pytest.raises(CannotStart, match="not Sojourn's"), opened(path):
        pass
    connection = sqlite3.connect(path)
    assert [("recipes",)] == connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()


def test_a_table_that_is_missing_is_noticed(path):
    """A database whose version is right and whose tables are not is refused."""
    with opened(path):
        pass
    by_hand(path, "DROP TABLE settings")
    with pytest.raises(CannotStart), opened(path):
        pass


def test_what_is_refused_is_closed(path):
    """A database that is refused is not kept open."""
    with opened(path):
        pass
    by_hand(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CannotStart), opened(path):
        pass
    held = {os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}
    assert set() == {each for each in held if each.startswith(str(path))}


@pytest.mark.parametrize("version", ["", "base", "0000"])
def test_an_unknown_older_version_is_refused(path, version):
    """A version that no release wrote is refused, not guessed at."""
    with opened(path):
        pass
    by_hand(path, f"UPDATE alembic_version SET version_num = '{version}'")
    with pytest.raises(CannotStart), opened(path):
        pass
