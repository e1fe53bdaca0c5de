"""Editing and deleting messages.

A message keeps its place: its seq stays, a deleted one is left without text and files. Each change
gets the next number of its stream (``edit_seq``), given out under the conversation's lock like seq,
so that a client that was away can ask for the changes after the last one that it knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from app import clock
from app.chat import audit, messages, permissions, search, text, webhook_events
from app.chat.errors import Forbidden, NotFound, Refused
from app.chat.permissions import Actor, Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database

_c, _m, _v, _e = (
    schema.conversations,
    schema.messages,
    schema.visitors,
    schema.message_edits,
)


@dataclass(frozen=True, slots=True)
class Changed:
    """The message in the form of the wire; ``changed`` is false when it stood so already."""

    message: dict[str, Any]
    changed: bool


def edit(
    database: Database,
    caller: Agent | VisitorIdentity,
    *,
    conversation_id: int,
    stream: int,
    seq: int,
    body: str,
    window_seconds: int,
) -> Changed:
    """Give the caller's own message another text.

    Raises :class:`NotFound`, :class:`Forbidden` for somebody else's message, and :class:`Refused`
    when ``window_seconds`` have passed since it was sent. Blocking.
    """
    with database.write() as connection:
        place, message = _locked(connection, caller, conversation_id, stream, seq)
        if not _is_own(caller, message):
            raise Forbidden
        if message.deleted_at is not None:
            raise Refused("message_deleted", "It was deleted: write a new message.")
        if isinstance(caller, VisitorIdentity) and _is_blocked(connection, place.visitor_id):
            raise Refused(
                "visitor_blocked", "The support team does not take messages from this visitor."
            )
        if text.is_blank(body):
            if not message.attachments:
                raise Refused(
                    "invalid_request",
                    "The text may be blank only when there are files: delete the message instead.",
                    field="body",
                )
            body = ""
        if body == message.body:
            return Changed(_now(connection, conversation_id, stream, seq), False)
        _check_window(message, window_seconds)
        values = {"body": body, "edited_at": clock.now()}
        _change(connection, place, (conversation_id, stream, seq), values)
        return Changed(_now(connection, conversation_id, stream, seq), True)


def remove(
    database: Database,
    caller: Agent | VisitorIdentity,
    *,
    conversation_id: int,
    stream: int,
    seq: int,
    window_seconds: int,
    actor: Actor | None,
) -> Changed:
    """Delete a message's text and files; its place stays.

    The own message within ``window_seconds``; who may moderate, any message at any time, and that
    is noted in the audit log in the name of ``actor``. Raises as :func:`edit` does. Blocking.
    """
    with database.write() as connection:
        place, message = _locked(connection, caller, conversation_id, stream, seq)
        own = _is_own(caller, message)
        moderates = isinstance(caller, Agent) and permissions.allows(caller, "messages.moderate")
        if not own and not moderates:
            raise Forbidden
        if message.deleted_at is not None:
            return Changed(_now(connection, conversation_id, stream, seq), False)
        if not moderates:
            _check_window(message, window_seconds)
        connection.execute(
            delete(schema.attachments).where(
                schema.attachments.c.conversation_id == conversation_id,
                schema.attachments.c.stream == stream,
                schema.attachments.c.seq == seq,
            )
        )
        values = {"body": "", "attachments": None, "deleted_at": clock.now()}
        _change(connection, place, (conversation_id, stream, seq), values)
        if not own and actor is not None:
            audit.record(
                connection,
                actor,
                "message.deleted",
                "conversation",
                object_id=conversation_id,
                details={"stream": schema.STREAM_NAMES[stream], "seq": seq},
            )
        return Changed(_now(connection, conversation_id, stream, seq), True)


def _locked(
    connection: Connection,
    caller: Agent | VisitorIdentity,
    conversation_id: int,
    stream: int,
    seq: int,
) -> tuple[Any, Any]:
    """The conversation, locked, and the message, when the caller may change messages there."""
    place = connection.execute(
        select(_c.c.inbox_id, _c.c.visitor_id, _c.c.last_edit_public, _c.c.last_edit_staff)
        .where(_c.c.id == conversation_id)
        .with_for_update()
    ).one_or_none()
    if place is None:
        raise NotFound
    permissions.reach(caller, inbox_id=place.inbox_id, visitor_id=place.visitor_id)
    if isinstance(caller, VisitorIdentity) and stream != schema.PUBLIC:
        raise NotFound
    message = connection.execute(
        select(_m).where(
            _m.c.conversation_id == conversation_id, _m.c.stream == stream, _m.c.seq == seq
        )
    ).one_or_none()
    if message is None:
        raise NotFound
    if message.sender_type == "system":
        raise Forbidden
    return place, message


def _is_blocked(connection: Connection, visitor_id: int) -> bool:
    # a statement of its own: joined, the visitor's row would be locked as well
    blocked_at = connection.execute(select(_v.c.blocked_at).where(_v.c.id == visitor_id)).scalar()
    return blocked_at is not None


def _is_own(caller: Agent | VisitorIdentity, message: Any) -> bool:
    if isinstance(caller, VisitorIdentity):
        # a conversation has one visitor, under however many ids it was known before
        return bool(message.sender_type == "visitor")
    return bool(message.sender_type == "agent" and message.sender_id == caller.id)


def _check_window(message: Any, window_seconds: int) -> None:
    if clock.now() - message.created_at > timedelta(seconds=window_seconds):
        raise Refused(
            "edit_window_over",
            f"A message can be changed for {window_seconds} seconds: write another one.",
        )


def _change(
    connection: Connection,
    place: Any,
    key: tuple[int, int, int],
    values: dict[str, Any],
) -> None:
    """Change the row, give the change its number, and tell the search and the webhooks."""
    conversation_id, stream, seq = key
    connection.execute(
        update(_m)
        .where(_m.c.conversation_id == conversation_id, _m.c.stream == stream, _m.c.seq == seq)
        .values(**values)
    )
    column = _c.c.last_edit_staff if stream == schema.STAFF else _c.c.last_edit_public
    number = place._mapping[column] + 1
    connection.execute(
        insert(_e).values(conversation_id=conversation_id, stream=stream, edit_seq=number, seq=seq)
    )
    # updated_at stays: an edit is no activity that brings a conversation to the top
    connection.execute(
        update(_c)
        .where(_c.c.id == conversation_id)
        .values({column: number, _c.c.version: _c.c.version + 1})
    )
    search.reindex(connection, conversation_id, stream, seq)
    webhook_events.record(
        connection,
        "message.updated",
        inbox_id=place.inbox_id,
        conversation_id=conversation_id,
        stream=stream,
        seq=seq,
    )


def _now(connection: Connection, conversation_id: int, stream: int, seq: int) -> dict[str, Any]:
    ((_, message),) = messages.these(connection, [(conversation_id, stream, seq)])
    return message
