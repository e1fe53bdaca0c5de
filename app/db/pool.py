"""Connections of asyncmy for reads on the event loop, without a thread.

Only single SELECT statements run here, each in its own implicit transaction: a connection that
breaks costs nothing but a second try on a new one. Statements are prepared once per connection by
the driver. Nothing waits without end: neither for a connection nor for an answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from asyncmy import errors
from asyncmy.connection import Connection
from asyncmy.constants.CLIENT import SSL
from sqlalchemy import Dialect, make_url

from app.db import engines
from app.db.engines import Unavailable

POOL_CONNECTIONS: Final = 16
STATEMENT_CACHE: Final = 64


class Pool:
    """A bounded pool of connections to one server. Made and used on one event loop."""

    def __init__(self, url: str, dialect: Dialect, *, size: int = POOL_CONNECTIONS) -> None:
        self._arguments = _arguments(url, dialect)
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._open = 0
        self._idle: deque[tuple[Connection, float]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def rows(
        self, text: str, values: tuple[Any, ...], *, seconds: float
    ) -> Sequence[tuple[Any, ...]]:
        """Execute one SELECT; gives its rows within ``seconds``.

        Raises :class:`Unavailable` when the server or the way to it fails, and the driver's own
        error when the statement does.
        """
        until = self._loop.time() + seconds
        await self._take_turn(until)
        try:
            while True:
                connection, used_before = await self._connection(until)
                try:
                    rows = await self._execute(connection, text, values, until)
                except (errors.Error, OSError) as error:
                    connection.close()
                    if not engines.is_unavailable(error):
                        raise
                    if used_before and self._loop.time() < until:
                        # the server ended this one while it was idle, and likely all the others
                        self._drop_idle()
                        continue
                    raise Unavailable(engines.reason(error)) from error
                except BaseException:
                    connection.close()  # cancelled in the middle of an answer
                    raise
                self._idle.append((connection, self._loop.time()))
                return rows
        finally:
            self._end_turn()

    def close(self) -> None:
        """Close the idle connections; those in use are closed by their statements' end."""
        self._closed = True
        self._drop_idle()

    # --- turns: at most ``size`` statements at a time, the rest waits in order ------------------

    async def _take_turn(self, until: float) -> None:
        if self._closed:
            raise Unavailable("the pool is closed")
        if self._open < self._size:
            self._open += 1
            return
        if len(self._waiting) >= engines.MAX_WAITING:
            raise Unavailable("too many queries are waiting")
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        timer = self._loop.call_at(until, _give_up, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._end_turn()  # it was given to us in the same moment: pass it on
            raise
        finally:
            timer.cancel()

    def _end_turn(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # our place goes on to the next one
                return
        self._open -= 1

    # --- connections ---------------------------------------------------------------------------

    async def _connection(self, until: float) -> tuple[Connection, bool]:
        """An open connection, and whether it was used before."""
        oldest = self._loop.time() - engines.IDLE_SECONDS
        while self._idle:
            connection, since = self._idle.pop()
            if since > oldest and connection.connected:
                return connection, True
            connection.close()
        return await self._connect(until), False

    async def _connect(self, until: float) -> Connection:
        connection = _new(self._arguments)
        deadline = min(until, self._loop.time() + engines.CONNECT_TIMEOUT_SECONDS)
        try:
            async with asyncio.timeout_at(deadline):
                try:
                    await connection.connect()
                except errors.Error:
                    if self._arguments["ssl"] is not engines.preferred_tls() or _offers_tls(
                        connection
                    ):
                        raise
                    # as the other driver does: TLS when the server has it
                    connection = _new({**self._arguments, "ssl": None})
                    await connection.connect()
        except (errors.Error, OSError) as error:
            connection.close()
            if engines.is_unavailable(error):
                raise Unavailable(engines.reason(error)) from error
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    async def _execute(
        self, connection: Connection, text: str, values: tuple[Any, ...], until: float
    ) -> Sequence[tuple[Any, ...]]:
        async with asyncio.timeout_at(until):
            cursor = connection.cursor()
            await cursor.execute(text, values)
            rows: Sequence[tuple[Any, ...]] = await cursor.fetchall()
            return rows

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()


def _give_up(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(Unavailable("no free connection"))


def _new(arguments: dict[str, Any]) -> Connection:
    return Connection(**arguments)  # type: ignore[no-untyped-call]  # compiled, with partial stubs


def _offers_tls(connection: Connection) -> bool:
    """Whether the server said so in its greeting; true when it did not come that far."""
    return bool(getattr(connection, "server_capabilities", SSL) & SSL)


def _arguments(url: str, dialect: Dialect) -> dict[str, Any]:
    """The driver's arguments for a SQLAlchemy URL that was written for PyMySQL."""
    _, given = dialect.create_connect_args(make_url(url))
    disabled = str(given.get("ssl_disabled", "")).lower() in {"1", "true", "yes", "on"}
    return {
        "host": given.get("host"),
        "port": given.get("port", 3306),
        "unix_socket": given.get("unix_socket"),
        "user": given.get("user"),
        # bytes, because the driver would encode text as Latin-1
        "password": str(given.get("password") or "").encode(),
        "database": given.get("database"),
        "charset": "utf8mb4",
        "ssl": None if disabled else (given.get("ssl") or engines.preferred_tls()),
        "autocommit": True,
        "init_command": engines.SESSION_SETTINGS,
        "connect_timeout": engines.CONNECT_TIMEOUT_SECONDS,
        "stmt_cache_size": STATEMENT_CACHE,
    }
