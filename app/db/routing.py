"""Which database a read of history goes to: the replica when it is new enough, else the primary.

The promise (ARCHITECTURE P5) is that a reader never goes back in time. A read carries the seq that
its reader already knows; the replica serves it only when its own copy of the conversation holds
that seq. A replica that fails is left alone for :data:`SUSPECT_SECONDS`, unless the primary fails
as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeVar

from asyncmy.errors import Error as DriverError
from sqlalchemy.exc import SQLAlchemyError

from app import log
from app.db import engines
from app.db.engines import Unavailable
from app.db.reads import Reads, Source

T = TypeVar("T")
Target = Literal["primary", "replica"]

SUSPECT_SECONDS: Final = 5.0


class HistoryRouting:
    """Routes reads of one stream of a conversation. Used on one event loop."""

    def __init__(self, reads: Reads) -> None:
        self._sources = reads
        self._suspect_until = 0.0
        # (target, why) -> reads; why is ok, none, suspect, behind, failed or primary_failed
        self.reads: Counter[tuple[Target, str]] = Counter()

    async def read(
        self,
        work: Callable[[Source], Awaitable[T]],
        fresh_enough: Callable[[T], bool],
    ) -> tuple[T, Target]:
        """Run ``work`` where it may run; gives its result and where it ran.

        ``fresh_enough`` says of a result of the replica whether it holds what its reader knows;
        result and answer must come from the same state of the replica. ``work`` may run on the
        replica and then on the primary. Raises :class:`Unavailable` when neither can serve.
        """
        replica = self._sources.replica
        if replica is None:
            why = "none"
        elif time.monotonic() < self._suspect_until:
            why = "suspect"
        else:
            try:
                result = await work(replica)
                if fresh_enough(result):
                    self.reads["replica", "ok"] += 1
                    return result, "replica"
                why = "behind"
            except (SQLAlchemyError, DriverError, OSError, Unavailable) as error:
                self._suspect_until = time.monotonic() + SUSPECT_SECONDS
                log.get("routing").warning("replica failed", reason=engines.reason(error))
                why = "failed"
        try:
            result = await work(self._sources.primary)
        except Unavailable:
            if replica is None or why != "suspect":
                raise
            result = await work(replica)
            if not fresh_enough(result):
                raise
            self.reads["replica", "primary_failed"] += 1
            return result, "replica"
        self.reads["primary", why] += 1
        return result, "primary"
