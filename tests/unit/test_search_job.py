"""The job that fills the search: it goes on where it ended, and misses nothing."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, update

from app import clock
from app.chat import search
from app.db import schema
from app.db.engines import Database
from app.worker import search as job
from app.worker.jobs import LostLock
from tests.unit.test_privacy import ADMIN
from tests.unit.test_retention import FakeRun

_c, _s = schema.conversations, schema.message_search


def say(database: Database, conversation_id: int, body: str, ahead: timedelta) -> None:
    """Store a message as a node does whose clock is ``ahead``."""
    with database.write() as connection:
        row = connection.execute(select(_c).where(_c.c.id == conversation_id)).one()
        seq = row.last_seq_public + 1
        connection.execute(
            insert(schema.messages).values(
                conversation_id=conversation_id,
                stream=schema.PUBLIC,
                seq=seq,
                client_id=str(uuid.uuid4()),
                sender_type="visitor",
                sender_id=row.visitor_id,
                kind="text",
                body=body,
                created_at=clock.now() + ahead,
            )
        )
        connection.execute(
            update(_c)
            .where(_c.c.id == conversation_id)
            .values(last_seq_public=seq, updated_at=clock.now() + ahead)
        )


def known(database: Database) -> list[str]:
    with database.read() as connection:
        return sorted(connection.execute(select(_s.c.body)).scalars())


async def run(database: Database) -> int:
    return await job.index_messages(FakeRun(database))  # type: ignore[arg-type]


async def test_it_goes_on_where_it_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "CONVERSATIONS_PER_PAGE", 2)
    monkeypatch.setattr(job, "MESSAGES_PER_TRANSACTION", 3)
    for number in range(5):
        for conversation_id in (1, 2, 3):
            say(database, conversation_id, f"{conversation_id}.{number}", timedelta())
    assert await run(database) == 15
    assert len(known(database)) == 15
    assert await run(database) == 0
    say(database, 2, "2.5", timedelta())
    assert await run(database) == 1
    assert len(known(database)) == 16


async def test_clocks_may_differ(database: Database) -> None:
    say(database, 1, "from tomorrow", timedelta(days=1))
    assert await run(database) == 1
    say(database, 2, "from now", timedelta())
    assert await run(database) == 1
    say(database, 3, "a little late", timedelta(seconds=-20))
    assert await run(database) == 1
    assert known(database) == ["a little late", "from now", "from tomorrow"]


async def test_a_clock_far_behind_is_made_good_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(database, 1, "now", timedelta())
    await run(database)
    say(database, 2, "an hour late", timedelta(hours=-1))
    assert await run(database) == 0
    monkeypatch.setattr(job, "DEEP_EVERY", timedelta(0))
    assert await run(database) == 1


async def test_whoever_lost_the_lock_writes_nothing(database: Database) -> None:
    say(database, 1, "hello", timedelta())
    fake = FakeRun(database)
    fake.lost = True
    with pytest.raises(LostLock):
        await job.index_messages(fake)  # type: ignore[arg-type]
    assert known(database) == []
    assert await run(database) == 1


async def test_short_queries_look_at_a_bounded_number_of_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may be empty while there is a next one; following them finds everything."""
    monkeypatch.setattr(search, "WINDOW_ROWS", 10)
    say(database, 1, "人", timedelta())
    for number in range(25):
        say(database, 1, f"x{number}", timedelta())
    await run(database)
    hits: list[int] = []
    cursor: str | None = None
    pages = 0
    while True:
        with database.read() as connection:
            found, cursor = search.find(
                connection, ADMIN, search.Query("人", "messages", cursor=cursor)
            )
        hits += [hit["seq"] for hit in found]
        pages += 1
        if cursor is None:
            break
    assert hits == [1]
    assert pages == 3
