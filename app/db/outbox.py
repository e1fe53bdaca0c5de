"""The outbox: events that the worker publishes, because Redis did not take them, or because they
belong to a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, case, delete, func, insert, null, or_, select

from app import clock
from app.db import schema
from app.db.engines import Database

# clients poll while Redis is away and are told to resync when it is back: older events tell
# nobody anything new
EVENT_LIFETIME: Final = timedelta(minutes=10)
EXPIRED_ROWS: Final = 1000

_outbox = schema.outbox
# What is said to the gateways themselves ("#control") counts for ever. No other channel's name
# begins so.
_EXPIRES: Final = _outbox.c.channel.not_like("#%")


def keep(database: Database, rows: Sequence[tuple[str, str]]) -> None:
    """Store (channel, message) pairs in their order. Blocking.

    Up to :data:`EXPIRED_ROWS` of those that nobody waits for any more make room for them: without
    Redis there is no relay that would drop them, and the table must not grow all the while.
    """
    with database.write() as connection:
        add(connection, rows)
        _drop_expired(connection)


def add(connection: Connection, rows: Sequence[tuple[str, str]]) -> None:
    """Store (channel, message) pairs in their order, to be published after the commit."""
    now = clock.now()
    connection.execute(
        insert(_outbox),
        [{"channel": channel, "message": message, "created_at": now} for channel, message in rows],
    )


def _drop_expired(connection: Connection) -> None:
    """Delete the oldest rows as far as they expired; ids grow with time, so they come first."""
    before = clock.now() - EVENT_LIFETIME
    first = (
        select(_outbox.c.id, _outbox.c.created_at)
        .where(_EXPIRES)
        .order_by(_outbox.c.id)
        .limit(EXPIRED_ROWS)
    )
    ids = [row.id for row in connection.execute(first) if row.created_at < before]
    if not ids:
        return
    # what another process deletes already is left to it: nobody waits here
    free = select(_outbox.c.id).where(_outbox.c.id.in_(ids)).with_for_update(skip_locked=True)
    remove(connection, connection.execute(free).scalars().all())


def oldest(connection: Connection, limit: int) -> Sequence[Any]:
    """The oldest ``limit`` rows: id, channel, message; the message of an expired one is None."""
    fresh = _outbox.c.created_at >= clock.now() - EVENT_LIFETIME
    message = case((or_(fresh, ~_EXPIRES), _outbox.c.message), else_=null()).label("message")
    query = select(_outbox.c.id, _outbox.c.channel, message).order_by(_outbox.c.id).limit(limit)
    return connection.execute(query).all()


def remove(connection: Connection, ids: Sequence[int]) -> None:
    """Delete rows that were relayed, or that nobody waits for any more."""
    connection.execute(delete(_outbox).where(_outbox.c.id.in_(ids)))


def waiting(connection: Connection) -> int:
    """How many rows wait."""
    return int(connection.execute(select(func.count()).select_from(_outbox)).scalar_one())
