"""What waits and what failed, for whoever looks after the installation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select, text

from app import clock
from app.db import schema

FAILED_WITHIN: Final = timedelta(days=1)


def backlog(connection: Connection) -> dict[str, Any]:
    """Rows that wait for the worker, and what failed within a day."""
    since = clock.now() - FAILED_WITHIN
    events, outbox = schema.webhook_events, schema.outbox
    told: dict[str, Any] = {
        "outbox": _count(connection, outbox),
        "webhook_events": _count(connection, events),
    }
    for name, table in (
        ("webhook_deliveries", schema.webhook_deliveries),
        ("mails", schema.mails),
    ):
        told[name] = {
            "pending": _count(connection, table, table.c.status == "pending"),
            "failed_last_day": _count(
                connection, table, table.c.status == "failed", table.c.created_at >= since
            ),
        }
    return told


def _count(connection: Connection, table: Any, *conditions: Any) -> int:
    query = select(func.count()).select_from(table).where(*conditions)
    return int(connection.execute(query).scalar_one())


def server(connection: Connection) -> dict[str, Any]:
    """What a database server says of itself: its version, and whether it takes writes."""
    if connection.dialect.name == "mysql":
        row = connection.execute(text("SELECT VERSION(), @@global.read_only")).one()
        return {"version": str(row[0]), "read_only": bool(row[1])}
    version = connection.execute(text("SELECT sqlite_version()")).scalar_one()
    return {"version": f"SQLite {version}", "read_only": False}
