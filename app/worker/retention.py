"""The job that removes what is older than it should be kept, a little at a time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from app import log
from app.chat import audit, retention
from app.chat.permissions import SYSTEM
from app.chat.retention import Old

if TYPE_CHECKING:
    from app.worker.jobs import Run

EVERY_SECONDS: Final = 3600.0
LOOKED_AT: Final = 500
CONVERSATIONS_PER_TRANSACTION: Final = 20
LOG_ROWS_PER_TRANSACTION: Final = 1000
PROGRESS_EVERY: Final = 1000


async def remove_old(run: Run) -> int:
    """Remove old conversations, visitors and rows of logs; gives how many rows went."""
    database = run.tools.database
    removed: Counter[str] = Counter()
    told = 0

    def read() -> tuple[retention.Rules, list[retention.Kept]]:
        with database.read() as connection:
            in_force = retention.rules(connection)
            return in_force, retention.inboxes(connection, in_force)

    in_force, kept = await database.run(read)

    def find(after: Old) -> tuple[list[int], Old | None]:
        with database.read() as connection:
            return retention.old_conversations(connection, kept, after, LOOKED_AT)

    def conversations(ids: list[int]) -> Counter[str]:
        with database.write() as connection:
            run.check_fence(connection)
            return retention.remove_conversations(connection, ids)

    def visitors(after: Old) -> tuple[int, Old | None]:
        with database.write() as connection:
            run.check_fence(connection)
            return retention.remove_visitors(connection, kept, after, LOOKED_AT)

    def logs() -> Counter[str]:
        with database.write() as connection:
            run.check_fence(connection)
            return retention.remove_logs(connection, in_force, LOG_ROWS_PER_TRANSACTION)

    def note() -> None:
        with database.write() as connection:
            run.check_fence(connection)
            audit.record(
                connection,
                SYSTEM,
                "retention.run",
                "retention",
                object_id=None,
                details={str(name): count for name, count in sorted(removed.items()) if count},
            )

    place: Old | None = Old()
    while place is not None:
        going, place = await database.run(find, place)
        for start in range(0, len(going), CONVERSATIONS_PER_TRANSACTION):
            part = going[start : start + CONVERSATIONS_PER_TRANSACTION]
            removed += await database.run(conversations, part)
            await run.go_on()
            if removed["conversations"] - told >= PROGRESS_EVERY:
                told = removed["conversations"]
                log.get("retention").info("removing", conversations=told)
        await run.go_on()
    place = Old()
    while place is not None:
        count, place = await database.run(visitors, place)
        removed["visitors"] += count
        await run.go_on()
    while part_of_logs := await database.run(logs):
        removed += part_of_logs
        await run.go_on()
    if removed.total():
        await database.run(note)
    return removed.total()
