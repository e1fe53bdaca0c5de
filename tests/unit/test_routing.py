"""Read routing: two SQLite files stand for the primary and its replica."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert, text

from app.chat import messages
from app.chat.errors import NotFound
from app.chat.permissions import Agent
from app.db import engines, routing, schema
from app.db.engines import Database, Unavailable
from app.db.reads import Reads
from app.db.routing import HistoryRouting
from app.http import inbox
from tests.unit.conftest import make_database, settings_for

ANN = Agent(1, "Ann", "ann@example.com", "agent", None)


class Pair:
    """A primary that is ahead of its replica by whatever was added after ``replicate``."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.replica = folder / "primary.db", folder / "replica.db"
        make_database(self.primary)
        self.replicate()
        self.database = Database(settings_for(self.primary, self.replica))
        self.routing = HistoryRouting(Reads(self.database))

    def replicate(self) -> None:
        engine = engines.make_engine(f"sqlite:///{self.primary}")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        shutil.copyfile(self.primary, self.replica)

    def add(self, seq: int) -> None:
        with self.database.write() as connection:
            connection.execute(
                text(
                    "INSERT INTO messages (conversation_id, stream, seq, client_id, sender_type, "
                    "sender_id, kind, body, created_at) VALUES (1, 0, :seq, :client, 'visitor', "
                    "1, 'text', 'x', '2026-01-01 00:00:00.000000')"
                ),
                {"seq": seq, "client": f"c{seq}"},
            )
            connection.execute(
                text("UPDATE conversations SET last_seq_public = :seq WHERE id = 1"), {"seq": seq}
            )

    def edit(self, stream: int = schema.PUBLIC) -> None:
        column = ("last_edit_public", "last_edit_staff")[stream]
        with self.database.write() as connection:
            connection.execute(
                text(f"UPDATE conversations SET {column} = {column} + 1 WHERE id = 1")  # noqa: S608
            )

    async def read(
        self, known_seq: int, conversation_id: int = 1, **changes: Any
    ) -> tuple[list[int], str]:
        query = {"after_seq": None, "before_seq": None, "known_edit": 0, "limit": 50, **changes}
        page = await messages.history(
            self.routing,
            conversation_id=conversation_id,
            stream=schema.PUBLIC,
            known_seq=known_seq,
            caller=ANN,
            **query,
        )
        return [item["seq"] for item in page.items], page.target


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.database.close()


async def test_history_is_read_from_the_replica(pair: Pair) -> None:
    pair.add(1)
    assert await pair.read(known_seq=0) == ([], "replica")


async def test_a_reader_that_knows_more_than_the_replica_reads_the_primary(pair: Pair) -> None:
    pair.add(1)
    pair.add(2)
    assert await pair.read(known_seq=2) == ([1, 2], "primary")
    assert pair.routing.reads["primary", "behind"] == 1


