"""prepared_statements.py: statements that are run on the driver's cursor are what SQLAlchemy would have run. Real SQLite."""

import sqlite3

import pytest
from sojourn.errors import StoreFailed
from sojourn.store import tables
from sojourn.store.prepared_statements import Prepared
from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

INSERT = Prepared(tables.settings.insert(), ("name", "value"))
VALUE = Prepared(select(tables.settings.c.value).where(tables.settings.c.name == bindparam("named")))
RENAME = Prepared(
    tables.settings.update().where(tables.settings.c.name == bindparam("named")).values(name=bindparam("other"))
)


async def value(database, name):
    return await database.read(lambda connection: VALUE.run(connection, {"named": name}).fetchone())


class TestPrepared:
    async def test_runs_with_its_parameters(self, database):
        """Parameters go where they belong, in whatever order they are given."""
        await database.write(lambda connection: INSERT.run(connection, {"value": "x'); --", "name": "a"}).rowcount)
        assert ("x'); --",) == await value(database, "a")

    async def test_runs_for_each_row(self, database):
        """Every row that is given is put."""
        rows = [{"name": f"n{number}", "value": str(number)} for number in range(3)]
        await database.write(lambda connection: INSERT.run_for_each(connection, rows))
        assert [("0",), ("1",), ("2",)] == [await value(database, f"n{number}") for number in range(3)]

    async def test_says_how_many_rows_it_changed(self, database):
        """An update of nothing changes none."""
        assert 0 == await database.write(
            lambda connection: RENAME.run(connection, {"named": "none", "other": "some"}).rowcount
        )

    async def test_is_undone_with_the_write(self, database):
        """A prepared statement is part of the transaction: what fails after it takes it back."""

        def work(connection):
            INSERT.run(connection, {"name": "half", "value": "done"})
            raise StoreFailed("no")

        with pytest.raises(StoreFailed, match="no"):
            await database.write(work)
        assert await value(database, "half") is None

    @pytest.mark.parametrize("several", [False, True])
    async def test_errors_are_of_one_kind(self, database, several):
        """What the driver raises comes as SQLAlchemy's error, without the values."""
        found = []

        def work(connection):
            row = {"name": "twice", "value": "secret"}
            try:
                if several:
                    INSERT.run_for_each(connection, [row, row])
                else:
                    INSERT.run(connection, row)
                    INSERT.run(connection, row)
            except DBAPIError as error:
                found.append(error)

        await database.write(work)
        assert isinstance(found[0].orig, sqlite3.IntegrityError)
        assert "secret" not in str(found[0])

    def test_is_written_for_each_database(self):
        """For a driver that takes parameters by name, the same statement has names."""
        statement = Prepared(tables.settings.insert(), ("name", "value"))
        statement._compile(postgresql.dialect())
        assert "%(name)s" in statement._text
        assert {"name": "a", "value": "b"} == statement._bound({"name": "a", "value": "b"})
