"""The job that copies new messages into the search.

It walks the conversations in the order of their last activity and compares their last seqs with
``search_marks``. How far it came stands in ``app_settings``: whoever runs it next goes on there.
Clocks of nodes differ and transactions overlap, so it looks back a little every time, and a day
now and then; what is indexed already costs only the comparison.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from app import clock
from app.chat import installation, search

if TYPE_CHECKING:
    from app.worker.jobs import Run

EVERY_SECONDS: Final = 0.7
CONVERSATIONS_PER_PAGE: Final = 100
MESSAGES_PER_TRANSACTION: Final = 500
LOOK_BACK: Final = timedelta(seconds=30)
DEEP_LOOK_BACK: Final = timedelta(days=1)
DEEP_EVERY: Final = timedelta(minutes=10)
STATE: Final = "search.scanned"
_EPOCH: Final = datetime(1970, 1, 1)


async def index_messages(run: Run) -> int:
    """Copy what the search lacks; gives how many messages that were."""
    database = run.tools.database

    def state() -> dict[str, Any]:
        with database.read() as connection:
            return installation.read(connection, STATE) or {}

    def page(moment: datetime, last_id: int) -> Any:
        with database.read() as connection:
            return search.grown_after(connection, moment, last_id, CONVERSATIONS_PER_PAGE)

    def add_marks(grown: list[search.Grown]) -> None:
        with database.write() as connection:
            search.add_marks(connection, grown)

    def copy(grown: list[search.Grown]) -> tuple[int, bool]:
        with database.write() as connection:
            return search.index(
                connection,
                grown,
                MESSAGES_PER_TRANSACTION,
                lambda: run.check_fence(connection),
            )

    def save(reached: datetime, deep: datetime) -> None:
        with database.write() as connection:
            run.check_fence(connection)
            installation.store(
                connection, STATE, {"reached": reached.isoformat(), "deep": deep.isoformat()}
            )

    known = await database.run(state)
    reached = datetime.fromisoformat(known["reached"]) if known else _EPOCH
    deep = datetime.fromisoformat(known["deep"]) if known else clock.now()
    look_back = LOOK_BACK
    if clock.now() - deep > DEEP_EVERY:
        look_back, deep = DEEP_LOOK_BACK, clock.now()
    # a clock that is ahead must not make this pass over what the others write
    start = min(reached, clock.now())
    moment, last_id = max(start, _EPOCH + look_back) - look_back, 0
    before, indexed = (reached, look_back), 0
    while True:
        grown, end = await database.run(page, moment, last_id)
        if grown:
            await database.run(add_marks, grown)
            more = True
            while more:
                count, more = await database.run(copy, grown)
                indexed += count
                await run.go_on()
        if end is None:
            break
        moment, last_id = end
        reached = max(reached, moment)
        if grown:
            await database.run(save, reached, deep)
            before = (reached, LOOK_BACK)
        await run.go_on()
    if before != (reached, LOOK_BACK):
        await database.run(save, reached, deep)
    return indexed
