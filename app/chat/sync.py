"""Catching up: what a client missed of everything that it watches, in a few statements.

A client says what it knows of each conversation: the last seq and the last edit of each stream. It
hears what came after that. Numbers have no holes, so what is missing is known from the last ones
alone, and one statement fetches all of it.

This reads the primary. It is what clients ask after they lost their connection, and a replica
might lack just what was announced meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, tuple_

from app.chat import conversations, messages, permissions
from app.chat.conversations import Filters
from app.chat.permissions import Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database

CONVERSATIONS_MAX: Final = 200
MESSAGES_MAX: Final = 500
EDITS_MAX: Final = 200
NEW_MAX: Final = 50
# one long silence must not keep the others waiting: each stream gets so many before any gets more
FIRST_SHARE: Final = 50

_c, _e = schema.conversations, schema.message_edits

_EDITS: Final = select(_e.c.conversation_id, _e.c.stream, _e.c.seq).where(
    # the second condition says it all, the first one lets SQLite use the index
    _e.c.conversation_id.in_(bindparam("ids", expanding=True)),
    tuple_(_e.c.conversation_id, _e.c.stream, _e.c.edit_seq).in_(bindparam("keys", expanding=True)),
)

# a stream of a conversation
_Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Known:
    """What a client knows of a conversation, by stream; a stream that it does not follow is
    missing. An edit number that is missing stands for the present one."""

    seqs: Mapping[int, int]
    edits: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What a client lacks; ``known`` is what it knows when it has taken all of it.

    ``more`` says that something is left: to be asked for again with ``known``.
    """

    rows: list[Any]
    gone: list[int]
    messages: list[dict[str, Any]]
    edits: list[dict[str, Any]]
    known: dict[int, Known]
    more: bool


def for_staff(
    database: Database,
    agent: Agent,
    known: Mapping[int, Known],
    *,
    view: Filters | None,
    since: datetime | None,
) -> dict[str, Any]:
    """The Sync of an agent. Blocking.

    With ``view`` it holds the conversations of that view that are not in ``known``: of the first
    :data:`NEW_MAX`, or with ``since`` of all that had activity since then.
    """
    with database.read() as connection:
        rows = conversations.rows_of(connection, known, agent.id)
        caught = _catch_up(connection, agent, known, rows)
        ids, more = _unknown(connection, agent, known, view, since)
        new = {row.id: row for row in conversations.rows_of(connection, ids, agent.id)}
        labels = conversations.labels_of(connection, [row.id for row in caught.rows] + ids)

    def shown(row: Any) -> dict[str, Any]:
        return conversations.staff_wire(row, labels.get(row.id, []), for_reader=True)

    return {
        "conversations": [shown(row) for row in caught.rows],
        "messages": caught.messages,
        "edits": caught.edits,
        "new": [shown(new[item]) for item in ids if item in new],
        "gone": caught.gone,
        "known": {
            str(item): {
                "public": now.seqs.get(schema.PUBLIC),
                "staff": now.seqs.get(schema.STAFF),
                "edits": {
                    "public": now.edits[schema.PUBLIC],
                    "staff": now.edits[schema.STAFF],
                },
            }
            for item, now in caught.known.items()
        },
        "more": caught.more or more,
    }


def for_visitor(
    database: Database, visitor: VisitorIdentity, known: Mapping[int, Known]
) -> dict[str, Any]:
    """The WidgetSync of a visitor, with its newest unknown conversations. Blocking."""
    with database.read() as connection:
        rows = conversations.rows_of(connection, known, 0)
        caught = _catch_up(connection, visitor, known, rows)
        query = (
            select(_c.c.id)
            .where(_c.c.visitor_id == visitor.id, _c.c.id.not_in(sorted(known)))
            .order_by(_c.c.id.desc())
            .limit(NEW_MAX)
        )
        ids = list(connection.execute(query).scalars())
        new = {row.id: row for row in conversations.rows_of(connection, ids, 0)}
        queue = conversations.queue_of(connection, [*caught.rows, *new.values()])
    return {
        "conversations": [conversations.widget_wire(row, queue) for row in caught.rows],
        "messages": caught.messages,
        "edits": caught.edits,
        "new": [conversations.widget_wire(new[item], queue) for item in ids if item in new],
        "gone": caught.gone,
        "known": {
            str(item): {"seq": now.seqs[schema.PUBLIC], "edits": now.edits[schema.PUBLIC]}
            for item, now in caught.known.items()
        },
        "more": caught.more,
    }


