"""Jobs on conversations: giving them to agents, waking those that were snoozed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from app.bus import presence
from app.chat import assignment, conversation_state
from app.db.writer import Stored

if TYPE_CHECKING:
    from app.worker.jobs import Run

WAKE_CONVERSATIONS: Final = 200
# the lock is held anew after so many transactions, long before it ends
LOCK_EVERY: Final = 20


async def assign_waiting(run: Run) -> int:
    """Give waiting conversations to the agents who are present; gives how many.

    Without Redis there is neither a lock nor presence: nothing is assigned until it is back.
    """
    tools = run.tools
    present = await presence.present(tools.redis)
    turns = await tools.database.run(assignment.plan, tools.database, present)
    given = 0
    for number, turn in enumerate(turns):
        if number % LOCK_EVERY == 0:
            await run.go_on()
        event = await tools.database.run(
            assignment.take_turn, tools.database, turn, run.check_fence
        )
        if event is not None:
            _announce(run, event)
            given += 1
    return given


async def wake_snoozed(run: Run) -> int:
    """Open the snoozed conversations whose time has come; gives how many."""
    database = run.tools.database

    def wake(conversation_id: int) -> Stored | None:
        with database.write() as connection:
            return _fenced_wake(run, connection, conversation_id)

    woken = 0
    for number, conversation_id in enumerate(
        await database.run(conversation_state.due_to_wake, database, WAKE_CONVERSATIONS)
    ):
        if number % LOCK_EVERY == 0:
            await run.go_on()
        event = await database.run(wake, conversation_id)
        if event is not None:
            _announce(run, event)
            woken += 1
    return woken


def _fenced_wake(run: Run, connection: Connection, conversation_id: int) -> Stored | None:
    run.check_fence(connection)
    return conversation_state.wake(connection, conversation_id)


def _announce(run: Run, event: Stored) -> None:
    run.tools.announcer.messages_stored([event])
    run.tools.announcer.conversation_changed(event.conversation_id)
