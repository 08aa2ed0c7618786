"""Which releases can go on with a database, and the copies that are made before it is migrated."""

import ast
import os
import sqlite3
from pathlib import Path

import pytest
from fakes.databases import opened
from harness.nextrelease import _MIGRATION, NEXT
from harness.trees import parsed
from sojourn.errors import CannotStart
from sojourn.store import schema_upgrade, snapshot, tables
from sojourn.store.schema_upgrade import COPIES, copies

VERSIONS = Path(schema_upgrade.__file__).parent / "migrations" / "versions"
BEFORE = tables.SCHEMA  # of this release, which a test may have stand for an older one
ADDING = {"create_table", "create_index", "add_column", "execute"}
# Not unique, and named by no statement: without one an older release is slower, and no answer is another.
INDEXES_GONE = {"op.drop_index('audit_by_event', table_name='audit')"}


def by_hand(path, *statements):
    """Run SQL past the store."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def made(path):
    """A database of this release."""
    with opened(path):
        pass


def taking(source):
    """What a migration does that is more than adding."""
    found = []
    for node in ast.walk(parsed(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "op"):
            continue
        name, options = node.func.attr, {each.arg: ast.unparse(each.value) for each in node.keywords}
        column = ast.unparse(node)
        needed = name == "add_column" and "nullable=False" in column and "server_default" not in column
        statement = ast.unparse(node.args[0]) if name == "execute" else ""
        changed = name == "execute" and not statement.strip("'\"f").upper().startswith("INSERT INTO")
        if column in INDEXES_GONE:
            continue
        if name not in ADDING or options.get("unique") == "True" or needed or changed:
            found.append(column)
    return found


class TestReadable:
    def test_migrations_since_then_only_add(self):
        """Each migration behind the oldest schema whose releases can go on adds, and takes or changes nothing."""
        since = [each for each in VERSIONS.glob("*.py") if each.name[:4] > tables.READABLE_BY]
        assert {} == {each.name: found for each in since if (found := taking(each.read_text()))}
        assert tables.READABLE_BY <= tables.SCHEMA

    @pytest.mark.parametrize(
        "statement",
        [
            "op.drop_table('tasks')",
            "op.drop_column('tasks', 'state')",
            "op.alter_column('tasks', 'state', nullable=True)",
            "op.add_column('tasks', sa.Column('more', sa.Text, nullable=False))",
            "op.create_index('one', 'tasks', ['state'], unique=True)",
            "op.execute('UPDATE tasks SET state = 1')",
            "op.rename_table('tasks', 'works')",
        ],
    )
    def test_one_that_takes_is_found(self, statement):
        """This test finds a migration that does more than add."""
        assert taking(statement)

    @pytest.mark.parametrize(
        "statement", ["op.add_column('tasks', sa.Column('more', sa.Text))", _MIGRATION, "op.create_table('more')"]
    )
    def test_one_that_adds_is_not(self, statement):
        """This test lets a migration add tables, columns that may be left out, and indexes."""
        assert [] == taking(statement)

    def test_a_new_database_says_it(self, path):
        """A new database says from which schema on releases can go on with it."""
        made(path)
        found = snapshot.state(path)
        assert (tables.SCHEMA, tables.READABLE_BY) == (found.schema, found.readable_by)

    def test_an_added_to_one_is_opened(self, path):
        """A database of a newer release that has only added to it is opened, and stays of that release."""
        made(path)
        by_hand(
            path,
            "CREATE TABLE next_things (id TEXT PRIMARY KEY)",
            f"UPDATE alembic_version SET version_num = '{NEXT}'",
            f"UPDATE settings SET value = '{NEXT} {tables.SCHEMA}' WHERE name = 'readable_by'",
        )
        made(path)
        assert NEXT == snapshot.state(path).schema

    @pytest.mark.parametrize("said", [NEXT, f"{NEXT} {NEXT}", "9999 0001", f"{NEXT} ", f"{NEXT} x", "", " "])
    def test_another_is_not(self, path, said):
        """A database of a newer release is refused unless it says of its own schema that this release can go on."""
        made(path)
        by_hand(
            path,
            f"UPDATE alembic_version SET version_num = '{NEXT}'",
            f"UPDATE settings SET value = '{said}' WHERE name = 'readable_by'",
        )
        with pytest.raises(CannotStart, match="written by a newer Sojourn"):
            made(path)


class TestCopies:
    @pytest.fixture
    def older(self, path, monkeypatch):
        """A database of this release, for a release that has a migration more."""
        made(path)
        monkeypatch.setattr(tables, "SCHEMA", NEXT)
        done = []

        def upgrade(connection):
            done.append(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{NEXT}'")

        monkeypatch.setattr(schema_upgrade, "upgrade", upgrade)
        return done

    def test_one_is_made(self, path, older):
        """The copy before a migration is of the schema before it, whole, and only its owner's."""
        made(path)
        [copy] = copies(path.parent)
        assert [BEFORE] == older
        assert (BEFORE, NEXT) == (snapshot.state(copy, whole=True).schema, snapshot.state(path).schema)
        assert 0o600 == copy.stat().st_mode & 0o777
        assert [copy.name] == os.listdir(path.parent / COPIES)

    def test_none_without_a_migration(self, path):
        """A new database, and one that is up to date, are not copied."""
        made(path)
        made(path)
        assert not (path.parent / COPIES).exists()

    def test_three_stay(self, path, older):
        """Of the copies the three newest stay."""
        folder = path.parent / COPIES
        folder.mkdir(mode=0o700)
        for number in range(5):
            (folder / f"pre-0.0.{number}.db").write_text("")
            os.utime(folder / f"pre-0.0.{number}.db", (number, number))
        made(path)
        assert 3 == len(copies(path.parent))
        assert {"pre-0.0.3.db", "pre-0.0.4.db"} < {each.name for each in copies(path.parent)}

    def test_what_a_crash_has_left_is_removed(self, path, older):
        """A copy that was broken off gives way to the next."""
        folder = path.parent / COPIES
        folder.mkdir(mode=0o700)
        (folder / ".copy.db").write_text("half")
        made(path)
        assert [each.name for each in copies(path.parent)] == os.listdir(folder)

    def test_the_way_back_is_said(self, path, older, monkeypatch):
        """A release that cannot go on says by which command its own database is there again."""
        made(path)
        by_hand(path, f"UPDATE settings SET value = '{NEXT} {NEXT}' WHERE name = 'readable_by'")
        monkeypatch.setattr(tables, "SCHEMA", BEFORE)
        [copy] = copies(path.parent)
        with pytest.raises(CannotStart) as refused:
            made(path)
        assert f"sojourn restore {copy} --data-dir {path.parent} --accept-loss" in refused.value.public