def _unknown(
    connection: Connection,
    agent: Agent,
    known: Collection[int],
    view: Filters | None,
    since: datetime | None,
) -> tuple[list[int], bool]:
    """The ids of the view's conversations that are not known, and whether there are more."""
    if view is None:
        return [], False
    query = (
        select(_c.c.id)
        .where(*view.conditions(agent))
        .order_by(_c.c.updated_at.desc(), _c.c.id.desc())
        .limit(NEW_MAX + 1)
    )
    if since is None:
        # the first page as the list shows it; what lies behind it is not for catching up
        ids = connection.execute(query).scalars().all()[:NEW_MAX]
        return [item for item in ids if item not in known], False
    query = query.where(_c.c.updated_at >= since, _c.c.id.not_in(sorted(known)))
    found = list(connection.execute(query).scalars())
    return found[:NEW_MAX], len(found) > NEW_MAX


def _catch_up(
    connection: Connection,
    caller: Agent | VisitorIdentity,
    known: Mapping[int, Known],
    rows: list[Any],
) -> CaughtUp:
    rows = [
        row
        for row in rows
        if permissions.may_reach(caller, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
    ]
    # what is alive now comes first
    rows.sort(key=lambda row: (row.updated_at, row.id), reverse=True)
    streams = (schema.PUBLIC,) if isinstance(caller, VisitorIdentity) else (0, 1)
    told: dict[int, Known] = {}
    lacks_messages: dict[_Place, tuple[int, int]] = {}
    lacks_edits: dict[_Place, tuple[int, int]] = {}
    for row in rows:
        lasts = (row.last_seq_public, row.last_seq_staff)
        last_edits = (row.last_edit_public, row.last_edit_staff)
        his = known[row.id]
        seqs: dict[int, int] = {}
        edits: dict[int, int] = {}
        for stream in streams:
            # a number beyond the last one is a client's mistake: it is told the last one
            edits[stream] = min(his.edits.get(stream, last_edits[stream]), last_edits[stream])
            if stream not in his.seqs:
                continue
            seqs[stream] = min(his.seqs[stream], lasts[stream])
            lacks_messages[row.id, stream] = (seqs[stream], lasts[stream])
            lacks_edits[row.id, stream] = (edits[stream], last_edits[stream])
        told[row.id] = Known(seqs, edits)

    until, more_messages = _share(lacks_messages, MESSAGES_MAX)
    edits_until, more_edits = _share(lacks_edits, EDITS_MAX)
    wanted = {
        (*place, seq)
        for place, last in until.items()
        for seq in range(lacks_messages[place][0] + 1, last + 1)
    }
    edit_keys = [
        (*place, number)
        for place, last in edits_until.items()
        for number in range(lacks_edits[place][0] + 1, last + 1)
    ]
    edited: set[tuple[int, int, int]] = set()
    if edit_keys:
        ids = sorted({key[0] for key in edit_keys})
        for item, stream, seq in connection.execute(_EDITS, {"ids": ids, "keys": edit_keys}):
            # what the client has not got yet it will get as it stands now
            if seq <= lacks_messages[item, stream][0]:
                edited.add((item, stream, seq))
    found = messages.these(connection, wanted | edited)
    return CaughtUp(
        rows=rows,
        gone=sorted(set(known) - {row.id for row in rows}),
        messages=[message for key, message in found if key in wanted],
        edits=[message for key, message in found if key in edited],
        known={
            item: Known(
                {stream: until.get((item, stream), seq) for stream, seq in now.seqs.items()},
                {
                    stream: edits_until.get((item, stream), number)
                    for stream, number in now.edits.items()
                },
            )
            for item, now in told.items()
        },
        more=more_messages or more_edits,
    )


def _share(lacks: Mapping[_Place, tuple[int, int]], limit: int) -> tuple[dict[_Place, int], bool]:
    """Up to which number each place gets what it lacks, and whether that leaves anything.

    ``lacks`` gives the number that is known and the last one. Together they get at most ``limit``,
    each at least :data:`FIRST_SHARE` before any gets more.
    """
    until = {place: known for place, (known, _) in lacks.items()}
    left = limit
    for share in (FIRST_SHARE, limit):
        for place, (known, last) in lacks.items():
            granted = max(min(last, known + share, until[place] + left), until[place])
            left -= granted - until[place]
            until[place] = granted
    return until, any(until[place] < last for place, (_, last) in lacks.items())
