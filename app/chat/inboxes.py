"""Inboxes: one per site that carries the widget."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import permissions
from app.chat.permissions import Agent
from app.db import schema

# empty: the widget greets in the language of its reader
DEFAULT_GREETING: Final = ""
DEFAULT_COLOR: Final = "#0d6b58"
DEFAULT_LANGUAGES: Final = ("en", "zh-Hant-TW")

_inboxes = schema.inboxes


def create(connection: Connection, *, name: str, key: str | None = None) -> tuple[str, bool]:
    """Make an inbox; gives its key and whether it is new.

    With ``key`` an inbox that has it is left as it is; without, one of the same name is.
    """
    same = _inboxes.c.key == key if key else _inboxes.c.name == name
    present = connection.execute(
        select(_inboxes.c.key).where(same).order_by(_inboxes.c.id).limit(1)
    ).scalar()
    if present is not None:
        return str(present), False
    key = key or clock.token(12).replace("-", "x").replace("_", "y")
    try:
        with connection.begin_nested():
            connection.execute(
                insert(_inboxes).values(
                    key=key,
                    name=name,
                    greeting=DEFAULT_GREETING,
                    color=DEFAULT_COLOR,
                    languages=",".join(DEFAULT_LANGUAGES),
                    created_at=clock.now(),
                )
            )
    except IntegrityError:
        return key, False
    return key, True


def refs(connection: Connection, agent: Agent) -> list[dict[str, Any]]:
    """The InboxRef of every inbox that the agent sees, by name."""
    rows = connection.execute(
        select(_inboxes.c.id, _inboxes.c.name)
        .where(_inboxes.c.archived_at.is_(None))
        .order_by(_inboxes.c.name, _inboxes.c.id)
    )
    return [
        {"id": row.id, "name": row.name} for row in rows if permissions.sees_inbox(agent, row.id)
    ]


def by_key(connection: Connection, key: str) -> Any | None:
    """The row of the inbox with this key."""
    return connection.execute(select(_inboxes).where(_inboxes.c.key == key)).one_or_none()


def widget_wire(row: Any) -> dict[str, Any]:
    """What the widget may know of its inbox."""
    return {
        "id": row.id,
        "name": row.name,
        "greeting": row.greeting,
        "color": row.color,
        "languages": row.languages.split(","),
    }
