"""Messages: the form on the wire, history, sending."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Select, and_, bindparam, select, tuple_

from app import clock
from app.chat import permissions
from app.chat.errors import Busy, ClientIdTaken, MessageRefused, NotFound, Refused
from app.chat.permissions import Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Unavailable
from app.db.hot import HotStatement
from app.db.reads import Reads, Source
from app.db.routing import HistoryRouting, Target
from app.db.writer import NewMessage, QueueFull, Rejected, Stored, Writer

BODY_MAX_CHARACTERS: Final = 10_000
PAGE_MAX_MESSAGES: Final = 200
# the page itself is there: it does not wait long for them
EDITS_SECONDS: Final = 1.0
EDITS_MAX: Final = 200


_m, _u, _v, _c = schema.messages, schema.users, schema.visitors, schema.conversations
_e = schema.message_edits


def wire(
    *,
    conversation_id: int,
    stream: int,
    seq: int,
    client_id: str,
    sender_type: str,
    sender_id: int | None,
    sender_name: str | None,
    sender_avatar_url: str | None,
    kind: str,
    body: str,
    created_at: datetime,
    edited_at: datetime | None = None,
    deleted_at: datetime | None = None,
    attachments: str | None = None,
    event: str | None = None,
) -> dict[str, Any]:
    """The Message of the API; ``attachments`` and ``event`` are JSON as the database holds it."""
    row = (
        *(seq, client_id, sender_type, sender_id, kind, body, created_at, edited_at, deleted_at),
        *(attachments, event, sender_name, sender_avatar_url, sender_name),
    )
    return _row_wire(conversation_id, stream, row)


def stored_wire(stored: Stored) -> dict[str, Any]:
    """The Message of what the writer stored."""
    return wire(
        conversation_id=stored.conversation_id,
        stream=stored.stream,
        seq=stored.seq,
        client_id=stored.client_id,
        sender_type=stored.sender_type,
        sender_id=stored.sender_id,
        sender_name=stored.sender_name,
        sender_avatar_url=stored.sender_avatar_url,
        kind=stored.kind,
        body=stored.body,
        created_at=stored.created_at,
        edited_at=stored.edited_at,
        deleted_at=stored.deleted_at,
        attachments=stored.attachments,
        event=stored.event,
    )


async def send(writer: Writer, message: NewMessage) -> Stored:
    """Store a message; returns when it is durable.

    Raises :class:`NotFound`, :class:`ClientIdTaken`, :class:`Refused`, :class:`MessageRefused` or
    :class:`Busy`.
    """
    try:
        return await writer.store(message)
    except QueueFull:
        raise Busy from None
    except Unavailable as error:
        raise Busy from error
    except Rejected as error:
        match error.reason:
            case "not_found":
                raise NotFound from None
            case "client_id_taken":
                raise ClientIdTaken from None
            case "blocked":
                raise Refused(
                    "visitor_blocked", "The support team does not take messages from this visitor."
                ) from None
            case "attachment_not_found":
                raise Refused(
                    "attachment_not_found",
                    "Upload the file to this conversation first; each can be sent once.",
                    field="attachment_ids",
                ) from None
            case _:
                raise MessageRefused from None


# what the Message of the API is made of, in the order of _row_wire
_COLUMNS: Final = (
    _m.c.seq,
    _m.c.client_id,
    _m.c.sender_type,
    _m.c.sender_id,
    _m.c.kind,
    _m.c.body,
    _m.c.created_at,
    _m.c.edited_at,
    _m.c.deleted_at,
    _m.c.attachments,
    _m.c.event,
    _u.c.name.label("agent_name"),
    _u.c.avatar_url,
    _v.c.name.label("visitor_name"),
)
_BY_AGENT: Final = and_(_m.c.sender_type == "agent", _u.c.id == _m.c.sender_id)
_BY_VISITOR: Final = and_(_m.c.sender_type == "visitor", _v.c.id == _m.c.sender_id)


def _history() -> Select[Any]:
    return (
        select(*_COLUMNS, *_HEAD)
        # with few rows MySQL prefers the index of client_id and sorts the whole conversation
        .with_hint(_m, "FORCE INDEX (PRIMARY)", "mysql")
        .join(_c, _c.c.id == _m.c.conversation_id)
        .outerjoin(_u, _BY_AGENT)
        .outerjoin(_v, _BY_VISITOR)
        .where(
            _m.c.conversation_id == bindparam("conversation_id"),
            _m.c.stream == bindparam("stream"),
            _m.c.seq > bindparam("after"),
            _m.c.seq < bindparam("before"),
        )
        .limit(bindparam("limit"))
    )


# what decides about the caller and the freshness; the last numbers are indexed by the stream
_HEAD: Final = (
    *(_c.c.inbox_id, _c.c.visitor_id),
    *(_c.c.last_seq_public, _c.c.last_seq_staff),
    *(_c.c.last_edit_public, _c.c.last_edit_staff),
)
_OLDEST_FIRST: Final = HotStatement(_history().order_by(_m.c.seq))
_NEWEST_FIRST: Final = HotStatement(_history().order_by(_m.c.seq.desc()))
_HEAD_ALONE: Final = HotStatement(select(*_HEAD).where(_c.c.id == bindparam("conversation_id")))
_SEQ_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of one stream in ascending seq; ``has_more`` says that the page was cut."""

    items: list[dict[str, Any]]
    has_more: bool
    target: Target


