"""API keys: programs that act as an account, with its role and its inboxes.

A key is ``dk_`` and 43 random characters. It is shown once; the database holds its SHA-256 and the
first characters, by which people tell keys apart.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, insert, or_, select, update

from app import clock
from app.chat import access, accounts, audit, pages
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor
from app.db import schema
from app.db.engines import Database

KEYS_MAX: Final = 500
SHOWN_CHARACTERS: Final = 9

_keys, _users = schema.api_keys, schema.users
_QUERY: Final = select(_keys, _users.c.name.label("user_name"), _users.c.avatar_url).join(
    _users, _users.c.id == _keys.c.user_id
)


def page(
    database: Database, *, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of all keys, newest first. Blocking."""
    query = _QUERY.order_by(_keys.c.id.desc()).limit(limit + 1)
    if cursor:
        (before,) = pages.read_cursor(cursor, int)
        query = query.where(_keys.c.id < before)
    with database.read() as connection:
        rows = connection.execute(query).all()
    more = len(rows) > limit
    next_cursor = pages.make_cursor(rows[limit - 1].id) if more else None
    return [_wire(row) for row in rows[:limit]], next_cursor


def create(
    database: Database, actor: Actor, *, name: str, user_id: int, days: int | None
) -> dict[str, Any]:
    """Make a key that acts as the account ``user_id``, for ``days`` or until it is revoked.

    The answer is the only one that holds the key itself. Raises :class:`Refused` when there is no
    such active account, or too many keys. Blocking.
    """
    key = accounts.API_KEY_PREFIX + clock.token()
    now = clock.now()
    with database.write() as connection:
        user = connection.execute(
            select(_users.c.id).where(_users.c.id == user_id, _users.c.active).with_for_update()
        ).first()
        if user is None:
            raise Refused("invalid_request", "There is no such active account.", field="user_id")
        valid = (_keys.c.revoked_at.is_(None)) & or_(
            _keys.c.expires_at.is_(None), _keys.c.expires_at > now
        )
        count = connection.execute(
            select(func.count()).select_from(_keys).where(valid)
        ).scalar_one()
        if count >= KEYS_MAX:
            raise Refused("conflict", f"There are {KEYS_MAX} valid keys: revoke one first.")
        result = connection.execute(
            insert(_keys).values(
                user_id=user_id,
                name=name,
                key_hash=accounts.hash_token(key),
                prefix=key[:SHOWN_CHARACTERS],
                created_at=now,
                expires_at=now + timedelta(days=days) if days is not None else None,
            )
        )
        made = result.inserted_primary_key
        assert made is not None  # noqa: S101  every dialect used here gives the new id
        audit.record(
            connection,
            actor,
            "api_key.created",
            "api_key",
            object_id=made[0],
            details={"name": name, "user_id": user_id, "days": days},
        )
        row = connection.execute(_QUERY.where(_keys.c.id == made[0])).one()
    return {**_wire(row), "key": key}


def revoke(database: Database, actor: Actor, key_id: int) -> None:
    """End a key for good; twice changes nothing. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = connection.execute(
            select(_keys).where(_keys.c.id == key_id).with_for_update()
        ).one_or_none()
        if row is None:
            raise NotFound
        if row.revoked_at is not None:
            return
        connection.execute(update(_keys).where(_keys.c.id == key_id).values(revoked_at=clock.now()))
        audit.record(
            connection,
            actor,
            "api_key.revoked",
            "api_key",
            object_id=key_id,
            details={"name": row.name},
        )
        access.changed(connection, [access.user_owner(row.user_id)])


def _wire(row: Any) -> dict[str, Any]:
    """The ApiKey of the API."""
    return {
        "id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "user": {"id": row.user_id, "name": row.user_name, "avatar_url": row.avatar_url},
        "created_at": clock.wire(row.created_at),
        "expires_at": clock.wire(row.expires_at) if row.expires_at else None,
        "last_used_at": clock.wire(row.last_used_at) if row.last_used_at else None,
        "revoked_at": clock.wire(row.revoked_at) if row.revoked_at else None,
    }
