"""The group-commit writer, over a real SQLite file."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError

from app.db import engines, schema, writer
from app.db.engines import Unavailable
from app.db.writer import NewMessage, QueueFull, Rejected, Stored, Writer
from tests.unit.conftest import Stand


def message(conversation_id: int | None = 1, **changes: Any) -> NewMessage:
    values: dict[str, Any] = {
        "conversation_id": conversation_id,
        "client_id": str(uuid.uuid4()),
        "stream": schema.PUBLIC,
        "sender_type": "agent",
        "sender_id": 1,
        "sender_name": "Ann",
        "kind": "text",
        "body": "hello",
    }
    return NewMessage(**{**values, **changes})


def by_visitor(visitor_id: int, **changes: Any) -> NewMessage:
    values = {"visitor_id": visitor_id, "sender_type": "visitor", "sender_id": visitor_id}
    return message(changes.pop("conversation_id", None), **{**values, **changes})


@asynccontextmanager
async def running(stand: Stand, **options: Any) -> AsyncIterator[Writer]:
    made = Writer(stand.engine, **options)
    try:
        yield made
    finally:
        await made.close()


class Gate:
    """Holds the writer's transactions back, so that what is sent meanwhile becomes one batch."""

    def __init__(self, stand: Stand) -> None:
        self.open = threading.Event()
        event.listen(stand.engine, "begin", self._wait)

    def _wait(self, _connection: object) -> None:
        self.open.wait(10)


def stored_rows(stand: Stand) -> list[Any]:
    with engines.read_transaction(stand.engine) as connection:
        order = (schema.messages.c.conversation_id, schema.messages.c.stream, schema.messages.c.seq)
        return list(connection.execute(select(schema.messages).order_by(*order)))


async def test_many_senders_get_one_order_without_holes(stand: Stand) -> None:
    announced: list[Stored] = []
    async with running(stand, on_stored=announced.extend) as made:
        sends = [
            made.store(message(1 + n % 3, stream=schema.STAFF if n % 5 == 0 else schema.PUBLIC))
            for n in range(900)
        ]
        stored = await asyncio.gather(*sends)
        assert made.statistics.rows == 900
        assert made.statistics.batches < 900
    for conversation_id in (1, 2, 3):
        for stream in (schema.PUBLIC, schema.STAFF):
            mine = (conversation_id, stream)
            seqs = [s.seq for s in stored if (s.conversation_id, s.stream) == mine]
            assert seqs == list(range(1, len(seqs) + 1))
            assert [s.seq for s in announced if (s.conversation_id, s.stream) == mine] == seqs
    assert len(stored_rows(stand)) == 900
    with engines.read_transaction(stand.engine) as connection:
        row = connection.execute(
            select(schema.conversations).where(schema.conversations.c.id == 1)
        ).one()
    assert row.last_seq_public + row.last_seq_staff == 300


async def test_two_writers_share_the_order(stand: Stand) -> None:
    """Two web processes: the row's lock keeps the seqs whole."""
    async with running(stand, batch_rows=7) as one, running(stand, batch_rows=5) as two:
        stored = await asyncio.gather(
            *((one if n % 2 else two).store(message()) for n in range(200))
        )
    assert sorted(s.seq for s in stored) == list(range(1, 201))


async def test_what_gathers_during_a_commit_is_one_batch(stand: Stand) -> None:
    gate = Gate(stand)
    async with running(stand) as made:
        first = asyncio.create_task(made.store(message()))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(made.store(message())) for _ in range(600)]
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(first, *rest)
        # the first alone or with few, then at most 500, then the rest
        assert made.statistics.batches <= 4


async def test_a_repeat_gives_the_stored_message(stand: Stand) -> None:
    async with running(stand) as made:
        once = message()
        first = await made.store(once)
        again = await made.store(once)
    assert (first.created, again.created) == (True, False)
    assert (again.seq, again.body, again.created_at) == (first.seq, first.body, first.created_at)
    assert len(stored_rows(stand)) == 1


async def test_a_repeat_is_announced_again(stand: Stand) -> None:
    """The process that stored the message may have died before it told anybody."""
    announced: list[Stored] = []
    async with running(stand) as made:
        first = await made.store(once := message())
    async with running(stand, on_stored=announced.extend) as made:
        await made.store(once)
    assert [(told.seq, told.client_id, told.body) for told in announced] == [
        (first.seq, first.client_id, first.body)
    ]


async def test_repeats_within_one_batch(stand: Stand) -> None:
    gate = Gate(stand)
    announced: list[Stored] = []
    async with running(stand, on_stored=announced.extend) as made:
        once = message()
        tasks = [asyncio.create_task(made.store(once)) for _ in range(5)]
        await asyncio.sleep(0.05)
        gate.open.set()
        stored = await asyncio.gather(*tasks)
    assert sorted(s.created for s in stored) == [False] * 4 + [True]
    assert {s.seq for s in stored} == {1}
    assert len(announced) == 1