async def test_the_replica_serves_again_when_it_has_caught_up(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.add(1)
    pair.replicate()
    assert await pair.read(known_seq=1) == ([1], "replica")
    assert pair.routing.reads["replica", "ok"] == 1
    pair.database.close()


async def test_after_seq_counts_as_known(pair: Pair) -> None:
    for seq in (1, 2):
        pair.add(seq)
    assert await pair.read(known_seq=0, after_seq=1) == ([2], "primary")


async def test_a_reader_that_knows_an_edit_does_not_see_the_text_before_it(pair: Pair) -> None:
    pair.add(1)
    pair.replicate()
    pair.edit(schema.STAFF)
    pair.edit()
    pair.edit()
    assert await pair.read(known_seq=1, known_edit=0) == ([1], "replica")
    assert await pair.read(known_seq=1, known_edit=2) == ([1], "primary")
    # an empty page tells as much
    assert await pair.read(known_seq=1, known_edit=2, after_seq=1) == ([], "primary")
    assert pair.routing.reads["primary", "behind"] == 2


async def test_a_replica_that_holds_the_edit_serves(pair: Pair) -> None:
    pair.add(1)
    pair.edit()
    pair.replicate()
    assert await pair.read(known_seq=1, known_edit=1) == ([1], "replica")


async def test_an_edit_after_the_page_was_read_is_told_with_it(pair: Pair) -> None:
    for seq in (1, 2, 3):
        pair.add(seq)
    page = await messages.history(
        pair.routing,
        conversation_id=1,
        stream=schema.PUBLIC,
        after_seq=1,
        before_seq=None,
        known_seq=1,
        known_edit=0,
        limit=1,
        caller=ANN,
    )
    for number, seq in enumerate((2, 1, 3), 1):
        pair.edit()
        with pair.database.write() as connection:
            connection.execute(
                text(f"UPDATE messages SET body = 'new' WHERE seq = {seq}")  # noqa: S608
            )
            connection.execute(
                insert(schema.message_edits).values(
                    conversation_id=1, stream=0, edit_seq=number, seq=seq
                )
            )
    context = SimpleNamespace(database=pair.database, reads=Reads(pair.database))
    query = SimpleNamespace(after_seq=1, after_edit=0)
    call: Any = SimpleNamespace(query=query, context=context, ids={"conversation_id": 1})
    items, edits, last_edit = await inbox._with_edits(call, schema.PUBLIC, page.items)
    assert [(item["seq"], item["body"]) for item in items] == [(2, "new")]
    assert [(item["seq"], item["body"]) for item in edits] == [(1, "new")]
    # the third is of a message that the reader has not got
    assert last_edit == 2


async def test_a_conversation_that_the_replica_lacks(pair: Pair) -> None:
    with pair.database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO conversations (id, inbox_id, visitor_id, status, last_seq_public, "
                "last_seq_staff, version, created_at, updated_at) SELECT 9, inbox_id, visitor_id, "
                "status, 0, 0, 0, created_at, updated_at FROM conversations WHERE id = 1"
            )
        )
    assert await pair.read(known_seq=0, conversation_id=9) == ([], "primary")
    with pytest.raises(NotFound):
        await pair.read(known_seq=0, conversation_id=99)


async def test_a_broken_replica_is_left_alone_for_a_while(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "SUSPECT_SECONDS", 0.3)
    pair.add(1)
    replica = pair.database.replica
    assert replica is not None
    with replica.begin() as connection:
        connection.exec_driver_sql("DROP TABLE messages")
    assert await pair.read(known_seq=0) == ([1], "primary")
    assert await pair.read(known_seq=0) == ([1], "primary")
    assert pair.routing.reads["primary", "failed"] == 1
    assert pair.routing.reads["primary", "suspect"] == 1
    await asyncio.sleep(0.35)
    assert await pair.read(known_seq=0) == ([1], "primary")
    assert pair.routing.reads["primary", "failed"] == 2


async def test_without_a_replica_everything_is_read_from_the_primary(database: Database) -> None:
    alone = HistoryRouting(Reads(database))

    async def work(_source: object) -> None:
        return None

    _, target = await alone.read(work, lambda _result: False)
    assert target == "primary"
    assert alone.reads == {("primary", "none"): 1}


class Failing:
    """A primary that cannot serve."""

    async def rows(self, *_arguments: object, **_options: object) -> list[Any]:
        raise Unavailable("away")

    def close(self) -> None:
        pass


async def test_a_suspect_replica_serves_when_the_primary_is_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.add(1)
    pair.replicate()
    monkeypatch.setattr(pair.routing, "_suspect_until", time.monotonic() + 60)
    monkeypatch.setattr(pair.routing._sources, "primary", Failing())
    assert await pair.read(known_seq=1) == ([1], "replica")
    assert pair.routing.reads["replica", "primary_failed"] == 1
    with pytest.raises(Unavailable):
        await pair.read(known_seq=2)


async def test_a_page_between_messages_that_were_erased_is_empty(pair: Pair) -> None:
    pair.add(1)
    pair.add(2)
    with pair.database.write() as connection:
        connection.execute(text("DELETE FROM messages WHERE seq = 1"))
    assert await pair.read(known_seq=2, before_seq=2) == ([], "primary")
