"""The audit log: who did which administrative act, when, from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, insert, select

from app import clock
from app.chat import pages
from app.chat.permissions import Actor
from app.db import schema

SHOWN_CHARACTERS: Final = 200

_log = schema.audit_log


def record(
    connection: Connection,
    actor: Actor,
    action: str,
    object_type: str,
    *,
    object_id: int | str | None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Note an act in the transaction that carries it out.

    ``action`` is ``thing.verb`` as ``inbox.updated``; ``details`` say what was changed and hold no
    secret and no message text.
    """
    connection.execute(
        insert(schema.audit_log).values(
            at=clock.now(),
            actor_type=actor.type,
            actor_id=actor.id,
            actor_name=actor.name,
            action=action,
            object_type=object_type,
            object_id=str(object_id) if object_id is not None else None,
            address=actor.address,
            details=orjson.dumps(details).decode() if details else None,
        )
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted; None: any. ``action`` may end with ``.`` or ``*``: a beginning."""

    actor_id: int | None = None
    action: str | None = None
    object_type: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def entries(
    connection: Connection, wanted: Filter, *, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Entries, newest first, and the cursor of the next page. Raises BadCursor."""
    query = select(_log).order_by(_log.c.id.desc()).limit(limit + 1)
    if wanted.actor_id is not None:
        query = query.where(_log.c.actor_id == wanted.actor_id)
    if wanted.action is not None:
        beginning = wanted.action.removesuffix("*")
        if beginning != wanted.action or beginning.endswith("."):
            query = query.where(_log.c.action.startswith(beginning, autoescape=True))
        else:
            query = query.where(_log.c.action == wanted.action)
    if wanted.object_type is not None:
        query = query.where(_log.c.object_type == wanted.object_type)
    if wanted.object_id is not None:
        query = query.where(_log.c.object_id == wanted.object_id)
    if wanted.since is not None:
        query = query.where(_log.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(_log.c.at < wanted.until)
    if cursor is not None:
        query = query.where(_log.c.id < pages.read_cursor(cursor, int)[0])
    rows = connection.execute(query).all()
    page = rows[:limit]
    more = len(rows) > limit
    return [_wire(row) for row in page], pages.make_cursor(page[-1].id) if more else None


def _wire(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": clock.wire(row.at),
        "actor": {"type": row.actor_type, "id": row.actor_id, "name": row.actor_name},
        "action": row.action,
        "object": {"type": row.object_type, "id": row.object_id},
        "address": row.address,
        "details": orjson.loads(row.details) if row.details else None,
    }


def changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The ``details`` of an update: short values as they are now, of longer ones the name alone."""
    return {
        "changed": {
            name: value
            if value is None
            or isinstance(value, (bool, int))
            or len(str(value)) <= SHOWN_CHARACTERS
            else "…"
            for name, value in values.items()
        }
    }
