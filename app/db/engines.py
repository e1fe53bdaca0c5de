"""Engines of the primary and the replica, and the threads that queries run in.

Drivers are synchronous; an event loop awaits :meth:`Database.run`, which uses a bounded pool of
threads and refuses work instead of queueing without end.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

import pymysql
from asyncmy import errors as asyncmy_errors
from pymysql.constants.CR import CR_SSL_CONNECTION_ERROR
from sqlalchemy import Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.config import Settings

P = ParamSpec("P")
T = TypeVar("T")

POOL_THREADS: Final = 16
# one for each thread, and some for those that keep one besides, as the writer
POOL_CONNECTIONS: Final = POOL_THREADS + 4
ATTEMPTS: Final = 3
MAX_WAITING: Final = 512
# one SYN may be lost (it is sent again after a second), and who sends hears "no" within 2 seconds
CONNECT_TIMEOUT_SECONDS: Final = 1.5
POOL_WAIT_SECONDS: Final = 3
STATEMENT_TIMEOUT_SECONDS: Final = 10
RECYCLE_SECONDS: Final = 1800
IDLE_SECONDS: Final = 600
LOCK_WAIT_SECONDS: Final = 5

# MySQL error numbers (server error reference)
_LOCK_WAIT_TIMEOUT, _DEADLOCK = 1205, 1213
_RETRYABLE: Final = frozenset({_LOCK_WAIT_TIMEOUT, _DEADLOCK})
# The server cannot serve now: too many connections, shutdown, read-only option (a switchover),
# access denied while accounts are being changed, gone away, connection refused or lost, a statement
# that took too long.
_UNAVAILABLE: Final = frozenset(
    {1040, 1045, 1053, 1079, 1290, 1836, 2002, 2003, 2005, 2006, 2013, 2014, 2055, 3024, 3032, 3100}
)
SESSION_SETTINGS: Final = (
    "SET time_zone = '+00:00', "
    f"innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, "
    # the ids of an account's inboxes are read as one text; the default cuts at 1024
    "group_concat_max_len = 1048576, "
    "sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
)


class Unavailable(Exception):
    """The database cannot serve now; the same request may succeed later."""


def _error_number(error: DBAPIError | asyncmy_errors.Error) -> int | None:
    arguments = getattr(getattr(error, "orig", error), "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def is_retryable(error: DBAPIError) -> bool:
    """Whether the transaction lost a fight for a lock and may simply be run again."""
    if isinstance(error.orig, sqlite3.OperationalError):
        return "locked" in str(error.orig)
    return _error_number(error) in _RETRYABLE


def is_unavailable(error: Exception) -> bool:
    """Whether ``error`` tells of the server or the way to it, and not of the statement."""
    if isinstance(error, (Unavailable, PoolTimeoutError, OSError)):
        return True
    if isinstance(error, asyncmy_errors.Error):
        lost = isinstance(error, asyncmy_errors.InterfaceError)
        return lost or _error_number(error) in _UNAVAILABLE
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    if isinstance(error.orig, sqlite3.OperationalError):
        message = str(error.orig)
        return any(word in message for word in ("unable to open", "disk", "readonly"))
    return isinstance(error, OperationalError) and _error_number(error) in _UNAVAILABLE


def make_engine(url: str, *, pool_size: int = POOL_CONNECTIONS) -> Engine:
    """An engine for a MySQL or SQLite URL, with the session settings that the code relies on."""
    if make_url(url).get_backend_name() == "sqlite":
        return _sqlite_engine(url, pool_size)
    engine = create_engine(
        url,
        # The hot statements are compiled once and executed with tuples of values.
        paramstyle="format",
        # Every read-then-write of ours locks its row first; READ COMMITTED then lets the
        # statements after the lock see what the previous holder committed, and avoids the gap
        # locks of REPEATABLE READ.
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        pool_recycle=RECYCLE_SECONDS,
        hide_parameters=True,
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "read_timeout": STATEMENT_TIMEOUT_SECONDS,
            "write_timeout": STATEMENT_TIMEOUT_SECONDS,
            "init_command": SESSION_SETTINGS,
        },
    )
    event.listen(engine, "do_connect", _connect_mysql)
    return engine


@functools.cache
def preferred_tls() -> ssl.SSLContext:
    """TLS when a database URL says nothing of it: encrypted, the certificate not looked at.

    This is what both drivers do by themselves, but they read all the certificates of the computer
    for each connection first: 25 ms of CPU and, with asyncmy, of the event loop. After a database
    was away every process opens dozens of connections, and that time is what they then lack.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _connect_mysql(
    dialect: Dialect, _record: object, positional: list[Any], named: dict[str, Any]
) -> Any:
    """A connection of PyMySQL with :func:`preferred_tls`; without TLS when the server has none."""
    connect = dialect.loaded_dbapi.connect
    if any(name.startswith("ssl") for name in named):
        return connect(*positional, **named)
    try:
        return connect(*positional, **named, ssl=preferred_tls())
    except pymysql.err.OperationalError as error:
        if error.args[0] != CR_SSL_CONNECTION_ERROR:
            raise
        return connect(*positional, **named, ssl_disabled=True)


