"""The same routes as a straightforward implementation would have them, to be measured against.

Everything but the database work is Deskline's own: its Sanic application with all middleware, its
rate limits, permissions, CSRF check, validation, events and answers. A message is stored by one
SQLAlchemy transaction in a thread (Core or ORM, PyMySQL), history is read by one SQLAlchemy query
in a thread. With ``--login core`` the session is found that way too; with ``--login deskline`` by
Deskline's own look-up. ``/bare`` validates and answers, and stores nothing.

Not a part of the product; started by bench/api.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sanic import Sanic
from sanic.response import HTTPResponse
from sqlalchemy import Engine, bindparam, func, insert, select, update
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import registry

from app import clock, config, log, serving
from app.chat import logins, messages, permissions
from app.chat.errors import NotFound
from app.db import engines, schema
from app.db.engines import Database
from app.db.hot import as_moment
from app.db.upsert import add_participants, raise_read_mark
from app.db.writer import NewMessage, Stored
from app.http import models
from app.http.endpoint import Call, Endpoints, json
from app.http.server import create_app
from app.serving import Listener

endpoints = Endpoints("reference")

_c, _m, _u, _v = schema.conversations, schema.messages, schema.users, schema.visitors


# --- a login by SQLAlchemy Core in a thread -----------------------------------------------------


class CoreLookup:
    """In the place of the group look-up of sessions: one Core query each, in a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, token_hash: str) -> Any:
        return await self._database.run(self._find, token_hash)

    def _find(self, token_hash: str) -> Any:
        with self._database.read() as connection:
            return connection.execute(_SESSION, {"token_hash": token_hash}).one_or_none()


_SESSION = logins._SESSION.where(schema.sessions.c.token_hash == bindparam("token_hash"))


# --- one transaction for each message -----------------------------------------------------------

_LOCK = (
    select(_c.c.inbox_id, _c.c.visitor_id, _c.c.last_seq_public)
    .where(_c.c.id == bindparam("id"))
    .with_for_update()
)
_REPEATED = select(_m.c.seq).where(
    _m.c.conversation_id == bindparam("id"), _m.c.client_id == bindparam("client_id")
)
_ADVANCE = (
    update(_c)
    .where(_c.c.id == bindparam("conversation"))
    .values(
        last_seq_public=bindparam("last"),
        version=_c.c.version + 1,
        updated_at=bindparam("now"),
        first_response_at=func.coalesce(_c.c.first_response_at, bindparam("now")),
        waiting_since=None,
    )
)


def store_with_core(engine: Engine, message: NewMessage) -> Stored:
    """What the group-commit writer does for a message of an agent, for one message."""
    now = clock.now()
    with engines.write_transaction(engine) as connection:
        row = connection.execute(_LOCK, {"id": message.conversation_id}).one_or_none()
        if row is None or (message.inbox_ids is not None and row.inbox_id not in message.inbox_ids):
            raise NotFound
        question = {"id": message.conversation_id, "client_id": message.client_id}
        if connection.execute(_REPEATED, question).first() is not None:
            raise NotImplementedError("the generator repeats nothing")
        seq = row.last_seq_public + 1
        connection.execute(
            insert(_m).values(
                conversation_id=message.conversation_id,
                stream=message.stream,
                seq=seq,
                client_id=message.client_id,
                sender_type=message.sender_type,
                sender_id=message.sender_id,
                kind=message.kind,
                body=message.body,
                created_at=now,
            )
        )
        connection.execute(
            _ADVANCE, {"conversation": message.conversation_id, "last": seq, "now": now}
        )
        connection.execute(
            raise_read_mark(connection.dialect),
            {
                "conversation_id": message.conversation_id,
                "stream": message.stream,
                "reader_type": message.sender_type,
                "reader_id": message.sender_id,
                "seq": seq,
                "delivered_seq": seq,
                "updated_at": now,
            },
        )
        connection.execute(
            add_participants(connection.dialect),
            {
                "conversation_id": message.conversation_id,
                "user_id": message.sender_id,
                "since": now,
            },
        )
    return _stored(message, row.inbox_id, row.visitor_id, seq, now)


