"""The job that removes what is older than it should be kept, a little at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from app import log
from app.chat import audit, retention
from app.chat.permissions import SYSTEM
from app.chat.retention import Old
from app.db.engines import Unavailable

if TYPE_CHECKING:
    from app.worker.jobs import Run

EVERY_SECONDS: Final = 3600.0
LOOKED_AT: Final = 500
# a transaction must end well within the time that a statement may take
ROWS_PER_TRANSACTION: Final = 1000
# so many conversations may fail in a run; then it is not they that fail
FAILURES_MAX: Final = 10
PROGRESS_EVERY: Final = 1000


async def remove_old(run: Run) -> int:
    """Remove old conversations, visitors and rows of logs; gives how many rows went.

    A conversation that cannot be removed does not keep the rest; its error is raised at the end.
    """
    database = run.tools.database
    removed: Counter[str] = Counter()

    def read() -> tuple[retention.Rules, list[retention.Kept]]:
        with database.read() as connection:
            in_force = retention.rules(connection)
            return in_force, retention.inboxes(connection, in_force)

    in_force, kept = await database.run(read)

    def visitors(after: Old) -> tuple[int, Old | None]:
        with database.write() as connection:
            run.check_fence(connection)
            return retention.remove_visitors(connection, kept, after, LOOKED_AT)

    def logs() -> Counter[str]:
        with database.write() as connection:
            run.check_fence(connection)
            return retention.remove_logs(connection, in_force, ROWS_PER_TRANSACTION)

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

    failures = await _remove_conversations(run, kept, removed)
    place: Old | None = Old()
    while place is not None:
        count, place = await database.run(visitors, place)
        removed["visitors"] += count
        await run.go_on()
    while part_of_logs := await database.run(logs):
        removed += part_of_logs
        await run.go_on()
    if removed.total():
        await database.run(note)
    if failures:
        raise failures[0]
    return removed.total()


async def _remove_conversations(
    run: Run, kept: Sequence[retention.Kept], removed: Counter[str]
) -> list[Exception]:
    """Remove old conversations and count in ``removed`` what went; gives why some did not."""
    database = run.tools.database
    told = 0
    failures: list[Exception] = []

    def find(after: Old) -> tuple[list[Old], Old | None]:
        with database.read() as connection:
            return retention.old_conversations(connection, kept, after, LOOKED_AT)

    def part(old: Old) -> tuple[Counter[str], bool]:
        with database.write() as connection:
            run.check_fence(connection)
            return retention.remove_conversation(connection, old, ROWS_PER_TRANSACTION)

    async def conversation(old: Old) -> None:
        left = True
        while left:
            gone, left = await database.run(part, old)
            removed.update(gone)
            await run.go_on()

    place: Old | None = Old()
    while place is not None:
        going, place = await database.run(find, place)
        for old in going:
            try:
                await conversation(old)
            except (SQLAlchemyError, Unavailable) as error:
                failures.append(error)
                log.get("retention").error(
                    "a conversation was not removed",
                    conversation=old.id,
                    reason=type(error).__name__,
                )
                if len(failures) >= FAILURES_MAX:
                    return failures
            if removed["conversations"] - told >= PROGRESS_EVERY:
                told = removed["conversations"]
                log.get("retention").info("removing", conversations=told)
        await run.go_on()
    return failures
