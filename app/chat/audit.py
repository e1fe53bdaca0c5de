"""The audit log: who did which administrative act, when, from where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from sqlalchemy import Connection, insert

from app import clock
from app.chat.permissions import Actor
from app.db import schema

SHOWN_CHARACTERS: Final = 200


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
