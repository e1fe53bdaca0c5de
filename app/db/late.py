"""Reads that may tell the truth of some seconds ago: search, reports, exports of lists.

They go to the replica, so that their work does not slow the primary; to the primary when there is
no replica, when it fails, or when it is more than :data:`LAG_MAX_SECONDS` behind. How far behind it
is comes from a row of the worker (``app_settings``, :data:`HEARTBEAT`): the accounts of the
application may ask no server for its replication status.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

import orjson
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from app import log
from app.db import engines, schema
from app.db.engines import Database, Unavailable
from app.db.routing import SUSPECT_SECONDS, Target

T = TypeVar("T")

HEARTBEAT: Final = "heartbeat"
LAG_MAX_SECONDS: Final = 30.0
LAG_CHECK_SECONDS: Final = 5.0

_s = schema.app_settings
_BEAT: Final = select(_s.c.value).where(_s.c.name == HEARTBEAT)


class LateReads:
    """Routes such reads. ``read`` is called on one event loop."""

    def __init__(self, database: Database) -> None:
        # (target, why) -> reads; why is ok, none, suspect, behind or failed
        self.reads: Counter[tuple[Target, str]] = Counter()
        # None: not known, because there is no replica or nobody wrote a heartbeat yet
        self.lag_seconds: float | None = None
        self._database = database
        self._suspect_until = 0.0
        self._lag_known_until = 0.0

    async def read(self, work: Callable[[Connection], T]) -> tuple[T, Target]:
        """Run blocking ``work`` in a thread; gives its result and where it ran.

        ``work`` may run twice, on the replica and then on the primary. Raises
        :class:`Unavailable`.
        """
        replica = self._database.replica
        if replica is None:
            why = "none"
        elif time.monotonic() < self._suspect_until:
            why = "suspect"
        elif await self._is_behind():
            why = "behind"
        else:

            def on_replica() -> T:
                with engines.read_transaction(replica) as connection:
                    return work(connection)

            try:
                result = await self._database.run(on_replica)
            except (SQLAlchemyError, OSError, Unavailable) as error:
                self._suspect_until = time.monotonic() + SUSPECT_SECONDS
                log.get("routing").warning("replica failed", reason=engines.reason(error))
                why = "failed"
            else:
                self.reads["replica", "ok"] += 1
                return result, "replica"

        def on_primary() -> T:
            with self._database.read() as connection:
                return work(connection)

        result = await self._database.run(on_primary)
        self.reads["primary", why] += 1
        return result, "primary"

    async def lag(self) -> float | None:
        """How many seconds the replica is behind; None when that is not known."""
        await self._is_behind()
        return self.lag_seconds

    async def _is_behind(self) -> bool:
        if time.monotonic() >= self._lag_known_until:
            self._lag_known_until = time.monotonic() + LAG_CHECK_SECONDS
            try:
                self.lag_seconds = await self._database.run(_lag, self._database)
            except (SQLAlchemyError, OSError, Unavailable):
                # one of the two does not answer: the read itself will find out which
                self.lag_seconds = None
        return self.lag_seconds is not None and self.lag_seconds > LAG_MAX_SECONDS


def _lag(database: Database) -> float | None:
    if database.replica is None:
        return None
    # the replica first: what is written in between must not count as lag
    with engines.read_transaction(database.replica) as connection:
        there = connection.execute(_BEAT).scalar()
    with database.read() as connection:
        here = connection.execute(_BEAT).scalar()
    if here is None:
        return None
    if there is None:
        return float("inf")
    return max((_moment(here) - _moment(there)).total_seconds(), 0.0)


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(orjson.loads(value))
