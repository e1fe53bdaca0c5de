"""Full-text search over messages and visitors, in Chinese as well as in English.

Messages are searched in ``message_search``, a copy that the worker fills (:mod:`app.worker.search`)
so that sending does not pay for the index. Who edits, deletes or erases a message calls
:func:`reindex` or :func:`forget` in the same transaction.

MySQL's ngram parser knows pairs of letters and digits, SQLite's FTS5 trigrams; what is shorter, or
made of other characters only, is looked for with LIKE, a bounded number of rows per page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError

from app import clock
from app.chat import pages
from app.chat.errors import Refused
from app.chat.permissions import Agent
from app.db import schema
from app.db.upsert import add_search_mark

Kind = Literal["messages", "visitors", "all"]

QUERY_MAX_CHARACTERS: Final = 200
TERMS_MAX: Final = 8
WINDOW_ROWS: Final = 20_000
VISITORS_IN_ALL: Final = 5
SNIPPET_CHARACTERS: Final = 200
SNIPPET_BEFORE: Final = 60
# MySQL stops a SELECT by itself then; error 3024
EXECUTION_MAX_MS: Final = 5000
_TIMED_OUT: Final = 3024

_TRIGRAM: Final = 3
# what the ngram parser takes for a word of at least ngram_token_size = 2 characters
_WORD: Final = re.compile(r"\w{2,}")

_s, _m, _c, _k = (
    schema.message_search,
    schema.messages,
    schema.conversations,
    schema.search_marks,
)
_v, _i, _u = schema.visitors, schema.inboxes, schema.users


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: ``text`` is split at blanks, and every part must occur."""

    text: str
    kind: Kind
    inbox_id: int | None = None
    cursor: str | None = None
    limit: int = 20

    @property
    def terms(self) -> list[str]:
        """The parts, at most :data:`TERMS_MAX`; none of them has a special meaning."""
        return list(dict.fromkeys(self.text.split()))[:TERMS_MAX]


# --- searching ----------------------------------------------------------------------------------