def _sqlite_engine(url: str, pool_size: int) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": LOCK_WAIT_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # the driver must not begin transactions by itself: it would begin them as readers, and
        # a reader that becomes a writer fails at once when somebody else wrote in between
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


class Database:
    """The primary, the replica if there is one, and the threads for queries."""

    def __init__(self, settings: Settings) -> None:
        self.primary = make_engine(settings.database_url)
        self.replica = (
            make_engine(settings.database_replica_url) if settings.database_replica_url else None
        )
        # set by app.db.health: the primary has not answered for a moment
        self.primary_away = False
        self._threads = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="db")
        self._waiting = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction on the primary that may write; commits at the end."""
        with write_transaction(self.primary) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction on the primary that only reads: for what must be fresh."""
        with read_transaction(self.primary) as connection:
            yield connection

    @contextmanager
    def view(self) -> Iterator[Connection]:
        """As :meth:`read`, but from the replica while the primary is away: for what is better shown
        a little old than not at all. Nothing that is read here may decide about a write."""
        engine = self.primary
        if self.primary_away and self.replica is not None:
            engine = self.replica
        with read_transaction(engine) as connection:
            yield connection

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking ``work`` in a thread and give its result.

        Raises :class:`Unavailable` when too much work waits already or when the database cannot
        serve; a transaction that lost a fight for a lock is run again, at most three times.
        """
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many queries are waiting")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._threads, partial(_with_retries, work, *args, **kwargs)
            )
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wait for running queries and close all connections."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.primary.dispose()
        if self.replica is not None:
            self.replica.dispose()


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write. On SQLite it takes the write lock at its begin."""
    with (
        engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads."""
    with engine.connect() as connection, connection.begin():
        yield connection


def _with_retries(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    for attempt in range(ATTEMPTS):
        try:
            return work(*args, **kwargs)
        except DBAPIError as error:
            if is_unavailable(error):
                raise Unavailable(reason(error)) from error
            if not is_retryable(error):
                raise
            if attempt == ATTEMPTS - 1:
                raise Unavailable(reason(error)) from error
        except PoolTimeoutError as error:
            raise Unavailable("no free connection") from error
    raise AssertionError("unreachable")


def reason(error: Exception) -> str:
    """Why a query failed, in a few words for a log line; never the statement's values."""
    if isinstance(error, DBAPIError):
        number = _error_number(error)
        kind = type(error.orig).__name__
        return f"{kind} {number}" if number is not None else f"{kind}: {error.orig}"
    if isinstance(error, asyncmy_errors.Error):
        return f"{type(error).__name__} {_error_number(error)}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"
