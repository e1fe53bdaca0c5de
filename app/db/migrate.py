"""Bring a database to the newest schema, one run at a time.

On MySQL the run holds ``GET_LOCK('deskline_migrate')``, on SQLite a lock on a file beside the
database. A second run waits, then finds nothing to do.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from app.db import engines

LOCK_NAME: Final = "deskline_migrate"
WAIT_SECONDS: Final = 600
# every statement on a table waits behind the ALTER that waits for it: so it gives up soon, lets
# them through, and tries again
LOCK_WAIT_SECONDS: Final = 5
LOCK_ATTEMPTS: Final = 12
_PAUSE_SECONDS: Final = 5.0
_WAIT_STEP_SECONDS: Final = 5
_SCRIPTS: Final = Path(__file__).with_name("migrations")


class MigrationError(Exception):
    """The database was not migrated; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """The revisions before and after; ``before`` is ``base`` for an empty database."""

    before: str
    after: str

    @property
    def changed(self) -> bool:
        """Whether this run changed the schema."""
        return self.before != self.after


def head() -> str:
    """The newest revision that this release knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise MigrationError("This release holds no migrations: install it again.")
    return revision


def current(connection: Connection) -> str:
    """The revision of a database; ``base`` when it is empty."""
    return MigrationContext.configure(connection).get_current_revision() or "base"


def upgrade(
    url: str, *, say: Callable[[str], None], wait_seconds: float = WAIT_SECONDS
) -> Migrated:
    """Run the missing migrations on the database at ``url``.

    ``say`` gets a line when another run is at work, or when a table is in use. Raises
    :class:`MigrationError` when that run does not end within ``wait_seconds``, when a table stays
    in use for :data:`LOCK_ATTEMPTS` tries, or when the database is newer than this release.
    """
    with _connect(url) as connection, _only_one(connection, url, say, wait_seconds):
        before = current(connection)
        known = {script.revision for script in _scripts().walk_revisions()}
        if before != "base" and before not in known:
            raise MigrationError(
                f"The database has revision {before}, which this release does not know: "
                "it was migrated by a newer release; deploy that one or a later one."
            )
        connection.rollback()
        if before != head():
            _run(connection, say)
        return Migrated(before, current(connection))


def _run(connection: Connection, say: Callable[[str], None]) -> None:
    """Run what is missing; begun again when a lock was not to be had: the steps allow it."""
    config = _config()
    config.attributes["connection"] = connection
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            command.upgrade(config, "head")
            connection.commit()
            return
        except DBAPIError as error:
            if not engines.is_retryable(error):
                raise
            # the lock of the run belongs to the session and stays
            connection.rollback()
            if attempt == LOCK_ATTEMPTS:
                raise MigrationError(
                    f"A table was in use by a long transaction at each of {LOCK_ATTEMPTS} tries: "
                    "let it end or end it (performance_schema.metadata_locks names its thread), "
                    "then start this run again; it goes on from what is done."
                ) from error
        say(
            f"migrate: a table is in use (try {attempt} of {LOCK_ATTEMPTS}); "
            f"trying again in {_PAUSE_SECONDS:.0f} seconds"
        )
        time.sleep(_PAUSE_SECONDS)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@contextmanager
def _connect(url: str) -> Iterator[Connection]:
    """A connection for long statements: without the read timeout of ordinary queries."""
    if make_url(url).get_backend_name() == "sqlite":
        engine = engines.make_engine(url, pool_size=1)
        options = {"sqlite_begin": "IMMEDIATE"}
    else:
        engine = create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": engines.CONNECT_TIMEOUT_SECONDS,
                "init_command": (
                    f"SET time_zone = '+00:00', lock_wait_timeout = {LOCK_WAIT_SECONDS}"
                ),
            },
        )
        options = {}
    try:
        with engine.connect().execution_options(**options) as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _only_one(
    connection: Connection, url: str, say: Callable[[str], None], wait_seconds: float
) -> Iterator[None]:
    if connection.dialect.name == "mysql":
        take = _mysql_lock(connection)
        release: Callable[[], object] = lambda: connection.execute(  # noqa: E731  short and used once
            text("SELECT RELEASE_LOCK(:name)"), {"name": LOCK_NAME}
        )
    else:
        lock_file = Path(f"{make_url(url).database}.migrate.lock").open("w")  # noqa: SIM115  closed by release
        take, release = _file_lock(lock_file.fileno()), lock_file.close
    try:
        if not take(0):
            say("migrate: another run is at work; waiting for it to end")
            give_up_at = time.monotonic() + wait_seconds
            while not take(min(_WAIT_STEP_SECONDS, wait_seconds)):
                if time.monotonic() >= give_up_at:
                    raise MigrationError(
                        f"Another migration still runs after {wait_seconds:.0f} seconds: "
                        "look at that run, then start this one again."
                    )
        yield
    finally:
        release()


def _mysql_lock(connection: Connection) -> Callable[[float], bool]:
    def take(seconds: float) -> bool:
        statement = text("SELECT GET_LOCK(:name, :seconds)")
        got = connection.execute(statement, {"name": LOCK_NAME, "seconds": seconds}).scalar()
        # the lock belongs to the session; an open transaction would keep an old snapshot
        connection.rollback()
        return got == 1

    return take


def _file_lock(descriptor: int) -> Callable[[float], bool]:
    def take(seconds: float) -> bool:
        give_up_at = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    return False
                time.sleep(0.1)
            else:
                return True

    return take
