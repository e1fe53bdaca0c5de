"""Events in a conversation's timeline: who took it, resolved it, labelled it.

They stand in the staff stream, so that the visitor's seq and unread count do not move with the
staff's housekeeping; what the visitor may know is told by ``conversation.updated``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from app import clock
from app.chat import webhook_events
from app.chat.errors import NotFound
from app.chat.permissions import Actor, Agent
from app.db import schema
from app.db.writer import Stored

_c, _m = schema.conversations, schema.messages


def append_event(
    connection: Connection,
    conversation_id: int,
    kind: str,
    actor: Actor,
    *,
    text: str,
    data: Mapping[str, Any] | None = None,
) -> Stored:
    """Append an event to the staff stream, in the transaction of what it tells.

    ``kind`` is its type as ``claimed``; ``text`` says the same in English for clients that do not
    know the type. Locks the conversation's row. To be given to the announcer after the commit.
    Raises :class:`NotFound`.
    """
    by = {"id": actor.id, "name": actor.name, "type": actor.type}
    event = orjson.dumps({"type": kind, "by": by, **(data or {})}).decode()
    return _append(connection, conversation_id, kind="event", body=text, event=event)


def append_note(connection: Connection, conversation_id: int, agent: Agent, body: str) -> Stored:
    """Append an agent's note, in the transaction of what it explains; see :func:`append_event`."""
    stored = _append(connection, conversation_id, kind="note", body=body, author=agent)
    webhook_events.record(
        connection,
        "message.created",
        inbox_id=stored.inbox_id,
        conversation_id=conversation_id,
        stream=stored.stream,
        seq=stored.seq,
    )
    return stored


def _append(
    connection: Connection,
    conversation_id: int,
    *,
    kind: str,
    body: str,
    event: str | None = None,
    author: Agent | None = None,
) -> Stored:
    row = connection.execute(
        select(_c.c.inbox_id, _c.c.visitor_id, _c.c.last_seq_staff)
        .where(_c.c.id == conversation_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise NotFound
    now = clock.now()
    stored = Stored(
        conversation_id=conversation_id,
        inbox_id=row.inbox_id,
        visitor_id=row.visitor_id,
        stream=schema.STAFF,
        seq=row.last_seq_staff + 1,
        client_id=clock.uuid(),
        sender_type="agent" if author else "system",
        sender_id=author.id if author else None,
        sender_name=author.name if author else "",
        sender_avatar_url=author.avatar_url if author else None,
        kind=kind,
        body=body,
        created_at=now,
        created=True,
        event=event,
    )
    connection.execute(
        insert(_m).values(
            conversation_id=conversation_id,
            stream=stored.stream,
            seq=stored.seq,
            client_id=stored.client_id,
            sender_type=stored.sender_type,
            sender_id=stored.sender_id,
            kind=stored.kind,
            body=stored.body,
            created_at=now,
            event=event,
        )
    )
    connection.execute(
        update(_c)
        .where(_c.c.id == conversation_id)
        .values(last_seq_staff=stored.seq, version=_c.c.version + 1, updated_at=now)
    )
    return stored
