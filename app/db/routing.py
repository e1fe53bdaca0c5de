"""Which database a read of history goes to: the replica when it is new enough, else the primary.

The promise (ARCHITECTURE P5) is that a reader never goes back in time. A read carries the seq that
its reader already knows; the replica serves it only when its own copy of the conversation holds
that seq. A replica that fails is left alone for :data:`SUSPECT_SECONDS`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, TypeVar

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from app import log
from app.db import engines, schema
from app.db.engines import Database

T = TypeVar("T")
Target = Literal["primary", "replica"]

SUSPECT_SECONDS: Final = 5.0

_LAST_SEQ = select(
    schema.conversations.c.last_seq_public, schema.conversations.c.last_seq_staff
).where(schema.conversations.c.id == bindparam("id"))


class HistoryRouting:
    """Routes reads of one stream of a conversation. Used by many threads at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._suspect_until = 0.0
        self._lock = threading.Lock()
        # (target, why) -> reads; why is ok, none, suspect, behind or failed
        self.reads: Counter[tuple[Target, str]] = Counter()

    def read(
        self,
        conversation_id: int,
        stream: int,
        known_seq: int,
        work: Callable[[Connection], T],
    ) -> tuple[T, Target]:
        """Run ``work`` where it may run; gives its result and where it ran.

        ``known_seq`` is the highest seq of the stream that the reader knows, 0 for none. Blocking:
        to be called in a thread. ``work`` may run twice, on the replica and then on the primary.
        """
        replica = self._database.replica
        if replica is None:
            why = "none"
        elif time.monotonic() < self._suspect_until:
            why = "suspect"
        else:
            try:
                with engines.read_transaction(replica) as connection:
                    last = connection.execute(_LAST_SEQ, {"id": conversation_id}).one_or_none()
                    if last is not None and last[stream] >= known_seq:
                        result = work(connection)
                        self._count("replica", "ok")
                        return result, "replica"
                why = "behind"
            except (SQLAlchemyError, OSError) as error:
                self._suspect_until = time.monotonic() + SUSPECT_SECONDS
                log.get("routing").warning("replica failed", reason=engines.reason(error))
                why = "failed"
        with self._database.read() as connection:
            result = work(connection)
        self._count("primary", why)
        return result, "primary"

    def _count(self, target: Target, why: str) -> None:
        with self._lock:
            self.reads[target, why] += 1
