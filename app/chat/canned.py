"""Canned responses: texts that staff send often, with variables that are filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import audit, pages, permissions, text
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor, Agent
from app.db import schema
from app.db.engines import Database

CANNED_MAX: Final = 5000
_VARIABLE: Final = re.compile(r"\{\{\s*([A-Za-z0-9_.\-]{1,100})\s*\}\}")

_r, _c, _v, _i = (
    schema.canned_responses,
    schema.conversations,
    schema.visitors,
    schema.inboxes,
)


def wire(row: Any) -> dict[str, Any]:
    """The CannedResponse of the API."""
    return {
        "id": row.id,
        "shortcut": row.shortcut,
        "title": row.title,
        "body": row.body,
        "inbox_id": row.inbox_id,
        "created_at": clock.wire(row.created_at),
        "updated_at": clock.wire(row.updated_at),
    }


def find(
    database: Database,
    agent: Agent,
    *,
    prefix: str | None,
    inbox_id: int | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """Responses by shortcut, those of the agent's inboxes and those for every inbox.

    ``prefix`` is what the shortcut begins with, ``inbox_id`` leaves out those of other inboxes.
    Raises :class:`app.chat.pages.BadCursor`. Blocking.
    """
    query = select(_r).order_by(_r.c.shortcut).limit(limit + 1)
    if agent.inbox_ids is not None:
        query = query.where(
            or_(_r.c.inbox_id.is_(None), _r.c.inbox_id.in_(sorted(agent.inbox_ids)))
        )
    if inbox_id is not None:
        query = query.where(or_(_r.c.inbox_id.is_(None), _r.c.inbox_id == inbox_id))
    if prefix:
        query = query.where(_r.c.shortcut.startswith(prefix, autoescape=True))
    if cursor is not None:
        (last,) = pages.read_cursor(cursor, str)
        query = query.where(_r.c.shortcut > last)
    with database.view() as connection:
        rows = connection.execute(query).all()
    page = rows[:limit]
    more = len(rows) > limit
    return [wire(row) for row in page], pages.make_cursor(page[-1].shortcut) if more else None


def one(database: Database, agent: Agent, response_id: int) -> dict[str, Any]:
    """One response that the agent may use. Raises :class:`NotFound`. Blocking."""
    with database.view() as connection:
        return wire(_visible(connection, agent, response_id))


def create(
    database: Database, actor: Actor, *, shortcut: str, title: str, body: str, inbox_id: int | None
) -> dict[str, Any]:
    """Make a response. Raises :class:`Refused` when the shortcut is taken. Blocking."""
    now = clock.now()
    try:
        with database.write() as connection:
            count = connection.execute(select(func.count()).select_from(_r)).scalar_one()
            if count >= CANNED_MAX:
                raise Refused(
                    "conflict", f"There are {CANNED_MAX} canned responses already: delete some."
                )
            _check(connection, shortcut=shortcut, inbox_id=inbox_id, own_id=None)
            result = connection.execute(
                insert(_r).values(
                    shortcut=shortcut,
                    title=title,
                    body=body,
                    inbox_id=inbox_id,
                    created_at=now,
                    updated_at=now,
                )
            )
            key = result.inserted_primary_key
            assert key is not None  # noqa: S101  every dialect used here gives the new id
            audit.record(
                connection,
                actor,
                "canned_response.created",
                "canned_response",
                object_id=key[0],
                details={"shortcut": shortcut, "title": title, "inbox_id": inbox_id},
            )
            return wire(_row(connection, int(key[0])))
    except IntegrityError:
        raise _taken() from None


def change(
    database: Database, actor: Actor, response_id: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Change some of shortcut, title, body and inbox_id.

    Raises :class:`NotFound`, or :class:`Refused` when the shortcut is taken. Blocking.
    """
    try:
        with database.write() as connection:
            before = _row(connection, response_id)
            if values:
                _check(
                    connection,
                    shortcut=values.get("shortcut", before.shortcut),
                    inbox_id=values.get("inbox_id", before.inbox_id),
                    own_id=response_id,
                )
                connection.execute(
                    update(_r)
                    .where(_r.c.id == response_id)
                    .values(**values, updated_at=clock.now())
                )
                audit.record(
                    connection,
                    actor,
                    "canned_response.updated",
                    "canned_response",
                    object_id=response_id,
                    # the text itself does not belong into the audit log
                    details=audit.changes({**values, "body": "…"} if "body" in values else values),
                )
            return wire(_row(connection, response_id))
    except IntegrityError:
        raise _taken() from None


