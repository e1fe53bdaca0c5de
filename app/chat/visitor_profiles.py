"""Visitors as the staff know them: found, read, corrected, blocked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, or_, select, update

from app import clock
from app.chat import access, attributes, audit, pages, permissions
from app.chat.errors import NotFound
from app.chat.permissions import Actor, Agent
from app.chat.visitors import PAGES_KEPT
from app.db import schema
from app.db.engines import Database

CONVERSATIONS_SHOWN: Final = 50

_v, _i, _c, _u = schema.visitors, schema.inboxes, schema.conversations, schema.users
_pages = schema.visitor_pages
_SELECT: Final = select(_v, _i.c.name.label("inbox_name")).join(_i, _i.c.id == _v.c.inbox_id)


def wire(row: Any) -> dict[str, Any]:
    """The Visitor of the API."""
    page = {"url": row.page_url, "title": row.page_title} if row.page_url else None
    return {
        "id": row.id,
        "inbox": {"id": row.inbox_id, "name": row.inbox_name},
        "name": row.name,
        "email": row.email,
        "phone": row.phone,
        "identifier": row.identifier,
        "attributes": attributes.read(row.attributes),
        "language": row.language,
        "browser": row.browser,
        "page": page,
        "referrer": row.referrer,
        "address": row.address,
        "blocked_at": clock.wire(row.blocked_at) if row.blocked_at is not None else None,
        "first_seen_at": clock.wire(row.first_seen_at),
        "last_seen_at": clock.wire(row.last_seen_at),
    }


def find(
    database: Database,
    agent: Agent,
    *,
    query: str | None,
    inbox_id: int | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """Visitors of the agent's inboxes, those seen last first, and the cursor of the next page.

    ``query`` is a part of the name, e-mail, telephone number or identifier. Raises
    :class:`app.chat.pages.BadCursor`. Blocking.
    """
    wanted = (
        _SELECT.where(_v.c.merged_into_id.is_(None))
        .order_by(_v.c.last_seen_at.desc(), _v.c.id.desc())
        .limit(limit + 1)
    )
    if agent.inbox_ids is not None:
        wanted = wanted.where(_v.c.inbox_id.in_(sorted(agent.inbox_ids)))
    if inbox_id is not None:
        wanted = wanted.where(_v.c.inbox_id == inbox_id)
    if query:
        columns = (_v.c.name, _v.c.email, _v.c.phone, _v.c.identifier)
        wanted = wanted.where(or_(*(column.contains(query, autoescape=True) for column in columns)))
    if cursor is not None:
        seen_at, last_id = pages.read_cursor(cursor, datetime, int)
        wanted = wanted.where(
            _v.c.last_seen_at <= seen_at,
            or_(_v.c.last_seen_at < seen_at, _v.c.id < last_id),
        )
    with database.read() as connection:
        rows = connection.execute(wanted).all()
    page = rows[:limit]
    more = len(rows) > limit
    return (
        [wire(row) for row in page],
        pages.make_cursor(page[-1].last_seen_at, page[-1].id) if more else None,
    )


def one(database: Database, agent: Agent, visitor_id: int) -> dict[str, Any]:
    """A visitor with its pages and conversations, the newest first.

    Of one that was merged, the one it turned out to be. Raises :class:`NotFound`. Blocking.
    """
    with database.read() as connection:
        return _detail(connection, _reach(connection, agent, visitor_id))


def change(
    database: Database, agent: Agent, actor: Actor, visitor_id: int, values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """Correct ``name``, ``email``, ``phone`` or ``attributes`` (merged, null removes one).

    Gives the visitor and the conversations that show it. Raises :class:`NotFound`, or
    :class:`app.chat.errors.Refused` when the attributes become too many. Blocking.
    """
    with database.write() as connection:
        row = _reach(connection, agent, visitor_id, lock=True)
        columns = dict(values)
        if "attributes" in columns:
            columns["attributes"] = attributes.merged(row.attributes, columns["attributes"])
        if columns:
            connection.execute(update(_v).where(_v.c.id == row.id).values(**columns))
            # which fields, not what stands in them: the audit log outlives an erased visitor
            audit.record(
                connection,
                actor,
                "visitor.updated",
                "visitor",
                object_id=row.id,
                details={"changed": sorted(columns)},
            )
        shown = _detail(connection, _row(connection, row.id))
    return shown, [item["id"] for item in shown["conversations"]]


def set_blocked(
    database: Database, agent: Agent, actor: Actor, visitor_id: int, *, blocked: bool
) -> dict[str, Any]:
    """Block a visitor, or let it write again. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _reach(connection, agent, visitor_id, lock=True)
        if (row.blocked_at is not None) != blocked:
            connection.execute(
                update(_v)
                .where(_v.c.id == row.id)
                .values(blocked_at=clock.now() if blocked else None)
            )
            audit.record(
                connection,
                actor,
                "visitor.blocked" if blocked else "visitor.unblocked",
                "visitor",
                object_id=row.id,
            )
            access.changed(connection, [access.visitor_owner(row.id)])
        return _detail(connection, _row(connection, row.id))


def _row(connection: Connection, visitor_id: int, *, lock: bool = False) -> Any:
    query = _SELECT.where(_v.c.id == visitor_id)
    if lock:
        query = query.with_for_update(of=_v)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound
    return row


def _reach(connection: Connection, agent: Agent, visitor_id: int, *, lock: bool = False) -> Any:
    row = _row(connection, visitor_id, lock=lock)
    # only anonymous visitors are merged, into identified ones: one step leads there
    if row.merged_into_id is not None:
        row = _row(connection, row.merged_into_id, lock=lock)
    permissions.reach(agent, inbox_id=row.inbox_id, visitor_id=row.id)
    return row


def _detail(connection: Connection, row: Any) -> dict[str, Any]:
    visited = connection.execute(
        select(_pages.c.url, _pages.c.title, _pages.c.seen_at)
        .where(_pages.c.visitor_id == row.id)
        .order_by(_pages.c.id.desc())
        .limit(PAGES_KEPT)
    )
    held = connection.execute(
        select(
            _c.c.id,
            _c.c.status,
            _c.c.form,
            _c.c.created_at,
            _c.c.updated_at,
            _u.c.id.label("assignee_id"),
            _u.c.name.label("assignee_name"),
            _u.c.avatar_url,
        )
        .outerjoin(_u, _u.c.id == _c.c.assignee_id)
        .where(_c.c.visitor_id == row.id)
        .order_by(_c.c.id.desc())
        .limit(CONVERSATIONS_SHOWN)
    )
    return {
        **wire(row),
        "pages": [
            {"url": page.url, "title": page.title, "seen_at": clock.wire(page.seen_at)}
            for page in visited
        ],
        "conversations": [
            {
                "id": one.id,
                "status": one.status,
                "assignee": {
                    "id": one.assignee_id,
                    "name": one.assignee_name,
                    "avatar_url": one.avatar_url,
                }
                if one.assignee_id is not None
                else None,
                "form": orjson.loads(one.form) if one.form else None,
                "created_at": clock.wire(one.created_at),
                "updated_at": clock.wire(one.updated_at),
            }
            for one in held
        ],
    }
