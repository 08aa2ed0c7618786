"""Statements of the hot paths: compiled once, and run on the driver's own cursor.

SQLAlchemy writes them, for whatever database it is. To have it run them too takes ten times as long as the database
does, in a thread that takes the interpreter from all others meanwhile.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement


class Prepared:
    """One statement, whose parameters are texts and whole numbers."""

    def __init__(self, statement: ClauseElement, names: Sequence[str] = ()) -> None:
        """`names`: of the columns that an INSERT puts."""
        self._statement = statement
        self._names = list(names)
        self._of: Dialect | None = None  # whose language the text is in
        self._text = ""
        self._order: Sequence[str] | None = None  # of the parameters; None: the driver takes them by name

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:
        """Run it and return the driver's cursor. Raise DBAPIError."""
        self._compile(connection.dialect)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._text, self._bound(parameters))
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(self._text, None, error, hide_parameters=True) from error
        return cursor

    def run_for_each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each of these. Raise DBAPIError."""
        self._compile(connection.dialect)
        try:
            connection.connection.cursor().executemany(self._text, [self._bound(row) for row in rows])
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(self._text, None, error, hide_parameters=True) from error

    def _bound(self, parameters: Mapping[str, Any]) -> Any:
        if self._order is None:
            return parameters
        return [parameters[name] for name in self._order]

    def _compile(self, dialect: Dialect) -> None:
        if self._of is dialect:
            return
        compiled = self._statement.compile(dialect=dialect, column_keys=self._names or None)
        assert isinstance(compiled, SQLCompiler)
        self._text, self._order = str(compiled), compiled.positiontup
        self._of = dialect