class _Row:
    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


class Conversation(_Row):
    """A row of ``conversations``, for the ORM."""


class Message(_Row):
    """A row of ``messages``, for the ORM."""


class ReadMark(_Row):
    """A row of ``read_marks``, for the ORM."""


class Participant(_Row):
    """A row of ``participants``, for the ORM."""


_mapped = registry()
_mapped.map_imperatively(Conversation, schema.conversations)
_mapped.map_imperatively(Message, schema.messages)
_mapped.map_imperatively(ReadMark, schema.read_marks)
_mapped.map_imperatively(Participant, schema.participants)


def store_with_orm(engine: Engine, message: NewMessage) -> Stored:
    """The same with the ORM's objects."""
    now = clock.now()
    with OrmSession(engine, expire_on_commit=False) as session, session.begin():
        found: Any = session.scalars(
            select(Conversation).where(_c.c.id == message.conversation_id).with_for_update()
        ).one_or_none()
        if found is None or (
            message.inbox_ids is not None and found.inbox_id not in message.inbox_ids
        ):
            raise NotFound
        question = select(Message).where(
            _m.c.conversation_id == message.conversation_id, _m.c.client_id == message.client_id
        )
        if session.scalars(question).first() is not None:
            raise NotImplementedError("the generator repeats nothing")
        seq = found.last_seq_public + 1
        session.add(
            Message(
                conversation_id=message.conversation_id,
                stream=message.stream,
                seq=seq,
                client_id=message.client_id,
                sender_type=message.sender_type,
                sender_id=message.sender_id,
                kind=message.kind,
                body=message.body,
                created_at=now,
            )
        )
        found.last_seq_public = seq
        found.version += 1
        found.updated_at = now
        found.first_response_at = found.first_response_at or now
        found.waiting_since = None
        key = (message.conversation_id, message.stream, message.sender_type, message.sender_id)
        mark: Any = session.get(ReadMark, key)
        if mark is None:
            names = ("conversation_id", "stream", "reader_type", "reader_id")
            mark = ReadMark(**dict(zip(names, key, strict=True)))
            session.add(mark)
        mark.seq, mark.delivered_seq, mark.updated_at = seq, seq, now
        if session.get(Participant, (message.conversation_id, message.sender_id)) is None:
            session.add(
                Participant(
                    conversation_id=message.conversation_id, user_id=message.sender_id, since=now
                )
            )
        inbox_id, visitor_id = found.inbox_id, found.visitor_id
    return _stored(message, inbox_id, visitor_id, seq, now)


def _stored(message: NewMessage, inbox_id: int, visitor_id: int, seq: int, now: datetime) -> Stored:
    return Stored(
        conversation_id=message.conversation_id or 0,
        inbox_id=inbox_id,
        visitor_id=visitor_id,
        stream=message.stream,
        seq=seq,
        client_id=message.client_id,
        sender_type=message.sender_type,
        sender_id=message.sender_id,
        sender_name=message.sender_name,
        sender_avatar_url=message.sender_avatar_url,
        kind=message.kind,
        body=message.body,
        created_at=now,
        created=True,
    )


def _message(call: Call) -> NewMessage:
    agent, body = call.agent, call.body
    return NewMessage(
        conversation_id=call.ids["conversation_id"],
        client_id=str(body.client_id),
        stream=schema.STAFF if body.kind == "note" else schema.PUBLIC,
        sender_type="agent",
        sender_id=agent.id,
        sender_name=agent.name,
        sender_avatar_url=agent.avatar_url,
        kind=body.kind,
        body=body.body,
        inbox_ids=agent.inbox_ids,
    )


