"""Conversations: the staff list, one conversation, claiming, read marks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)

from app import clock
from app.chat import messages, pages, permissions
from app.chat.errors import AlreadyClaimed, NotFound
from app.chat.permissions import Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database
from app.db.upsert import raise_read_mark

View = Literal["mine", "unassigned", "all"]
ReaderType = Literal["visitor", "agent"]

STATUSES: Final = ("open", "snoozed", "resolved")

_c, _v, _i, _u = schema.conversations, schema.visitors, schema.inboxes, schema.users
_m, _r = schema.messages, schema.read_marks
_author = _u.alias("author")
_my_public, _my_staff = _r.alias("my_public"), _r.alias("my_staff")
_visitor_mark = _r.alias("visitor_mark")


@dataclass(frozen=True, slots=True)
class Moved:
    """A reader's marks after a move; ``moved`` is false when they stood there or further.

    ``read`` says that the read mark was asked to move, and not only the delivered mark.
    """

    conversation_id: int
    inbox_id: int
    reader_type: ReaderType
    reader_id: int
    stream: int
    seq: int
    delivered_seq: int
    read: bool
    moved: bool


def _staff_mark(seq: Any) -> Any:
    return (
        select(func.coalesce(func.max(seq), 0))
        .where(
            _r.c.conversation_id == _c.c.id,
            _r.c.stream == schema.PUBLIC,
            _r.c.reader_type == "agent",
        )
        .scalar_subquery()
    )


def _mark(alias: Any, stream: int, reader_type: str, reader_id: Any) -> Any:
    return and_(
        alias.c.conversation_id == _c.c.id,
        alias.c.stream == stream,
        alias.c.reader_type == reader_type,
        alias.c.reader_id == reader_id,
    )


def _staff_select() -> Select[Any]:
    """Everything that the staff's Conversation shows; ``me`` is the reading agent (0: nobody)."""
    me: BindParameter[int] = bindparam("me")
    return (
        select(
            _c,
            _i.c.name.label("inbox_name"),
            _v.c.name.label("visitor_name"),
            _v.c.email.label("visitor_email"),
            _v.c.language,
            _v.c.browser,
            _v.c.page_url,
            _v.c.page_title,
            _v.c.referrer,
            _v.c.first_seen_at,
            _v.c.last_seen_at,
            _u.c.name.label("assignee_name"),
            _u.c.avatar_url.label("assignee_avatar_url"),
            func.coalesce(_my_public.c.seq, 0).label("my_public_seq"),
            func.coalesce(_my_staff.c.seq, 0).label("my_staff_seq"),
            func.coalesce(_visitor_mark.c.seq, 0).label("visitor_read_seq"),
            func.coalesce(_visitor_mark.c.delivered_seq, 0).label("visitor_delivered_seq"),
            _staff_mark(_r.c.seq).label("staff_read_seq"),
            _staff_mark(_r.c.delivered_seq).label("staff_delivered_seq"),
            _m.c.client_id,
            _m.c.seq,
            _m.c.stream,
            _m.c.sender_type,
            _m.c.sender_id,
            _m.c.kind,
            _m.c.body,
            _m.c.created_at.label("sent_at"),
            _m.c.edited_at,
            _m.c.deleted_at,
            _m.c.attachments,
            _m.c.event,
            _author.c.name.label("author_name"),
            _author.c.avatar_url.label("author_avatar_url"),
        )
        .join(_i, _i.c.id == _c.c.inbox_id)
        .join(_v, _v.c.id == _c.c.visitor_id)
        .outerjoin(_u, _u.c.id == _c.c.assignee_id)
        .outerjoin(
            _m,
            and_(
                _m.c.conversation_id == _c.c.id,
                _m.c.stream == schema.PUBLIC,
                _m.c.seq == _c.c.last_seq_public,
            ),
        )
        .outerjoin(_author, and_(_m.c.sender_type == "agent", _author.c.id == _m.c.sender_id))
        .outerjoin(_my_public, _mark(_my_public, schema.PUBLIC, "agent", me))
        .outerjoin(_my_staff, _mark(_my_staff, schema.STAFF, "agent", me))
        .outerjoin(_visitor_mark, _mark(_visitor_mark, schema.PUBLIC, "visitor", _c.c.visitor_id))
    )


_STAFF: Final = _staff_select()
_STAFF_ONE: Final = _STAFF.where(_c.c.id == bindparam("id"))
_STAFF_MANY: Final = _STAFF.where(_c.c.id.in_(bindparam("ids", expanding=True)))