@dataclass(frozen=True, slots=True)
class _Read:
    """What one database holds of a page, and of its conversation in the same moment."""

    rows: Sequence[Any]
    head: Sequence[Any] | None  # None: there is no such conversation


async def history(
    routing: HistoryRouting,
    *,
    conversation_id: int,
    stream: int,
    after_seq: int | None,
    before_seq: int | None,
    known_seq: int,
    known_edit: int,
    limit: int,
    caller: Agent | VisitorIdentity,
) -> Page:
    """A page of one stream.

    With ``after_seq`` the page starts there, else it holds the last ``limit`` messages before
    ``before_seq``. ``known_seq`` is the highest seq that the reader knows, ``known_edit`` the
    number of the last edit. Raises :class:`NotFound` unless ``caller`` may reach the conversation.
    """
    forward = after_seq is not None
    after, before = after_seq or 0, before_seq if before_seq is not None else _SEQ_MAX
    parameters = {
        "conversation_id": conversation_id,
        "stream": stream,
        "after": after,
        "before": before,
        "limit": limit + 1,
    }
    known = max(known_seq, after, (before_seq or 1) - 1)

    async def read(source: Source) -> _Read:
        statement = _OLDEST_FIRST if forward else _NEWEST_FIRST
        rows = await source.rows(statement, parameters)
        if not rows:
            heads = await source.rows(_HEAD_ALONE, parameters)
            if not heads:
                return _Read((), None)
            if min(heads[0][2 + stream], before - 1) > after:
                # its first message may have come between the two statements
                rows = await source.rows(statement, parameters)
            if not rows:
                return _Read((), heads[0])
        return _Read(rows, rows[0][-len(_HEAD) :])

    def fresh_enough(found: _Read) -> bool:
        head = found.head
        return head is not None and head[2 + stream] >= known and head[4 + stream] >= known_edit

    found, target = await routing.read(read, fresh_enough)
    if found.head is None:
        raise NotFound
    permissions.reach(caller, inbox_id=found.head[0], visitor_id=found.head[1])
    page = list(found.rows[:limit])
    if not forward:
        page.reverse()
    items = [_row_wire(conversation_id, stream, row) for row in page]
    return Page(items, len(found.rows) > limit, target)


_EDITED: Final = HotStatement(
    select(*_COLUMNS, _e.c.edit_seq)
    .join(
        _m,
        and_(
            _m.c.conversation_id == _e.c.conversation_id,
            _m.c.stream == _e.c.stream,
            _m.c.seq == _e.c.seq,
        ),
    )
    .outerjoin(_u, _BY_AGENT)
    .outerjoin(_v, _BY_VISITOR)
    .where(
        _e.c.conversation_id == bindparam("conversation_id"),
        _e.c.stream == bindparam("stream"),
        _e.c.edit_seq > bindparam("after"),
    )
    .order_by(_e.c.edit_seq)
    .limit(bindparam("limit"))
)