def remove(database: Database, actor: Actor, response_id: int) -> None:
    """Delete a response. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _row(connection, response_id)
        connection.execute(delete(_r).where(_r.c.id == response_id))
        audit.record(
            connection,
            actor,
            "canned_response.deleted",
            "canned_response",
            object_id=response_id,
            details={"shortcut": row.shortcut},
        )


def render(
    database: Database, agent: Agent, response_id: int, conversation_id: int
) -> tuple[str, list[str]]:
    """The body filled for a conversation, and the variables that have no value there.

    Those stay in the text as they are. Raises :class:`NotFound`. Blocking.
    """
    with database.view() as connection:
        response = _visible(connection, agent, response_id)
        row = connection.execute(
            select(
                _c.c.inbox_id,
                _c.c.visitor_id,
                _v.c.name,
                _v.c.email,
                _v.c.phone,
                _v.c.attributes,
                _i.c.name.label("inbox_name"),
            )
            .join(_v, _v.c.id == _c.c.visitor_id)
            .join(_i, _i.c.id == _c.c.inbox_id)
            .where(_c.c.id == conversation_id)
        ).one_or_none()
    if row is None:
        raise NotFound
    permissions.reach(agent, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
    if response.inbox_id not in (None, row.inbox_id):
        raise Refused("conflict", "This response belongs to another inbox than the conversation.")
    values: dict[str, Any] = {
        "visitor.name": row.name,
        "visitor.email": row.email,
        "visitor.phone": row.phone,
        "agent.name": agent.name,
        "agent.email": agent.email,
        "inbox.name": row.inbox_name,
        "conversation.id": conversation_id,
    }
    for name, value in orjson.loads(row.attributes or "{}").items():
        values[f"visitor.attributes.{name}"] = value
    return fill(response.body, values)


def fill(body: str, values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Replace ``{{name}}`` once by its value; gives the text and the names without a value.

    What a value holds is never looked at for variables: a visitor may call itself {{agent.email}}.
    """
    unknown: list[str] = []

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None or value == "":
            if match[1] not in unknown:
                unknown.append(match[1])
            return match[0]
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    return _VARIABLE.sub(value_of, body), unknown


def _visible(connection: Connection, agent: Agent, response_id: int) -> Any:
    row = _row(connection, response_id)
    if row.inbox_id is not None:
        permissions.reach(agent, inbox_id=row.inbox_id)
    return row


def _row(connection: Connection, response_id: int) -> Any:
    row = connection.execute(select(_r).where(_r.c.id == response_id)).one_or_none()
    if row is None:
        raise NotFound
    return row


def _check(
    connection: Connection, *, shortcut: str, inbox_id: int | None, own_id: int | None
) -> None:
    if inbox_id is not None:
        known = connection.execute(select(_i.c.id).where(_i.c.id == inbox_id)).first()
        if known is None:
            raise Refused("invalid_request", "There is no such inbox.", field="inbox_id")
    rows = connection.execute(select(_r.c.id, _r.c.shortcut)).all()
    if any(row.id != own_id and text.folded(row.shortcut) == text.folded(shortcut) for row in rows):
        raise _taken()


def _taken() -> Refused:
    return Refused(
        "conflict",
        "Another canned response has this shortcut: choose a different one.",
        field="shortcut",
    )
