"""The outbox: events that Redis did not take, until the worker relays them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from app import clock
from app.db import schema
from app.db.engines import Database

_outbox = schema.outbox


def keep(database: Database, rows: Sequence[tuple[str, str]]) -> None:
    """Store (channel, message) pairs in their order. Blocking."""
    now = clock.now()
    with database.write() as connection:
        connection.execute(
            insert(_outbox),
            [
                {"channel": channel, "message": message, "created_at": now}
                for channel, message in rows
            ],
        )


def oldest(connection: Connection, limit: int) -> Sequence[Any]:
    """The oldest ``limit`` rows: id, channel, message, created_at."""
    return connection.execute(select(_outbox).order_by(_outbox.c.id).limit(limit)).all()


def remove(connection: Connection, ids: Sequence[int]) -> None:
    """Delete rows that were relayed."""
    connection.execute(delete(_outbox).where(_outbox.c.id.in_(ids)))


def waiting(connection: Connection) -> int:
    """How many rows wait."""
    return int(connection.execute(select(func.count()).select_from(_outbox)).scalar_one())


def expired(row: Any, lifetime: timedelta) -> bool:
    """Whether a row is so old that every client has fetched what it tells by now."""
    return bool(row.created_at < clock.now() - lifetime)
