"""Whether the primary answers: a ping a few times a second, on a connection of its own.

Each request that meets a primary that is down finds out by itself, but a server that hangs, or a
host that drops every packet, costs each of them a time limit. The watch spares them that: what may
be read elsewhere goes there at once, and who sends is told sooner.
"""

from __future__ import annotations

import asyncio
from typing import Final

from app import log
from app.db import engines
from app.db.engines import Database
from app.db.pool import Pool

PING_EVERY_SECONDS: Final = 0.25
PING_SECONDS: Final = 0.5
# one late answer is more likely a busy event loop than a lost server
FAILURES: Final = 2


class PrimaryWatch:
    """Keeps :attr:`app.db.engines.Database.primary_away` true to life. Used on one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        if database.primary.dialect.name == "mysql":
            url = database.primary.url.render_as_string(hide_password=False)
            self._pool = Pool(url, database.primary.dialect, size=1)
            self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._pool.close()

    async def _watch(self) -> None:
        while True:
            try:
                await self._pool.rows("SELECT 1", (), seconds=PING_SECONDS)
            except Exception as error:  # noqa: BLE001  whatever it is, the primary did not answer
                self._failures += 1
                if self._failures == FAILURES:
                    log.get("health").warning("primary away", reason=engines.reason(error))
                    self._database.primary_away = True
            else:
                if self._database.primary_away:
                    log.get("health").warning("primary back")
                    self._database.primary_away = False
                self._failures = 0
            await asyncio.sleep(PING_EVERY_SECONDS)
