"""Hot reads: single SELECT statements on the primary or the replica.

On MySQL they run on the event loop (:mod:`app.db.pool`); SQLite has no such driver, so there the
same statements run in the threads of :class:`app.db.engines.Database`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import Engine

from app.db import engines
from app.db.engines import Database
from app.db.hot import HotStatement
from app.db.pool import Pool

READ_SECONDS: Final = 5.0


class Source(Protocol):
    """One server to read from."""

    async def rows(
        self,
        statement: HotStatement,
        parameters: Mapping[str, Any],
        *,
        seconds: float = READ_SECONDS,
    ) -> Sequence[Any]:
        """The rows of ``statement`` as the driver gives them.

        Raises :class:`app.db.engines.Unavailable` when the server cannot serve or does not answer
        within ``seconds``.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class LoopSource:
    """A MySQL server, read on the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._dialect = engine.dialect
        self._pool = Pool(engine.url.render_as_string(hide_password=False), engine.dialect)

    async def rows(
        self,
        statement: HotStatement,
        parameters: Mapping[str, Any],
        *,
        seconds: float = READ_SECONDS,
    ) -> Sequence[Any]:
        """See :class:`Source`."""
        ready = statement.compiled(self._dialect)
        return await self._pool.rows(ready.text, ready.values(parameters), seconds=seconds)

    def close(self) -> None:
        """See :class:`Source`."""
        self._pool.close()


class ThreadSource:
    """An SQLite file, read in a thread. A local file answers or fails: it needs no time limit."""

    def __init__(self, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def rows(
        self,
        statement: HotStatement,
        parameters: Mapping[str, Any],
        *,
        seconds: float = READ_SECONDS,
    ) -> Sequence[Any]:
        """See :class:`Source`."""
        return await self._database.run(self._rows, statement, parameters)

    def _rows(self, statement: HotStatement, parameters: Mapping[str, Any]) -> Sequence[Any]:
        with engines.read_transaction(self._engine) as connection:
            return statement.rows(connection, parameters)

    def close(self) -> None:
        """See :class:`Source`; the engine belongs to the database."""


class Reads:
    """Where hot reads go. Made and used on one event loop."""

    def __init__(self, database: Database) -> None:
        self.primary = _source(database, database.primary)
        self.replica = _source(database, database.replica) if database.replica is not None else None

    def close(self) -> None:
        """Close the connections of both."""
        self.primary.close()
        if self.replica is not None:
            self.replica.close()


def _source(database: Database, engine: Engine) -> Source:
    if engine.dialect.name == "mysql":
        return LoopSource(engine)
    return ThreadSource(database, engine)
