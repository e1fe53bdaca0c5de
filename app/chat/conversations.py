"""Conversations as staff and visitors read them, and read marks.

What changes a conversation's state is in :mod:`app.chat.conversation_state`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import orjson
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
)

from app import clock
from app.chat import messages, pages, permissions
from app.chat.errors import NotFound
from app.chat.permissions import Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database
from app.db.upsert import raise_read_mark

View = Literal["mine", "unassigned", "team", "all"]
Sort = Literal["updated", "waiting"]
Priority = Literal["low", "normal", "high", "urgent"]
ReaderType = Literal["visitor", "agent"]

STATUSES: Final = ("open", "snoozed", "resolved")
PRIORITIES: Final[tuple[Priority, ...]] = ("low", "normal", "high", "urgent")
PARTICIPANTS_MAX: Final = 100
# a visitor further back is told this number plus one, and the count stays cheap
QUEUE_MAX: Final = 100

_c, _v, _i, _u = schema.conversations, schema.visitors, schema.inboxes, schema.users
_m, _r = schema.messages, schema.read_marks
_t, _l, _cl = schema.teams, schema.labels, schema.conversation_labels
_p, _tm = schema.participants, schema.team_members
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
            _t.c.name.label("team_name"),
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
        .outerjoin(_t, _t.c.id == _c.c.team_id)
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


# In this order: left to itself MySQL may begin with the labels, and then it reads all the
# conversations that bear one, or asks for every label of each conversation.
_LABELS: Final = (
    select(_cl.c.conversation_id, _l.c.id, _l.c.name, _l.c.color)
    .prefix_with("STRAIGHT_JOIN", dialect="mysql")
    .select_from(_cl)
    .join(_l, _l.c.id == _cl.c.label_id)
    .where(_cl.c.conversation_id.in_(bindparam("ids", expanding=True)))
    .order_by(_l.c.name, _l.c.id)
)
_PARTICIPANTS: Final = (
    select(_u.c.id, _u.c.name, _u.c.avatar_url, _p.c.since)
    .join(_p, _p.c.user_id == _u.c.id)
    .where(_p.c.conversation_id == bindparam("id"))
    .order_by(_p.c.since, _u.c.id)
    .limit(PARTICIPANTS_MAX)
)
# who waits in an inbox for somebody to take the conversation, in the order of their turn
_QUEUE: Final = (
    select(_c.c.id)
    .where(
        _c.c.inbox_id == bindparam("inbox_id"),
        _c.c.status == "open",
        _c.c.assignee_id.is_(None),
        _c.c.waiting_since.is_not(None),
    )
    .order_by(_c.c.waiting_since, _c.c.id)
    .limit(QUEUE_MAX)
)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list of conversations is narrowed to; None means no condition."""

    view: View = "all"
    status: str | None = None
    inbox_id: int | None = None
    label_id: int | None = None
    assignee_id: int | None = None
    team_id: int | None = None
    visitor_id: int | None = None
    priority: Priority | None = None

    def conditions(self, agent: Agent) -> list[ColumnElement[bool]]:
        """The conditions for the reading agent, its inboxes included."""
        found: list[ColumnElement[bool]] = []
        if agent.inbox_ids is not None:
            found.append(_c.c.inbox_id.in_(sorted(agent.inbox_ids)))
        if self.view == "mine":
            found.append(_c.c.assignee_id == agent.id)
        elif self.view == "unassigned":
            found.append(_c.c.assignee_id.is_(None))
        elif self.view == "team":
            mine = select(_tm.c.team_id).where(_tm.c.user_id == agent.id)
            found.append(_c.c.team_id.in_(mine))
        if self.label_id is not None:
            labelled = select(_cl.c.conversation_id).where(_cl.c.label_id == self.label_id)
            found.append(_c.c.id.in_(labelled))
        if self.priority is not None:
            found.append(_c.c.priority == PRIORITIES.index(self.priority))
        for column, value in (
            (_c.c.status, self.status),
            (_c.c.inbox_id, self.inbox_id),
            (_c.c.assignee_id, self.assignee_id),
            (_c.c.team_id, self.team_id),
            (_c.c.visitor_id, self.visitor_id),
        ):
            if value is not None:
                found.append(column == value)
        return found


