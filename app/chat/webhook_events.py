"""What webhooks are told: noted in the transaction in which it happens, so that nothing is lost.

Messages are noted by :mod:`app.db.writer`; everything else through :func:`record`.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, insert, select

from app import clock
from app.db import schema

EVENTS: Final = (
    "conversation.created",
    "conversation.assigned",
    "conversation.snoozed",
    "conversation.resolved",
    "conversation.reopened",
    "conversation.rated",
    "message.created",
    "message.updated",
)


def record(
    connection: Connection,
    event: str,
    *,
    inbox_id: int,
    conversation_id: int,
    stream: int | None = None,
    seq: int | None = None,
) -> None:
    """Note one of :data:`EVENTS` while any webhook listens. ``stream`` and ``seq`` of a message."""
    listening = select(schema.webhooks.c.id).where(schema.webhooks.c.active).limit(1)
    if connection.execute(listening).first() is None:
        return
    connection.execute(
        insert(schema.webhook_events).values(
            event_id=clock.uuid(),
            event=event,
            inbox_id=inbox_id,
            conversation_id=conversation_id,
            stream=stream,
            seq=seq,
            created_at=clock.now(),
        )
    )
