"""Hot statements: compiled once by SQLAlchemy, then executed as text on the driver.

SQLAlchemy's own execution of a read of 50 rows costs more than the driver's; the statements that
carry the load skip it. Values come back as the driver gives them: SQLite has no times, so
:func:`as_moment` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.sql.compiler import SQLCompiler


@dataclass(frozen=True, slots=True)
class Compiled:
    """A statement as a driver takes it; ``names`` are its parameters in the order of the text."""

    text: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]

    def values(self, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values to execute it with."""
        constants = self.constants
        return tuple(
            parameters[name] if name in parameters else constants[name] for name in self.names
        )


class HotStatement:
    """A SELECT with named parameters, for any dialect that it meets."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> Compiled:
        """The statement for ``dialect``; compiled at the first call."""
        ready = self._compiled.get(dialect.name)
        if ready is None:
            made = self._statement.compile(
                dialect=dialect, compile_kwargs={"render_postcompile": True}
            )
            assert isinstance(made, SQLCompiler)  # noqa: S101  a SELECT compiles to nothing else
            ready = Compiled(made.string, tuple(made.positiontup or ()), made.params)
            self._compiled[dialect.name] = ready
        return ready

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Execute with ``parameters``; the rows of the driver."""
        ready = self.compiled(connection.dialect)
        return connection.exec_driver_sql(ready.text, ready.values(parameters)).all()


def as_moment(value: datetime | str | None) -> datetime | None:
    """A time as the driver gave it, as a datetime."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