def staff_list(
    database: Database,
    agent: Agent,
    *,
    view: View,
    status: str | None,
    inbox_id: int | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """Conversations with the newest activity first, and the cursor of the next page.

    Raises :class:`app.chat.pages.BadCursor`. Blocking.
    """
    query = _STAFF.order_by(_c.c.updated_at.desc(), _c.c.id.desc()).limit(limit + 1)
    if agent.inbox_ids is not None:
        query = query.where(_c.c.inbox_id.in_(sorted(agent.inbox_ids)))
    if view == "mine":
        query = query.where(_c.c.assignee_id == agent.id)
    elif view == "unassigned":
        query = query.where(_c.c.assignee_id.is_(None))
    if status is not None:
        query = query.where(_c.c.status == status)
    if inbox_id is not None:
        query = query.where(_c.c.inbox_id == inbox_id)
    if cursor is not None:
        updated_at, last_id = pages.read_cursor(cursor, datetime, int)
        query = query.where(
            _c.c.updated_at <= updated_at,
            or_(_c.c.updated_at < updated_at, _c.c.id < last_id),
        )
    with database.view() as connection:
        rows = connection.execute(query, {"me": agent.id}).all()
    page = rows[:limit]
    more = len(rows) > limit
    return (
        [staff_wire(row, for_reader=True) for row in page],
        pages.make_cursor(page[-1].updated_at, page[-1].id) if more else None,
    )


def staff_one(database: Database, agent: Agent, conversation_id: int) -> dict[str, Any]:
    """One conversation with its visitor's context. Raises :class:`NotFound`. Blocking."""
    with database.view() as connection:
        row = connection.execute(_STAFF_ONE, {"id": conversation_id, "me": agent.id}).one_or_none()
    if row is None:
        raise NotFound
    permissions.reach(agent, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
    page = {"url": row.page_url, "title": row.page_title} if row.page_url else None
    return {
        **staff_wire(row, for_reader=True),
        "visitor_context": {
            "language": row.language,
            "browser": row.browser,
            "page": page,
            "referrer": row.referrer,
            "first_seen_at": clock.wire(row.first_seen_at),
            "last_seen_at": clock.wire(row.last_seen_at),
        },
    }


def for_events(database: Database, ids: Collection[int]) -> list[tuple[dict[str, Any], Any]]:
    """The staff's form without a reader's own fields, and the row, of each conversation."""
    with database.read() as connection:
        return for_events_in(connection, ids)


def for_events_in(connection: Connection, ids: Collection[int]) -> list[tuple[dict[str, Any], Any]]:
    """As :func:`for_events`, in a transaction that is open already."""
    rows = connection.execute(_STAFF_MANY, {"ids": sorted(ids), "me": 0}).all() if ids else []
    return [(staff_wire(row, for_reader=False), row) for row in rows]


def staff_wire(row: Any, *, for_reader: bool) -> dict[str, Any]:
    """The staff's Conversation of a row; without ``for_reader`` what belongs to no single agent."""
    mine = {}
    if for_reader:
        mine = {
            "read_seq": {"public": row.my_public_seq, "staff": row.my_staff_seq},
            "unread": max(row.last_seq_public - row.my_public_seq, 0),
        }
    return {
        "id": row.id,
        "inbox": {"id": row.inbox_id, "name": row.inbox_name},
        "visitor": {"id": row.visitor_id, "name": row.visitor_name, "email": row.visitor_email},
        "status": row.status,
        "assignee": _assignee(row),
        "last_seq": {"public": row.last_seq_public, "staff": row.last_seq_staff},
        **mine,
        "visitor_read_seq": row.visitor_read_seq,
        "visitor_delivered_seq": row.visitor_delivered_seq,
        "staff_read_seq": row.staff_read_seq,
        "staff_delivered_seq": row.staff_delivered_seq,
        "last_message": _last_message(row),
        "created_at": clock.wire(row.created_at),
        "updated_at": clock.wire(row.updated_at),
        "version": row.version,
    }


def widget_wire(row: Any, *, for_reader: bool) -> dict[str, Any]:
    """The visitor's Conversation of the same row; nothing in it is the staff's own."""
    mine = {}
    if for_reader:
        mine = {
            "read_seq": row.visitor_read_seq,
            "unread": max(row.last_seq_public - row.visitor_read_seq, 0),
        }
    return {
        "id": row.id,
        "status": row.status,
        "assignee": _assignee(row),
        "last_seq": row.last_seq_public,
        **mine,
        "staff_read_seq": row.staff_read_seq,
        "staff_delivered_seq": row.staff_delivered_seq,
        "created_at": clock.wire(row.created_at),
    }


def _assignee(row: Any) -> dict[str, Any] | None:
    if row.assignee_id is None:
        return None
    return {
        "id": row.assignee_id,
        "name": row.assignee_name,
        "avatar_url": row.assignee_avatar_url,
    }


def _last_message(row: Any) -> dict[str, Any] | None:
    if row.client_id is None:
        return None
    of_visitor = row.sender_type == "visitor"
    return messages.wire(
        conversation_id=row.id,
        stream=row.stream,
        seq=row.seq,
        client_id=row.client_id,
        sender_type=row.sender_type,
        sender_id=row.sender_id,
        sender_name=row.visitor_name if of_visitor else row.author_name,
        sender_avatar_url=None if of_visitor else row.author_avatar_url,
        kind=row.kind,
        body=row.body,
        created_at=row.sent_at,
        edited_at=row.edited_at,
        deleted_at=row.deleted_at,
        attachments=row.attachments,
        event=row.event,
    )


def current_of_visitor(database: Database, visitor_id: int) -> dict[str, Any] | None:
    """The visitor's newest conversation that is not resolved, in the widget's form. Blocking."""
    newest = (
        select(func.max(_c.c.id))
        .where(_c.c.visitor_id == visitor_id, _c.c.status != "resolved")
        .scalar_subquery()
    )
    with database.read() as connection:
        row = connection.execute(_STAFF.where(_c.c.id == newest), {"me": 0}).one_or_none()
    return widget_wire(row, for_reader=True) if row is not None else None


def of_visitor(database: Database, conversation_id: int, visitor_id: int) -> dict[str, Any]:
    """A conversation of the visitor in the widget's form. Raises :class:`NotFound`. Blocking."""
    with database.read() as connection:
        row = connection.execute(_STAFF_ONE, {"id": conversation_id, "me": 0}).one_or_none()
    if row is None or row.visitor_id != visitor_id:
        raise NotFound
    return widget_wire(row, for_reader=True)


def claim(database: Database, agent: Agent, conversation_id: int) -> tuple[dict[str, Any], bool]:
    """Give the conversation to the agent when nobody has it; the primary decides (P9).

    Gives the conversation and whether it changed hands: claiming what one has changes nothing.
    Raises :class:`AlreadyClaimed` with the holder, or :class:`NotFound`. Blocking.
    """
    with database.write() as connection:
        place = whereabouts(connection, conversation_id)
        permissions.reach(agent, inbox_id=place.inbox_id, visitor_id=place.visitor_id)
        won = connection.execute(
            update(_c)
            .where(_c.c.id == conversation_id, _c.c.assignee_id.is_(None))
            .values(assignee_id=agent.id, version=_c.c.version + 1, updated_at=clock.now())
        )
        row = connection.execute(_STAFF_ONE, {"id": conversation_id, "me": agent.id}).one()
    if row.assignee_id != agent.id:
        raise AlreadyClaimed(_assignee(row) or {})
    return staff_wire(row, for_reader=True), won.rowcount == 1


def whereabouts(connection: Connection, conversation_id: int) -> Any:
    """The ``inbox_id`` and ``visitor_id`` of a conversation. Raises :class:`NotFound`."""
    row = connection.execute(
        select(_c.c.inbox_id, _c.c.visitor_id).where(_c.c.id == conversation_id)
    ).one_or_none()
    if row is None:
        raise NotFound
    return row


def inbox_exists(connection: Connection, inbox_id: int) -> bool:
    """Whether there is an inbox with this id."""
    return connection.execute(select(_i.c.id).where(_i.c.id == inbox_id)).first() is not None


def move_mark(
    database: Database,
    *,
    conversation_id: int,
    stream: int,
    reader: Agent | VisitorIdentity,
    seq: int,
    read: bool,
) -> Moved:
    """Move a reader's marks forward, at most to the last seq: what was read was also delivered.

    Without ``read`` only the delivered mark moves. Raises :class:`NotFound`. Blocking.
    """
    reader_type: ReaderType = "agent" if isinstance(reader, Agent) else "visitor"
    reader_id = reader.id
    last = _c.c.last_seq_staff if stream == schema.STAFF else _c.c.last_seq_public
    query = (
        select(
            _c.c.visitor_id,
            _c.c.inbox_id,
            last.label("last"),
            func.coalesce(_my_public.c.seq, 0).label("read_seq"),
            func.coalesce(_my_public.c.delivered_seq, 0).label("delivered_seq"),
        )
        .outerjoin(_my_public, _mark(_my_public, stream, reader_type, reader_id))
        .where(_c.c.id == conversation_id)
    )
    with database.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound
    permissions.reach(reader, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
    reached = min(seq, row.last)
    read_seq = max(row.read_seq, reached) if read else row.read_seq
    delivered_seq = max(row.delivered_seq, reached, read_seq)
    moved = read_seq > row.read_seq or delivered_seq > row.delivered_seq
    if moved:
        with database.write() as connection:
            connection.execute(
                raise_read_mark(connection.dialect),
                {
                    "conversation_id": conversation_id,
                    "stream": stream,
                    "reader_type": reader_type,
                    "reader_id": reader_id,
                    "seq": read_seq,
                    "delivered_seq": delivered_seq,
                    "updated_at": clock.now(),
                },
            )
    return Moved(
        conversation_id,
        row.inbox_id,
        reader_type,
        reader_id,
        stream,
        read_seq,
        delivered_seq,
        read,
        moved,
    )