async def test_a_client_id_of_another_sender_is_refused(stand: Stand) -> None:
    async with running(stand) as made:
        note = await made.store(message(stream=schema.STAFF, kind="note", body="secret"))
        with pytest.raises(Rejected) as caught:
            await made.store(by_visitor(1, conversation_id=1, client_id=note.client_id))
    assert caught.value.reason == "client_id_taken"


async def test_a_bad_row_fails_alone(stand: Stand) -> None:
    with engines.write_transaction(stand.engine) as connection:
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON messages WHEN NEW.body = 'bad' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
        )
    gate = Gate(stand)
    async with running(stand) as made:
        bodies = ["bad" if n in (0, 17, 49) else f"good {n}" for n in range(50)]
        tasks = [asyncio.create_task(made.store(message(body=body))) for body in bodies]
        await asyncio.sleep(0.05)
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for body, result in zip(bodies, results, strict=True):
        assert isinstance(result, Rejected if body == "bad" else Stored)
    rows = stored_rows(stand)
    assert [row.seq for row in rows] == list(range(1, 48))
    assert [row.body for row in rows] == [body for body in bodies if body != "bad"]


async def test_no_such_conversation_and_somebody_elses(stand: Stand) -> None:
    gate = Gate(stand)
    async with running(stand) as made:
        wrong = [
            message(99),
            by_visitor(2, conversation_id=1),
            by_visitor(99),
        ]
        tasks = [asyncio.create_task(made.store(m)) for m in [*wrong, message(1)]]
        await asyncio.sleep(0.05)
        gate.open.set()
        *refused, good = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(r, "reason", None) for r in refused] == ["not_found"] * 3
    assert isinstance(good, Stored)
    assert good.seq == 1


async def test_a_first_message_goes_to_the_open_conversation(stand: Stand) -> None:
    async with running(stand) as made:
        stored = await made.store(by_visitor(1))
    assert (stored.conversation_id, stored.opened, stored.sender_name) == (1, False, "Visitor 1")


async def test_first_messages_at_once_open_one_conversation(stand: Stand) -> None:
    with engines.write_transaction(stand.engine) as connection:
        connection.execute(text("UPDATE conversations SET status = 'resolved' WHERE id = 2"))
    async with running(stand) as one, running(stand) as two:
        same = by_visitor(2)
        sends = [by_visitor(2), by_visitor(2), same, same, by_visitor(2)]
        stored = await asyncio.gather(
            *((one if n % 2 else two).store(m) for n, m in enumerate(sends))
        )
        later = await one.store(same)
    (conversation_id,) = {s.conversation_id for s in stored}
    assert conversation_id > 3
    assert sum(s.opened for s in stored) == 1
    assert sorted(s.seq for s in stored if s.created) == [1, 2, 3, 4]
    assert (later.created, later.conversation_id) == (False, conversation_id)


async def test_a_repeated_first_message_stays_where_it_is(stand: Stand) -> None:
    """Even when its conversation was resolved meanwhile: a repeat must not open a new one."""
    async with running(stand) as made:
        once = by_visitor(3)
        await made.store(once)
        with engines.write_transaction(stand.engine) as connection:
            connection.execute(text("UPDATE conversations SET status = 'resolved' WHERE id = 3"))
        again = await made.store(once)
    assert (again.conversation_id, again.created) == (3, False)
    with engines.read_transaction(stand.engine) as connection:
        count = select(func.count()).select_from(schema.conversations)
        assert connection.execute(count).scalar() == 3


async def test_own_messages_move_the_own_mark(stand: Stand) -> None:
    async with running(stand) as made:
        await asyncio.gather(*(made.store(message()) for _ in range(3)))
        await made.store(by_visitor(1))
    with engines.read_transaction(stand.engine) as connection:
        marks = {
            (row.reader_type, row.reader_id, row.stream): row.seq
            for row in connection.execute(select(schema.read_marks))
        }
    assert marks == {("agent", 1, schema.PUBLIC): 3, ("visitor", 1, schema.PUBLIC): 4}


async def test_a_full_queue_refuses_instead_of_growing(stand: Stand) -> None:
    gate = Gate(stand)
    async with running(stand, queue_rows=10, batch_rows=1) as made:
        tasks = [asyncio.create_task(made.store(message())) for _ in range(30)]
        await asyncio.sleep(0.1)
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = sum(isinstance(r, QueueFull) for r in results)
    assert 15 <= refused <= 20
    assert len(stored_rows(stand)) == 30 - refused


async def test_closing_stores_what_waits_and_refuses_the_rest(stand: Stand) -> None:
    gate = Gate(stand)
    # some are being stored, the rest waits for three batches more
    made = Writer(stand.engine, batch_rows=5)
    tasks = [asyncio.create_task(made.store(message())) for _ in range(20)]
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0.05)
    with pytest.raises(QueueFull):
        await made.store(message())
    assert made.queued >= 15
    gate.open.set()
    await closing
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*tasks)
    assert all(isinstance(stored, Stored) for stored in answers)
    assert len(stored_rows(stand)) == 20


