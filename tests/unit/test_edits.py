"""How long, by whom and under which number a message is changed, on a database without a server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from app import clock
from app.chat import edits
from app.chat.errors import Forbidden, NotFound, Refused
from app.chat.permissions import Actor, Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database

PUBLIC, STAFF = schema.PUBLIC, schema.STAFF
ANN = Agent(1, "Ann", "ann@example.com", "agent", None)
ADMIN = Agent(1000, "Root", "root@example.com", "admin", None)
VISITOR = VisitorIdentity(1, 1)


@pytest.fixture
def written(database: Database) -> Database:
    """Conversation 1 with the visitor's message, Ann's, her note, and an event after that."""
    common = {"conversation_id": 1, "body": "helo", "created_at": clock.now()}
    rows = [
        (PUBLIC, 1, "visitor", 1, "text"),
        (PUBLIC, 2, "agent", 1, "text"),
        (STAFF, 1, "agent", 1, "note"),
        (STAFF, 2, "system", None, "event"),
    ]
    names = ("stream", "seq", "sender_type", "sender_id", "kind")
    with database.write() as connection:
        for row in rows:
            values = dict(zip(names, row, strict=True))
            unique = {"client_id": f"{row[0]}-{row[1]}", **common}
            connection.execute(insert(schema.messages).values(**values, **unique))
        connection.execute(
            update(schema.conversations)
            .where(schema.conversations.c.id == 1)
            .values(last_seq_public=2, last_seq_staff=2)
        )
    return database


def edit(
    database: Database, who: Agent | VisitorIdentity, stream: int, seq: int, **more: Any
) -> Any:
    place = {"conversation_id": 1, "stream": stream, "seq": seq, "window_seconds": 900}
    return edits.edit(database, who, **{**place, "body": "hello", **more})


def remove(database: Database, who: Agent | VisitorIdentity, stream: int, seq: int) -> Any:
    actor = Actor("agent", who.id, who.name) if isinstance(who, Agent) else None
    place = {"conversation_id": 1, "stream": stream, "seq": seq}
    return edits.remove(database, who, **place, window_seconds=900, actor=actor)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    moment = clock.now_source() + timedelta(seconds=seconds)
    monkeypatch.setattr(clock, "now_source", lambda: moment)


def test_the_time_for_changes_is_in_seconds(
    written: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(monkeypatch, 890)
    assert edit(written, VISITOR, PUBLIC, 1).changed
    later(monkeypatch, 20)
    for change in (edit, remove):
        with pytest.raises(Refused, match="edit_window_over"):
            change(written, ANN, PUBLIC, 2)
        with pytest.raises(Refused, match="edit_window_over"):
            change(written, VISITOR, PUBLIC, 1, **({"body": "once more"} if change is edit else {}))
    assert remove(written, ADMIN, PUBLIC, 2).changed


def test_each_stream_numbers_its_own_changes(written: Database) -> None:
    edit(written, VISITOR, PUBLIC, 1)
    edit(written, ANN, STAFF, 1)
    remove(written, ANN, PUBLIC, 2)
    edit(written, ANN, STAFF, 1, body="hello again")
    edit(written, ANN, STAFF, 1, body="hello again")  # it says so already
    _e, _c = schema.message_edits, schema.conversations
    with written.read() as connection:
        numbers = connection.execute(
            select(_e.c.stream, _e.c.edit_seq, _e.c.seq).order_by(_e.c.stream, _e.c.edit_seq)
        ).all()
        lasts = connection.execute(
            select(_c.c.last_edit_public, _c.c.last_edit_staff, _c.c.version).where(_c.c.id == 1)
        ).one()
    assert [tuple(row) for row in numbers] == [
        (PUBLIC, 1, 1),
        (PUBLIC, 2, 2),
        (STAFF, 1, 1),
        (STAFF, 2, 1),
    ]
    assert tuple(lasts) == (2, 2, 4)


def test_nobody_changes_what_is_not_his(written: Database) -> None:
    other = Agent(1001, "Bo", "bo@example.com", "agent", None)
    stranger, elsewhere = VisitorIdentity(2, 1), VisitorIdentity(1, 2)
    for change in (edit, remove):
        for who, stream, seq in ((other, PUBLIC, 2), (ANN, PUBLIC, 1), (VISITOR, PUBLIC, 2)):
            with pytest.raises(Forbidden):
                change(written, who, stream, seq)
        for nobody in (stranger, elsewhere):
            with pytest.raises(NotFound):
                change(written, nobody, PUBLIC, 1)
        with pytest.raises(NotFound):
            change(written, VISITOR, STAFF, 1)
        # an event of the timeline is no message of anybody
        with pytest.raises(Forbidden):
            change(written, ADMIN, STAFF, 2)
    with pytest.raises(Forbidden):
        edit(written, ADMIN, PUBLIC, 1)


def test_what_a_moderator_deletes_is_noted_and_what_its_writer_deletes_is_not(
    written: Database,
) -> None:
    remove(written, ANN, PUBLIC, 2)
    remove(written, ADMIN, PUBLIC, 1)
    with written.read() as connection:
        noted = connection.execute(select(schema.audit_log)).all()
    assert [(row.action, row.actor_id, row.object_id) for row in noted] == [
        ("message.deleted", ADMIN.id, "1")
    ]


def test_a_blocked_visitor_deletes_but_writes_nothing_anew(written: Database) -> None:
    with written.write() as connection:
        connection.execute(
            update(schema.visitors).where(schema.visitors.c.id == 1).values(blocked_at=clock.now())
        )
    with pytest.raises(Refused, match="visitor_blocked"):
        edit(written, VISITOR, PUBLIC, 1)
    assert remove(written, VISITOR, PUBLIC, 1).changed