def _send_route(name: str, store: Any) -> None:
    async def send(call: Call) -> HTTPResponse:
        database = call.context.database
        stored = await database.run(store, database.primary, _message(call))
        call.context.announcer.messages_stored([stored])
        return json(messages.stored_wire(stored), 201)

    send.__name__ = f"send_{name}"
    endpoints.add(
        "POST",
        f"/{name}/conversations/{{conversation_id}}/messages",
        "Store a message",
        audience="staff",
        permission="conversations",
        body=models.NewMessage,
        answers={201: models.Message},
        limit="sends",
    )(send)


_send_route("core", store_with_core)
_send_route("orm", store_with_orm)


@endpoints.add(
    "POST",
    "/bare/conversations/{conversation_id}/messages",
    "Store nothing",
    audience="anyone",
    body=models.NewMessage,
    answers={201: models.Message},
)
async def send_bare(call: Call) -> HTTPResponse:
    """Validates and answers."""
    nobody = NewMessage(
        conversation_id=call.ids["conversation_id"],
        client_id=str(call.body.client_id),
        stream=schema.PUBLIC,
        sender_type="agent",
        sender_id=1,
        kind="text",
        body=call.body.body,
    )
    return json(messages.stored_wire(_stored(nobody, 1, 1, 1, clock.now())), 201)


# --- history ------------------------------------------------------------------------------------


@endpoints.add(
    "GET",
    "/core/conversations/{conversation_id}/messages",
    "The last messages",
    audience="staff",
    permission="conversations",
    query=models.MessageQuery,
    answers={200: models.MessagePage},
    limit="reads",
)
async def history(call: Call) -> HTTPResponse:
    """The same page as Deskline's, by the same SQL."""
    items, more = await call.context.database.run(_history, call)
    return json({"items": items, "next_cursor": None, "has_more": more})


_PAGE = messages._history().order_by(_m.c.seq.desc())


def _history(call: Call) -> tuple[list[dict[str, Any]], bool]:
    query, conversation_id = call.query, call.ids["conversation_id"]
    stream = schema.STREAMS[query.stream]
    with call.context.database.read() as connection:
        rows = connection.execute(
            _PAGE,
            {
                "conversation_id": conversation_id,
                "stream": stream,
                "after": 0,
                "before": 2**31 - 1,
                "limit": query.limit + 1,
            },
        ).all()
    if not rows:
        raise NotFound
    permissions.reach(call.agent, inbox_id=rows[0].inbox_id, visitor_id=rows[0].visitor_id)
    page = [
        messages.wire(
            conversation_id=conversation_id,
            stream=stream,
            seq=row.seq,
            client_id=row.client_id,
            sender_type=row.sender_type,
            sender_id=row.sender_id,
            sender_name=row.visitor_name if row.sender_type == "visitor" else row.agent_name,
            sender_avatar_url=row.avatar_url,
            kind=row.kind,
            body=row.body,
            created_at=as_moment(row.created_at) or clock.now(),
            edited_at=row.edited_at,
            deleted_at=row.deleted_at,
            attachments=row.attachments,
            event=row.event,
        )
        for row in reversed(rows[: query.limit])
    ]
    return page, len(rows) > query.limit


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--login", choices=("core", "deskline"), required=True)
    arguments = parser.parse_args()
    settings = config.load("web", os.environ)
    log.setup(level=settings.log_level, node=settings.node, process="reference")
    app = create_app(settings)
    app.blueprint(endpoints.blueprint())
    if arguments.login == "core":

        async def use_core(app: Sanic[Any, Any]) -> None:
            made = app.ctx.deskline
            made.logins._sessions = CoreLookup(made.database)

        app.before_server_start(use_core)
    listener = Listener(app, settings.web_host, settings.web_port)
    serving.run([(listener, "DESKLINE_WEB_PORT")], drain_seconds=settings.drain_seconds)


if __name__ == "__main__":
    main()
