"""The row that tells how far the replica is behind; read by :mod:`app.db.late`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app import clock
from app.chat import installation
from app.db.late import HEARTBEAT

if TYPE_CHECKING:
    from app.worker.jobs import Run

EVERY_SECONDS: Final = 2.0


async def beat(run: Run) -> int:
    """Write the time on the primary; 0, because nothing was done that is worth a line."""
    database = run.tools.database

    def write() -> None:
        with database.write() as connection:
            run.check_fence(connection)
            installation.store(connection, HEARTBEAT, clock.now().isoformat())

    if database.primary.dialect.name != "sqlite":  # a file has no replica
        await database.run(write)
    return 0