def failing(times: int, error: Callable[[], Exception]) -> Callable[..., None]:
    left = [times]

    def fail(*_arguments: object) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise error()

    return fail


def lost_connection() -> Exception:
    import pymysql  # noqa: PLC0415  only its error is needed

    return OperationalError("x", {}, pymysql.err.OperationalError(2013, "Lost connection"))


async def test_a_lost_connection_is_tried_again(stand: Stand) -> None:
    announced: list[Stored] = []
    async with running(stand, on_stored=announced.extend) as made:
        await made.store(message())
        event.listen(stand.engine, "begin", failing(2, lost_connection))
        stored = await made.store(message())
        assert made.statistics.retries == 2
    assert (stored.seq, stored.created) == (2, True)
    assert len(announced) == 2


async def test_a_commit_whose_answer_was_lost_is_announced_once_and_stored_once(
    stand: Stand,
) -> None:
    """The commit went through, but the connection broke before the answer: the retry finds it."""
    announced: list[Stored] = []
    async with running(stand, on_stored=announced.extend) as made:
        lose = failing(1, lost_connection)
        real_commit = stand.engine.dialect.do_commit

        def commit(connection: Any) -> None:
            real_commit(connection)
            lose()

        stand.engine.dialect.do_commit = commit  # type: ignore[method-assign]
        stored = await made.store(message())
    assert stored.created is True
    assert stored.seq == 1
    assert len(stored_rows(stand)) == 1
    assert len(announced) == 1


async def test_a_database_that_stays_away_is_told_to_the_sender(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.3)
    async with running(stand) as made:
        fail = failing(10_000, lost_connection)
        event.listen(stand.engine, "begin", fail)
        with pytest.raises(Unavailable):
            await made.store(message())
        event.remove(stand.engine, "begin", fail)
        assert (await made.store(message())).seq == 1


async def test_senders_are_told_when_nothing_is_committed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "STORE_SECONDS", 0.3)
    gate = Gate(stand)
    async with running(stand) as made:
        under_way = asyncio.create_task(made.store(once := message()))
        await asyncio.sleep(0.1)
        queued = asyncio.create_task(made.store(message()))
        with pytest.raises(Unavailable, match="not committed in time"):
            await under_way
        with pytest.raises(Unavailable, match="not committed in time"):
            await queued
        assert made.statistics.late == 2
        gate.open.set()
        again = await made.store(once)
    # the one that was under way is stored, the one that still waited in the queue is not
    assert (again.created, again.seq) == (False, 1)
    assert len(stored_rows(stand)) == 1


async def test_senders_hear_sooner_while_the_primary_is_known_to_be_away(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(writer, "STORE_SECONDS", 60)
    gate = Gate(stand)
    async with running(stand, primary_away=lambda: True) as made:
        with pytest.raises(Unavailable):
            await made.store(message())
        gate.open.set()


async def test_a_long_queue_is_not_sent_away_while_commits_go_on(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "STORE_SECONDS", 0.4)
    event.listen(stand.engine, "begin", lambda _connection: time.sleep(0.1))
    async with running(stand, batch_rows=1) as made:
        stored = await asyncio.gather(*(made.store(message()) for _ in range(12)))
    assert [one.seq for one in stored] == list(range(1, 13))
    assert made.statistics.late == 0


async def test_a_sender_that_stops_waiting_harms_nobody(stand: Stand) -> None:
    gate = Gate(stand)
    async with running(stand) as made:
        gone = asyncio.create_task(made.store(message()))
        stays = asyncio.create_task(made.store(message()))
        await asyncio.sleep(0.05)
        gone.cancel()
        gate.open.set()
        assert isinstance(await stays, Stored)
    assert [row.seq for row in stored_rows(stand)] == [1, 2]


async def test_a_visitor_that_writes_reopens_and_the_timeline_tells_it(stand: Stand) -> None:
    announced: list[Stored] = []
    async with running(stand, on_stored=announced.extend) as made:
        await made.store(message(2, stream=schema.STAFF, kind="note"))
        with engines.write_transaction(stand.engine) as connection:
            connection.execute(text("UPDATE conversations SET status = 'resolved' WHERE id = 2"))
        back = await made.store(by_visitor(2, conversation_id=2))
        again = await made.store(by_visitor(2, conversation_id=2))
    assert (back.seq, back.reopened, again.seq, again.reopened) == (1, True, 2, False)
    events = [row for row in stored_rows(stand) if row.kind == "event"]
    assert [(row.stream, row.seq, row.sender_type) for row in events] == [
        (schema.STAFF, 2, "system")
    ]
    assert orjson.loads(events[0].event)["by"] == {"id": 2, "name": "Visitor 2", "type": "visitor"}
    told = [item for item in announced if item.kind == "event"]
    assert [(item.seq, item.event) for item in told] == [(2, events[0].event)]
    with engines.read_transaction(stand.engine) as connection:
        row = connection.execute(
            select(schema.conversations).where(schema.conversations.c.id == 2)
        ).one()
    assert (row.status, row.last_seq_public, row.last_seq_staff) == ("open", 2, 2)