def find(
    connection: Connection, agent: Agent, query: Query
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of hits, newest first, and the cursor of the next page.

    With kind ``all`` the first page begins with a few visitors. A page may hold fewer hits than
    asked for, even none, while there is a next one: each page looks at a bounded number of rows.
    Raises :class:`app.chat.pages.BadCursor` or :class:`Refused`. Blocking.
    """
    if not query.terms:
        raise Refused("invalid_request", "Type at least one character.", field="q")
    try:
        if query.kind == "visitors":
            return _visitors(connection, agent, query, query.limit)
        found: list[dict[str, Any]] = []
        if query.kind == "all" and query.cursor is None:
            found, _ = _visitors(connection, agent, query, min(VISITORS_IN_ALL, query.limit))
        hits, cursor = _messages(connection, agent, query)
    except DBAPIError as error:
        arguments = getattr(error.orig, "args", ())
        if arguments and arguments[0] == _TIMED_OUT:
            raise Refused(
                "search_too_broad", "Too much matches: type a longer or rarer word.", field="q"
            ) from None
        raise
    return found + hits, cursor


def _only_inboxes(column: Any, agent: Agent, inbox_id: int | None) -> list[ColumnElement[bool]]:
    conditions = []
    if agent.inbox_ids is not None:
        conditions.append(column.in_(sorted(agent.inbox_ids)))
    if inbox_id is not None:
        conditions.append(column == inbox_id)
    return conditions


def _page(
    connection: Connection,
    query: Query,
    key: tuple[Any, Any],
    conditions: Sequence[ColumnElement[bool]],
    *,
    limit: int,
    indexed: bool,
) -> tuple[list[int], str | None]:
    """Ids of a page by ``key``, a moment and an id, descending, and the cursor of the next one.

    Without an index to help, only :data:`WINDOW_ROWS` rows are looked at; the next page goes on
    behind them.
    """
    moment, row_id = key
    place: list[ColumnElement[bool]] = []
    if query.cursor is not None:
        at, last_id = pages.read_cursor(query.cursor, datetime, int)
        # the first condition says less, and lets the index be used
        place = [moment <= at, or_(moment < at, row_id < last_id)]
    newest_first = (moment.desc(), row_id.desc())
    end = None
    if not indexed:
        edge = select(moment, row_id).where(*place).order_by(*newest_first)
        end = connection.execute(edge.offset(WINDOW_ROWS - 1).limit(1)).one_or_none()
        if end is not None:
            place += [moment >= end[0], or_(moment > end[0], row_id >= end[1])]
    chosen = (
        _bounded(select(moment, row_id))
        .where(*place, *conditions)
        .order_by(*newest_first)
        .limit(limit + 1)
    )
    rows = connection.execute(chosen).all()
    last = rows[limit - 1] if len(rows) > limit else end
    return (
        [row[1] for row in rows[:limit]],
        pages.make_cursor(last[0], last[1]) if last is not None else None,
    )


def _bounded(statement: Select[Any]) -> Select[Any]:
    return statement.prefix_with(f"/*+ MAX_EXECUTION_TIME({EXECUTION_MAX_MS}) */", dialect="mysql")


def _messages(
    connection: Connection, agent: Agent, query: Query
) -> tuple[list[dict[str, Any]], str | None]:
    match, like = (
        _in_mysql(query.terms) if connection.dialect.name == "mysql" else _in_sqlite(query.terms)
    )
    conditions = [
        *([match] if match is not None else []),
        *(_s.c.body.contains(term, autoescape=True) for term in like),
        *_only_inboxes(_s.c.inbox_id, agent, query.inbox_id),
    ]
    ids, cursor = _page(
        connection,
        query,
        (_s.c.created_at, _s.c.id),
        conditions,
        limit=query.limit,
        indexed=match is not None,
    )
    rows = {row.id: row for row in connection.execute(_HITS, {"ids": ids})} if ids else {}
    # a message that went in between is no longer told
    return [_message_hit(rows[i], query.terms) for i in ids if i in rows], cursor


def _in_mysql(terms: Sequence[str]) -> tuple[ColumnElement[bool] | None, Sequence[str]]:
    words = [word for term in terms for word in _WORD.findall(term)]
    if not words:
        return None, terms
    # quoted, so that no character is an operator; LIKE then looks at the whole terms
    asked = " ".join(f'+"{word}"' for word in dict.fromkeys(words))
    match: ColumnElement[bool] = mysql.match(
        _s.c.body, against=bindparam("asked", asked), in_boolean_mode=True
    )
    return match, terms


def _in_sqlite(terms: Sequence[str]) -> tuple[ColumnElement[bool] | None, Sequence[str]]:
    words = [term for term in terms if len(term) >= _TRIGRAM]
    short = [term for term in terms if len(term) < _TRIGRAM]
    if not words:
        return None, short
    asked = " AND ".join('"' + word.replace('"', '""') + '"' for word in words)
    match: ColumnElement[bool] = _s.c.id.in_(
        text("SELECT rowid FROM message_search_fts WHERE message_search_fts MATCH :asked")
        .bindparams(asked=asked)
        .columns(_s.c.id)
    )
    return match, short


_HITS: Final = (
    select(
        _s.c.id,
        _s.c.conversation_id,
        _s.c.stream,
        _s.c.seq,
        _s.c.body,
        _s.c.created_at,
        _s.c.inbox_id,
        _m.c.sender_type,
        _m.c.sender_id,
        _m.c.kind,
        _c.c.status,
        _c.c.visitor_id,
        _i.c.name.label("inbox_name"),
        _v.c.name.label("visitor_name"),
        _v.c.email.label("visitor_email"),
        _u.c.name.label("agent_name"),
        _u.c.avatar_url,
    )
    .join(
        _m,
        and_(
            _m.c.conversation_id == _s.c.conversation_id,
            _m.c.stream == _s.c.stream,
            _m.c.seq == _s.c.seq,
        ),
    )
    .join(_c, _c.c.id == _s.c.conversation_id)
    .join(_i, _i.c.id == _c.c.inbox_id)
    .join(_v, _v.c.id == _c.c.visitor_id)
    .outerjoin(_u, and_(_m.c.sender_type == "agent", _u.c.id == _m.c.sender_id))
    .where(_s.c.id.in_(bindparam("ids", expanding=True)))
)


def _message_hit(row: Any, terms: Sequence[str]) -> dict[str, Any]:
    sender = None
    if row.sender_id is not None:
        name = row.visitor_name if row.sender_type == "visitor" else row.agent_name
        sender = {"id": row.sender_id, "name": name, "avatar_url": row.avatar_url}
    return {
        "type": "message",
        "conversation": {
            "id": row.conversation_id,
            "status": row.status,
            "inbox": {"id": row.inbox_id, "name": row.inbox_name},
            "visitor": {
                "id": row.visitor_id,
                "name": row.visitor_name,
                "email": row.visitor_email,
            },
        },
        "stream": schema.STREAM_NAMES[row.stream],
        "seq": row.seq,
        "kind": row.kind,
        "sender_type": row.sender_type,
        "sender": sender,
        "created_at": clock.wire(row.created_at),
        "snippet": snippet(row.body, terms),
    }


_VISITOR_FIELDS: Final[tuple[tuple[str, Any], ...]] = (
    ("name", _v.c.name),
    ("email", _v.c.email),
    ("identifier", _v.c.identifier),
    ("phone", _v.c.phone),
    ("attributes", _v.c.attributes),
)


def _visitors(
    connection: Connection, agent: Agent, query: Query, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    conditions = [
        _v.c.merged_into_id.is_(None),
        *(
            or_(
                *(
                    func.lower(column).contains(term.lower(), autoescape=True)
                    for _, column in _VISITOR_FIELDS
                )
            )
            for term in query.terms
        ),
        *_only_inboxes(_v.c.inbox_id, agent, query.inbox_id),
    ]
    ids, cursor = _page(
        connection, query, (_v.c.last_seen_at, _v.c.id), conditions, limit=limit, indexed=False
    )
    if not ids:
        return [], cursor
    newest = (
        select(func.max(_c.c.id))
        .where(_c.c.visitor_id == _v.c.id)
        .scalar_subquery()
        .label("conversation_id")
    )
    details = (
        select(_v, newest, _i.c.name.label("inbox_name"))
        .join(_i, _i.c.id == _v.c.inbox_id)
        .where(_v.c.id.in_(ids))
    )
    rows = {row.id: row for row in connection.execute(details)}
    return [_visitor_hit(rows[i], query.terms) for i in ids if i in rows], cursor


def _visitor_hit(row: Any, terms: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(row, name) or "" for name, _ in _VISITOR_FIELDS}
    lowered = terms[0].lower()
    field = next((name for name, value in values.items() if lowered in value.lower()), "name")
    return {
        "type": "visitor",
        "visitor": {"id": row.id, "name": row.name, "email": row.email},
        "inbox": {"id": row.inbox_id, "name": row.inbox_name},
        "conversation_id": row.conversation_id,
        "last_seen_at": clock.wire(row.last_seen_at),
        "field": field,
        "snippet": snippet(values[field], terms),
    }


def snippet(body: str, terms: Sequence[str]) -> dict[str, Any]:
    """A piece of ``body`` around the first hit, on one line, and where the hits stand in it.

    ``highlights`` are ``[start, end]`` in UTF-16 code units, as JavaScript counts.
    """
    line = " ".join(body.split())
    hits = re.compile(
        "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True)), re.IGNORECASE
    )
    first = hits.search(line)
    start = max(first.start() - SNIPPET_BEFORE, 0) if first else 0
    end = min(start + SNIPPET_CHARACTERS, len(line))
    before, after = "…" if start else "", "…" if end < len(line) else ""
    shown = before + line[start:end] + after
    return {
        "text": shown,
        "highlights": [
            [_utf16_length(shown[: hit.start()]), _utf16_length(shown[: hit.end()])]
            for hit in hits.finditer(shown)
        ],
    }


def _utf16_length(piece: str) -> int:
    return len(piece.encode("utf-16-le", "surrogatepass")) // 2


# --- the copy that is searched ------------------------------------------------------------------


def text_of(body: str, attachments: str | None) -> str:
    """What of a message is searched: its body and the names of its files."""
    names = [item["name"] for item in orjson.loads(attachments)] if attachments else []
    return "\n".join([body, *names] if body else names)


def reindex(connection: Connection, conversation_id: int, stream: int, seq: int) -> None:
    """Search the message as it stands now, in the transaction that changed its row.

    A message that the worker has not come to yet is left to it.
    """
    where = _is(_m, conversation_id, stream, seq)
    row = connection.execute(
        select(_m.c.body, _m.c.attachments, _m.c.deleted_at).where(*where)
    ).one_or_none()
    if row is None or row.deleted_at is not None:
        forget(connection, conversation_id, stream, seq)
        return
    connection.execute(
        update(_s)
        .where(*_is(_s, conversation_id, stream, seq))
        .values(body=text_of(row.body, row.attachments))
    )


def forget(
    connection: Connection,
    conversation_id: int,
    stream: int | None = None,
    seq: int | None = None,
) -> None:
    """Take one message, or all of a conversation, out of the search, in the transaction in which
    it goes."""
    if stream is None or seq is None:
        connection.execute(delete(_s).where(_s.c.conversation_id == conversation_id))
        return
    connection.execute(delete(_s).where(*_is(_s, conversation_id, stream, seq)))


def scrub(connection: Connection) -> None:
    """Write the index anew, without what was removed from it.

    FTS5 keeps the trigrams of removed rows until it merges its parts. InnoDB keeps their ngrams
    until the table is optimized, which is the operator's to do (docs/adr/0010).
    """
    if connection.dialect.name == "sqlite":
        connection.execute(
            text("INSERT INTO message_search_fts (message_search_fts) VALUES ('optimize')")
        )


def _is(table: Any, conversation_id: int, stream: int, seq: int) -> list[ColumnElement[bool]]:
    return [
        table.c.conversation_id == conversation_id,
        table.c.stream == stream,
        table.c.seq == seq,
    ]


@dataclass(frozen=True, slots=True)
class Grown:
    """A conversation with messages that the search may not know yet."""

    id: int
    inbox_id: int
    last_seq: tuple[int, int]
    updated_at: datetime


def grown_after(
    connection: Connection, moment: datetime, conversation_id: int, limit: int
) -> tuple[list[Grown], tuple[datetime, int] | None]:
    """Conversations in the order of their last activity, after (``moment``, ``conversation_id``).

    Gives those that the search lacks something of, and how far this looked: None at the end.
    """
    rows = connection.execute(
        select(
            _c.c.id,
            _c.c.inbox_id,
            _c.c.last_seq_public,
            _c.c.last_seq_staff,
            _c.c.updated_at,
            func.coalesce(_k.c.public_seq, 0).label("public_seq"),
            func.coalesce(_k.c.staff_seq, 0).label("staff_seq"),
        )
        .outerjoin(_k, _k.c.conversation_id == _c.c.id)
        .where(
            _c.c.updated_at >= moment,
            or_(_c.c.updated_at > moment, _c.c.id > conversation_id),
        )
        .order_by(_c.c.updated_at, _c.c.id)
        .limit(limit)
    ).all()
    lacking = [
        Grown(row.id, row.inbox_id, (row.last_seq_public, row.last_seq_staff), row.updated_at)
        for row in rows
        if row.last_seq_public > row.public_seq or row.last_seq_staff > row.staff_seq
    ]
    return lacking, (rows[-1].updated_at, rows[-1].id) if rows else None


def add_marks(connection: Connection, grown: Collection[Grown]) -> None:
    """Make the marks that are missing.

    In a transaction of its own: the foreign key locks the conversation's row for a moment, and the
    writer must not wait for the indexing.
    """
    if grown:
        connection.execute(
            add_search_mark(connection.dialect), [{"conversation_id": one.id} for one in grown]
        )


def index(
    connection: Connection, grown: Sequence[Grown], limit: int, check: Callable[[], None]
) -> tuple[int, bool]:
    """Copy up to ``limit`` messages of ``grown``; gives how many, and whether more are left.

    The messages are locked for reading: an edit that is under way is waited for, so that the copy
    is never older than what :func:`reindex` wrote. ``check`` raises when another worker took over.
    """
    check()
    inboxes = {one.id: one for one in grown}
    marks = connection.execute(
        select(_k)
        .where(_k.c.conversation_id.in_(sorted(inboxes)))
        .order_by(_k.c.conversation_id)
        .with_for_update()
    ).all()
    ranges = [
        and_(_m.c.conversation_id == mark.conversation_id, _m.c.stream == stream, _m.c.seq > known)
        for mark in marks
        for stream, known in ((schema.PUBLIC, mark.public_seq), (schema.STAFF, mark.staff_seq))
        if inboxes[mark.conversation_id].last_seq[stream] > known
    ]
    if not ranges:
        return 0, False
    rows = connection.execute(
        select(
            _m.c.conversation_id,
            _m.c.stream,
            _m.c.seq,
            _m.c.kind,
            _m.c.body,
            _m.c.attachments,
            _m.c.created_at,
            _m.c.deleted_at,
        )
        .where(or_(*ranges))
        .order_by(_m.c.conversation_id, _m.c.stream, _m.c.seq)
        .limit(limit)
        .with_for_update(read=True)
    ).all()
    cut = len(rows) == limit
    copies = [
        {
            "conversation_id": row.conversation_id,
            "stream": row.stream,
            "seq": row.seq,
            "inbox_id": inboxes[row.conversation_id].inbox_id,
            "created_at": row.created_at,
            "body": body,
        }
        for row in rows
        if row.kind != "event"
        and row.deleted_at is None
        and (body := text_of(row.body, row.attachments))
    ]
    if copies:
        connection.execute(insert(_s), copies)
    reached: dict[int, list[int]] = {}
    for mark in marks:
        last = inboxes[mark.conversation_id].last_seq
        known = (mark.public_seq, mark.staff_seq)
        # seqs have no holes: what was not cut off is complete
        reached[mark.conversation_id] = list(known if cut else map(max, known, last))
    for row in rows:
        mine = reached[row.conversation_id]
        mine[row.stream] = max(mine[row.stream], row.seq)
    connection.execute(
        update(_k)
        .where(_k.c.conversation_id == bindparam("conversation"))
        .values(public_seq=bindparam("public"), staff_seq=bindparam("staff")),
        [
            {"conversation": key, "public": public, "staff": staff}
            for key, (public, staff) in reached.items()
        ],
    )
    return len(rows), cut
