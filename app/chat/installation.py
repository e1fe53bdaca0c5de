"""What is kept for the whole installation: small JSON values by name."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, update

from app import clock
from app.db import schema

_s = schema.app_settings


def read(connection: Connection, name: str) -> Any:
    """The value stored under ``name``; None when nothing is."""
    value = connection.execute(select(_s.c.value).where(_s.c.name == name)).scalar()
    return orjson.loads(value) if value is not None else None


def store(connection: Connection, name: str, value: Any) -> None:
    """Store a JSON value under ``name``."""
    row = {"value": orjson.dumps(value).decode(), "updated_at": clock.now()}
    # two first writers of one name at once: one gets a duplicate key and tries again
    if connection.execute(update(_s).where(_s.c.name == name).values(**row)).rowcount == 0:
        connection.execute(insert(_s).values(name=name, **row))
