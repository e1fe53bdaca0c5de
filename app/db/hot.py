"""Hot statements: compiled once by SQLAlchemy, then executed as text on the driver.

SQLAlchemy's own execution of a read of 50 rows costs more than the driver's; the statements that
carry the load skip it. Values come back as the driver gives them: SQLite has no times, so
:func:`as_moment` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.sql.compiler import SQLCompiler


class HotStatement:
    """A SELECT with named parameters, for any dialect that it meets."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        # by dialect: the text, the names of its parameters in order, the values of its constants
        self._compiled: dict[str, tuple[str, list[str], Mapping[str, Any]]] = {}

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Execute with ``parameters``; the rows of the driver."""
        dialect = connection.dialect
        ready = self._compiled.get(dialect.name)
        if ready is None:
            compiled = self._statement.compile(
                dialect=dialect, compile_kwargs={"render_postcompile": True}
            )
            assert isinstance(compiled, SQLCompiler)  # noqa: S101  a SELECT compiles to nothing else
            ready = (compiled.string, list(compiled.positiontup or ()), compiled.params)
            self._compiled[dialect.name] = ready
        text, names, constants = ready
        values = tuple(
            parameters[name] if name in parameters else constants[name] for name in names
        )
        return connection.exec_driver_sql(text, values).all()


def as_moment(value: datetime | str | None) -> datetime | None:
    """A time as the driver gave it, as a datetime."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