async def edited(
    reads: Reads, *, conversation_id: int, stream: int, after_edit: int, known_seq: int
) -> tuple[list[dict[str, Any]], int]:
    """The messages up to ``known_seq`` that were changed by the edits after ``after_edit``.

    Each stands once, as it is now, in the order of seq; at most :data:`EDITS_MAX` edits are
    looked at, and none behind the first edit of a later message: the reader has to get that one
    first. Gives the number of the last of them too. From the primary: a replica cannot say
    whether it has the newest. Whoever calls this has checked that the caller may read it.
    """
    rows = await reads.primary.rows(
        _EDITED,
        {
            "conversation_id": conversation_id,
            "stream": stream,
            "after": after_edit,
            "limit": EDITS_MAX,
        },
        seconds=EDITS_SECONDS,
    )
    told = list(itertools.takewhile(lambda row: row[0] <= known_seq, rows))
    changed = {row[0]: row for row in told}
    return (
        [_row_wire(conversation_id, stream, changed[seq]) for seq in sorted(changed)],
        told[-1][-1] if told else after_edit,
    )


_THESE: Final = (
    select(*_COLUMNS, _m.c.conversation_id, _m.c.stream)
    .with_hint(_m, "FORCE INDEX (PRIMARY)", "mysql")
    .outerjoin(_u, _BY_AGENT)
    .outerjoin(_v, _BY_VISITOR)
    .where(
        # the second condition says it all, the first one lets SQLite use the index
        _m.c.conversation_id.in_(bindparam("ids", expanding=True)),
        tuple_(_m.c.conversation_id, _m.c.stream, _m.c.seq).in_(bindparam("keys", expanding=True)),
    )
    .order_by(_m.c.conversation_id, _m.c.stream, _m.c.seq)
)


def these(
    connection: Connection, keys: Collection[tuple[int, int, int]]
) -> list[tuple[tuple[int, int, int], dict[str, Any]]]:
    """The messages with these keys (conversation, stream, seq), each with its key, in their order.

    Whoever calls this has checked that the caller may read them. Blocking.
    """
    if not keys:
        return []
    ids = sorted({key[0] for key in keys})
    rows = connection.execute(_THESE, {"ids": ids, "keys": sorted(keys)}).all()
    return [
        (
            (row.conversation_id, row.stream, row.seq),
            _row_wire(row.conversation_id, row.stream, row),
        )
        for row in rows
    ]


def _row_wire(conversation_id: int, stream: int, row: Sequence[Any]) -> dict[str, Any]:
    """The Message of the API of the values of _COLUMNS, as the driver gives them.

    A page builds 50 of them, so there is no call here that most messages do not need.
    """
    seq, client_id, sender_type, sender_id, kind, body, created, edited, deleted = row[:9]
    attachments, event, agent_name, avatar_url, visitor_name = row[9:14]
    sender = None
    if sender_id is not None:
        name = visitor_name if sender_type == "visitor" else agent_name
        sender = {"id": sender_id, "name": name, "avatar_url": avatar_url}
    return {
        "conversation_id": conversation_id,
        "stream": schema.STREAM_NAMES[stream],
        "seq": seq,
        "client_id": client_id,
        "sender_type": sender_type,
        "sender": sender,
        "kind": kind,
        "body": body,
        "attachments": orjson.loads(attachments) if attachments else [],
        "event": orjson.loads(event) if event else None,
        "created_at": _moment_wire(created),
        "edited_at": _moment_wire(edited) if edited else None,
        "deleted_at": _moment_wire(deleted) if deleted else None,
    }


def _moment_wire(value: datetime | str) -> str:
    return clock.wire(datetime.fromisoformat(value) if isinstance(value, str) else value)
