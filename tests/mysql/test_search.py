"""Full-text search on MySQL: the ngram index of the primary and of the replica."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, insert, update

from app import clock
from app.chat import search
from app.chat.permissions import Agent
from app.db import engines, schema
from tools.private_mysql import Servers

ADMIN = Agent(1, "Ann", "ann@example.com", "admin", None)


@pytest.fixture
def primary(mysql: Servers) -> Iterator[Engine]:
    engine = engines.make_engine(mysql.primary.url("app"))
    yield engine
    engine.dispose()


@pytest.fixture
def replica(mysql: Servers) -> Iterator[Engine]:
    assert mysql.replica is not None
    engine = engines.make_engine(mysql.replica.url("app"))
    yield engine
    engine.dispose()


def conversation(connection: Connection, bodies: list[str]) -> tuple[int, int]:
    """A conversation with these messages in a new inbox; gives the ids of both."""
    now = clock.now()
    inbox = connection.execute(
        insert(schema.inboxes).values(
            key=uuid.uuid4().hex,
            name="Shop",
            greeting="",
            color="#000000",
            languages="en",
            created_at=now,
        )
    ).inserted_primary_key
    assert inbox is not None
    visitor = connection.execute(
        insert(schema.visitors).values(
            inbox_id=inbox[0], name="Visitor 1", first_seen_at=now, last_seen_at=now
        )
    ).inserted_primary_key
    assert visitor is not None
    made = connection.execute(
        insert(schema.conversations).values(
            inbox_id=inbox[0],
            visitor_id=visitor[0],
            status="open",
            last_seq_public=len(bodies),
            last_seq_staff=0,
            version=0,
            created_at=now,
            updated_at=now,
        )
    ).inserted_primary_key
    assert made is not None
    connection.execute(
        insert(schema.messages),
        [
            {
                "conversation_id": made[0],
                "stream": schema.PUBLIC,
                "seq": seq,
                "client_id": str(uuid.uuid4()),
                "sender_type": "visitor",
                "sender_id": visitor[0],
                "kind": "text",
                "body": body,
                "created_at": now,
            }
            for seq, body in enumerate(bodies, 1)
        ],
    )
    return int(made[0]), int(inbox[0])


def index(engine: Engine, conversation_id: int, inbox_id: int, last: int) -> None:
    grown = [search.Grown(conversation_id, inbox_id, (last, 0), clock.now())]
    with engines.write_transaction(engine) as connection:
        search.add_marks(connection, grown)
    with engines.write_transaction(engine) as connection:
        search.index(connection, grown, 500, lambda: None)


def seqs(engine: Engine, inbox_id: int, q: str) -> list[int]:
    with engines.read_transaction(engine) as connection:
        query = search.Query(q, "messages", inbox_id)
        return sorted(hit["seq"] for hit in search.find(connection, ADMIN, query)[0])


BODIES = [
    "訂單什麼時候到",
    "late parcel to a friend",
    "mail ann@example.com now! (today) -50% +x a*b",
    "zzaiazz",
    "naïve café 😀🎉 emoji",
    "long   gap between",
    "人",
    "x <y> 3@4 ~tilde",
]
QUERIES = [
    ("時候", [1]),
    ("訂單 到", [1]),
    ("時到", []),
    ("parcel", [2]),
    ("PARC friend", [2]),
    ("to a friend", [2]),
    ("at", [2]),
    ("ann@example.com", [3]),
    ("-50%", [3]),
    ("(today) a*b", [3]),
    ("aia", [4]),
    ("cafe", [5]),
    ("😀", [5]),
    ("gap between", [6]),
    ("人", [7]),
    ("<y> 3@4", [8]),
    ("~tilde", [8]),
    ("-parcel", []),
]


def test_primary_and_replica_find_the_same(
    mysql: Servers, primary: Engine, replica: Engine
) -> None:
    with engines.write_transaction(primary) as connection:
        conversation_id, inbox_id = conversation(connection, BODIES)
    index(primary, conversation_id, inbox_id, len(BODIES))
    mysql.catch_up()
    for engine in (primary, replica):
        assert [(q, seqs(engine, inbox_id, q)) for q, _ in QUERIES] == QUERIES


def test_an_edit_under_way_is_waited_for(primary: Engine) -> None:
    """The copy is never older than an edit that found nothing to change in it."""
    with engines.write_transaction(primary) as connection:
        conversation_id, inbox_id = conversation(connection, ["before the edit"])
    with engines.write_transaction(primary) as connection:
        connection.execute(
            update(schema.messages)
            .where(schema.messages.c.conversation_id == conversation_id)
            .values(body="after it")
        )
        search.reindex(connection, conversation_id, schema.PUBLIC, 1)
        indexing = threading.Thread(target=index, args=(primary, conversation_id, inbox_id, 1))
        indexing.start()
        time.sleep(0.5)
        assert indexing.is_alive()
    indexing.join(10)
    assert seqs(primary, inbox_id, "before") == []
    assert seqs(primary, inbox_id, "after") == [1]
    with engines.write_transaction(primary) as connection:
        search.forget(connection, conversation_id, schema.PUBLIC, 1)
    assert seqs(primary, inbox_id, "after") == []


def test_indexing_does_not_hold_up_senders(primary: Engine) -> None:
    """While messages are copied their conversation's row stays free for the writer."""
    with engines.write_transaction(primary) as connection:
        conversation_id, inbox_id = conversation(connection, ["one", "two"])
    grown = [search.Grown(conversation_id, inbox_id, (2, 0), clock.now())]
    with engines.write_transaction(primary) as connection:
        search.add_marks(connection, grown)
    with engines.write_transaction(primary) as connection:
        search.index(connection, grown, 500, lambda: None)
        begun = time.monotonic()
        with engines.write_transaction(primary) as writer:
            writer.execute(
                update(schema.conversations)
                .where(schema.conversations.c.id == conversation_id)
                .values(last_seq_public=3)
            )
        assert time.monotonic() - begun < 1
