"""Jobs on conversations: giving them to agents, taking them from those who left, waking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from app.bus import presence
from app.chat import assignment, conversation_state
from app.db.writer import Stored

if TYPE_CHECKING:
    from app.worker.jobs import Run

WAKE_CONVERSATIONS: Final = 200
ORPHANS: Final = 200
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
    due = await database.run(conversation_state.due_to_wake, database, WAKE_CONVERSATIONS)
    return await _each(run, due, conversation_state.wake)


async def free_orphans(run: Run) -> int:
    """Take conversations from agents who cannot answer them any more; gives how many."""
    due = await run.tools.database.run(conversation_state.orphans, run.tools.database, ORPHANS)
    return await _each(run, due, conversation_state.set_free)


async def _each(run: Run, due: list[int], act: Callable[[Connection, int], Stored | None]) -> int:
    """Do something to each conversation, fenced, in a transaction of its own, and announce it."""
    database = run.tools.database

    def carry_out(conversation_id: int) -> Stored | None:
        with database.write() as connection:
            run.check_fence(connection)
            return act(connection, conversation_id)

    done = 0
    for number, conversation_id in enumerate(due):
        if number % LOCK_EVERY == 0:
            await run.go_on()
        event = await database.run(carry_out, conversation_id)
        if event is not None:
            _announce(run, event)
            done += 1
    return done


def _announce(run: Run, event: Stored) -> None:
    run.tools.announcer.messages_stored([event])
    run.tools.announcer.conversation_changed(event.conversation_id)