def staff_list(
    database: Database,
    agent: Agent,
    filters: Filters,
    *,
    sort: Sort,
    cursor: str | None,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of conversations, and the cursor of the next one.

    ``updated``: the newest activity first. ``waiting``: only those whose visitor waits for an
    answer, the longest first. Raises :class:`app.chat.pages.BadCursor`. Blocking.
    """
    conditions = filters.conditions(agent)
    # the page's ids come first and alone, so that the index gives their order and the joins are
    # made for the page only
    page = select(_c.c.id).limit(limit + 1)
    if sort == "waiting":
        order: list[Any] = [_c.c.waiting_since, _c.c.id]
        conditions.append(_c.c.waiting_since.is_not(None))
        if cursor is not None:
            _, since, last_id = pages.read_cursor(cursor, str, datetime, int)
            conditions.append(_c.c.waiting_since >= since)
            conditions.append(or_(_c.c.waiting_since > since, _c.c.id > last_id))
    else:
        order = [_c.c.updated_at.desc(), _c.c.id.desc()]
        if cursor is not None:
            updated_at, last_id = pages.read_cursor(cursor, datetime, int)
            conditions.append(_c.c.updated_at <= updated_at)
            conditions.append(or_(_c.c.updated_at < updated_at, _c.c.id < last_id))
    ids = page.where(*conditions).order_by(*order).subquery("page")
    query = _STAFF.join(ids, ids.c.id == _c.c.id).order_by(*order)
    with database.view() as connection:
        rows = connection.execute(query, {"me": agent.id}).all()
        shown = rows[:limit]
        labels = labels_of(connection, [row.id for row in shown])
    next_cursor = None
    if len(rows) > limit:
        last = shown[-1]
        next_cursor = (
            pages.make_cursor("waiting", last.waiting_since, last.id)
            if sort == "waiting"
            else pages.make_cursor(last.updated_at, last.id)
        )
    return [staff_wire(row, labels.get(row.id, []), for_reader=True) for row in shown], next_cursor


def labels_of(connection: Connection, ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """The LabelRefs of each of these conversations that has any, by name."""
    found: dict[int, list[dict[str, Any]]] = {}
    if ids:
        for row in connection.execute(_LABELS, {"ids": sorted(ids)}):
            label = {"id": row.id, "name": row.name, "color": row.color}
            found.setdefault(row.conversation_id, []).append(label)
    return found


def participants_of(connection: Connection, conversation_id: int) -> list[dict[str, Any]]:
    """The participants in the order in which they came, at most :data:`PARTICIPANTS_MAX`."""
    return [
        {
            "user": {"id": row.id, "name": row.name, "avatar_url": row.avatar_url},
            "since": clock.wire(row.since),
        }
        for row in connection.execute(_PARTICIPANTS, {"id": conversation_id})
    ]


def staff_one(database: Database, agent: Agent, conversation_id: int) -> dict[str, Any]:
    """One conversation with its visitor's context. Raises :class:`NotFound`. Blocking."""
    with database.view() as connection:
        row = connection.execute(_STAFF_ONE, {"id": conversation_id, "me": agent.id}).one_or_none()
        if row is None:
            raise NotFound
        permissions.reach(agent, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
        labels = labels_of(connection, [row.id]).get(row.id, [])
        participants = participants_of(connection, row.id)
    page = {"url": row.page_url, "title": row.page_title} if row.page_url else None
    return {
        **staff_wire(row, labels, for_reader=True),
        "participants": participants,
        "form": orjson.loads(row.form) if row.form else None,
        "visitor_context": {
            "language": row.language,
            "browser": row.browser,
            "page": page,
            "referrer": row.referrer,
            "first_seen_at": clock.wire(row.first_seen_at),
            "last_seen_at": clock.wire(row.last_seen_at),
        },
    }


def staff_now(connection: Connection, agent: Agent, conversation_id: int) -> dict[str, Any]:
    """The staff's Conversation as it stands in this transaction; there must be one."""
    row = connection.execute(_STAFF_ONE, {"id": conversation_id, "me": agent.id}).one()
    labels = labels_of(connection, [row.id]).get(row.id, [])
    return staff_wire(row, labels, for_reader=True)


def rows_of(connection: Connection, ids: Collection[int], me: int) -> list[Any]:
    """The rows that :func:`staff_wire` and :func:`widget_wire` take, in no order.

    ``me`` is the reading agent, 0 for a visitor.
    """
    if not ids:
        return []
    return list(connection.execute(_STAFF_MANY, {"ids": sorted(ids), "me": me}))


def for_events(database: Database, ids: Collection[int]) -> list[tuple[dict[str, Any], Any]]:
    """The staff's form without a reader's own fields, and the row, of each conversation."""
    with database.read() as connection:
        return for_events_in(connection, ids)


def for_events_in(connection: Connection, ids: Collection[int]) -> list[tuple[dict[str, Any], Any]]:
    """As :func:`for_events`, in a transaction that is open already."""
    rows = rows_of(connection, ids, 0)
    labels = labels_of(connection, ids)
    return [(staff_wire(row, labels.get(row.id, []), for_reader=False), row) for row in rows]


def staff_wire(row: Any, labels: list[dict[str, Any]], *, for_reader: bool) -> dict[str, Any]:
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
        "team": _team(row),
        "priority": PRIORITIES[row.priority],
        "labels": labels,
        "snoozed_until": _time(row.snoozed_until),
        "waiting_since": _time(row.waiting_since),
        "first_response_at": _time(row.first_response_at),
        "resolved_at": _time(row.resolved_at),
        "csat": _rating(row),
        "last_seq": {"public": row.last_seq_public, "staff": row.last_seq_staff},
        "last_edit": {"public": row.last_edit_public, "staff": row.last_edit_staff},
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


def widget_wire(row: Any, queue: list[int] | None = None) -> dict[str, Any]:
    """The visitor's Conversation of the same row; nothing in it is the staff's own.

    Without ``queue`` (see :func:`queue_of`) it is an event: what only its reader needs is left
    out.
    """
    mine: dict[str, Any] = {}
    if queue is not None:
        mine = {
            "read_seq": row.visitor_read_seq,
            "unread": max(row.last_seq_public - row.visitor_read_seq, 0),
            "queue_position": _position(row, queue),
            "last_message": _last_message(row),
        }
    return {
        "id": row.id,
        "status": row.status,
        "assignee": _assignee(row),
        "last_seq": row.last_seq_public,
        "last_edit": row.last_edit_public,
        **mine,
        "staff_read_seq": row.staff_read_seq,
        "staff_delivered_seq": row.staff_delivered_seq,
        "created_at": clock.wire(row.created_at),
        "resolved_at": _time(row.resolved_at),
        "rating": _rating(row),
    }


def _time(moment: datetime | None) -> str | None:
    return clock.wire(moment) if moment is not None else None


def _team(row: Any) -> dict[str, Any] | None:
    # a team that was deleted leaves its id behind, and no name
    return {"id": row.team_id, "name": row.team_name} if row.team_name is not None else None


def _rating(row: Any) -> dict[str, Any] | None:
    if row.csat_score is None:
        return None
    return {"score": row.csat_score, "comment": row.csat_comment, "at": clock.wire(row.csat_at)}


def _waits_for_an_agent(row: Any) -> bool:
    return row.status == "open" and row.assignee_id is None and row.waiting_since is not None


def _position(row: Any, queue: list[int]) -> int | None:
    if not _waits_for_an_agent(row):
        return None
    return queue.index(row.id) + 1 if row.id in queue else QUEUE_MAX + 1


def queue_of(connection: Connection, rows: Collection[Any]) -> list[int]:
    """The conversations that wait in the inbox of ``rows`` (all of one visitor), next one first.

    Not more than :data:`QUEUE_MAX`, and none when no row waits.
    """
    waiting = next((row for row in rows if _waits_for_an_agent(row)), None)
    if waiting is None:
        return []
    return list(connection.execute(_QUEUE, {"inbox_id": waiting.inbox_id}).scalars())


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
        return widget_wire(row, queue_of(connection, [row])) if row is not None else None


def of_visitor(database: Database, conversation_id: int, visitor_id: int) -> dict[str, Any]:
    """A conversation of the visitor in the widget's form. Raises :class:`NotFound`. Blocking."""
    with database.read() as connection:
        return visitor_now(connection, conversation_id, visitor_id)


def visitor_now(connection: Connection, conversation_id: int, visitor_id: int) -> dict[str, Any]:
    """The visitor's Conversation as it stands in this transaction. Raises :class:`NotFound`."""
    row = connection.execute(_STAFF_ONE, {"id": conversation_id, "me": 0}).one_or_none()
    if row is None or row.visitor_id != visitor_id:
        raise NotFound
    return widget_wire(row, queue_of(connection, [row]))


def all_of_visitor(
    database: Database, visitor_id: int, *, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of the visitor's conversations in the widget's form, the newest first.

    Gives the next page's cursor too. Raises :class:`app.chat.pages.BadCursor`. Blocking.
    """
    page = select(_c.c.id).where(_c.c.visitor_id == visitor_id)
    if cursor is not None:
        (last_id,) = pages.read_cursor(cursor, int)
        page = page.where(_c.c.id < last_id)
    ids = page.order_by(_c.c.id.desc()).limit(limit + 1).subquery("page")
    query = _STAFF.join(ids, ids.c.id == _c.c.id).order_by(_c.c.id.desc())
    with database.view() as connection:
        rows = connection.execute(query, {"me": 0}).all()
        shown = rows[:limit]
        queue = queue_of(connection, shown)
    next_cursor = pages.make_cursor(shown[-1].id) if len(rows) > limit else None
    return [widget_wire(row, queue) for row in shown], next_cursor


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
