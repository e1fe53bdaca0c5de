"""What is older than it should be kept goes with everything that hangs on it; the rest stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import OperationalError

from app import clock
from app.chat import installation, retention
from app.chat.permissions import SYSTEM
from app.chat.retention import Old
from app.db import schema
from app.db.engines import Database, Unavailable
from app.worker import retention as job
from app.worker.jobs import LostLock
from tests.unit.test_privacy import fill_person

_c, _v = schema.conversations, schema.visitors


class FakeRun:
    """A run under a lock that is held, until ``lost``."""

    def __init__(self, database: Database) -> None:
        self.tools = SimpleNamespace(database=database)
        self.lost = False

    async def go_on(self) -> None:
        if self.lost:
            raise LostLock

    def check_fence(self, _connection: Connection) -> None:
        if self.lost:
            raise LostLock


def resolve(database: Database, conversation_id: int, days_ago: float) -> Old:
    then = clock.now() - timedelta(days=days_ago)
    with database.write() as connection:
        connection.execute(
            update(_c)
            .where(_c.c.id == conversation_id)
            .values(status="resolved", resolved_at=then, updated_at=then)
        )
        connection.execute(update(_v).where(_v.c.id == conversation_id).values(last_seen_at=then))
    return Old(then, conversation_id)


def set_rules(database: Database, **values: Any) -> None:
    with database.write() as connection:
        retention.change(connection, SYSTEM, values)


def ids(database: Database, table: Any) -> list[int]:
    with database.read() as connection:
        return list(connection.execute(select(table.c.id).order_by(table.c.id)).scalars())


async def run(database: Database) -> int:
    return await job.remove_old(FakeRun(database))  # type: ignore[arg-type]


@pytest.fixture
def full(database: Database) -> Database:
    """Conversations 1 to 3, the first two with rows in every table that knows conversations."""
    fill_person(database)
    with database.write() as connection:
        for table, row in (
            (schema.labels, {"id": 1, "name": "l", "color": "#000000", "created_at": clock.now()}),
            (schema.conversation_labels, {"conversation_id": 1, "label_id": 1}),
            (schema.participants, {"conversation_id": 1, "user_id": 1, "since": clock.now()}),
            (
                schema.message_edits,
                {"conversation_id": 1, "stream": 0, "edit_seq": 1, "seq": 1},
            ),
            (
                schema.webhook_events,
                {
                    "event_id": "e",
                    "event": "message.created",
                    "inbox_id": 1,
                    "conversation_id": 1,
                    "created_at": clock.now(),
                },
            ),
        ):
            connection.execute(insert(table).values(**row))
        # a third visitor, so that the highest id is not one of those that go
        connection.execute(update(_v).where(_v.c.id == 2).values(merged_into_id=None))
    return database


def of_conversation(database: Database, conversation_id: int) -> dict[str, int]:
    """Rows of each table that knows conversations."""
    with database.read() as connection:
        return {
            table.name: connection.execute(
                select(func.count())
                .select_from(table)
                .where(table.c.conversation_id == conversation_id)
            ).scalar_one()
            for table in schema.metadata.sorted_tables
            if "conversation_id" in table.c
        }


async def test_without_a_number_nothing_goes(full: Database) -> None:
    resolve(full, 1, 5000)
    before = of_conversation(full, 1)
    await run(full)
    assert of_conversation(full, 1) == before
    assert ids(full, _c) == [1, 2, 3]


async def test_an_old_conversation_goes_with_all_that_hangs_on_it(full: Database) -> None:
    resolve(full, 1, 31)
    resolve(full, 2, 29)
    missing = {name for name, count in of_conversation(full, 1).items() if not count}
    assert missing == set(), "the test does not fill these"
    kept = of_conversation(full, 2)
    set_rules(full, default_days=30)
    assert await run(full) > 0
    assert ids(full, _c) == [2, 3]
    assert set(of_conversation(full, 1).values()) == {0}
    assert of_conversation(full, 2) == kept
    assert ids(full, schema.attachments) == [2]
    with full.read() as connection:
        assert connection.execute(
            select(schema.attachment_bytes.c.attachment_id)
        ).scalars().all() == [2]
        entry = connection.execute(
            select(schema.audit_log).where(schema.audit_log.c.action == "retention.run")
        ).one()
    assert entry.actor_type == "system"
    assert json.loads(entry.details)["conversations"] == 1
    # the visitor had nothing else
    assert ids(full, _v) == [2, 3]


async def test_an_inbox_may_have_a_number_of_its_own(full: Database) -> None:
    resolve(full, 1, 31)
    set_rules(full, default_days=10)
    with full.write() as connection:
        connection.execute(update(schema.inboxes).values(retention_days=60))
    await run(full)
    assert ids(full, _c) == [1, 2, 3]
    with full.write() as connection:
        connection.execute(update(schema.inboxes).values(retention_days=30))
    await run(full)
    assert ids(full, _c) == [2, 3]


@pytest.mark.parametrize("status", ["open", "snoozed"])
async def test_what_is_not_resolved_stays_however_old(full: Database, status: str) -> None:
    resolve(full, 1, 1000)
    with full.write() as connection:
        connection.execute(update(_c).where(_c.c.id == 1).values(status=status))
    set_rules(full, default_days=1)
    await run(full)
    assert ids(full, _c) == [1, 2, 3]


async def test_one_that_is_reopened_meanwhile_stays(full: Database) -> None:
    old = resolve(full, 1, 31)
    with full.write() as connection:
        connection.execute(update(_c).where(_c.c.id == 1).values(status="open"))
        removed, left = retention.remove_conversation(connection, old, 1000)
    assert (removed.total(), left) == (0, False)
    # the visitor was helped once more, and may want to read that
    resolve(full, 1, 0)
    with full.write() as connection:
        removed, left = retention.remove_conversation(connection, old, 1000)
    assert (removed.total(), left) == (0, False)
    assert ids(full, _c) == [1, 2, 3]


async def test_visitors_who_came_again_or_are_blocked_stay(full: Database) -> None:
    set_rules(full, default_days=30)
    for number in (1, 2):
        resolve(full, number, 31)
    with full.write() as connection:
        connection.execute(update(_v).where(_v.c.id == 1).values(last_seen_at=clock.now()))
        connection.execute(update(_v).where(_v.c.id == 2).values(blocked_at=clock.now()))
    await run(full)
    assert ids(full, _c) == [3]
    assert ids(full, _v) == [1, 2, 3]


def add_visitor(database: Database, days_ago: float, **values: Any) -> int:
    """One without a conversation, and another one behind it: the highest id stays on SQLite."""
    then = clock.now() - timedelta(days=days_ago)
    row = {"inbox_id": 1, "name": "Idle", "first_seen_at": then, "last_seen_at": then, **values}
    with database.write() as connection:
        key = connection.execute(insert(_v).values(**row)).inserted_primary_key
        now = clock.now()
        connection.execute(insert(_v).values(**{**row, "last_seen_at": now}))
    assert key is not None
    return int(key[0])


async def test_visitors_without_a_conversation_go_with_the_rules_as_they_are(
    full: Database,
) -> None:
    old, younger = add_visitor(full, 401), add_visitor(full, 399)
    blocked = add_visitor(full, 401, blocked_at=clock.now())
    resolve(full, 1, 1000)  # its conversation is kept, and so is the visitor
    with full.read() as connection:
        told = retention.preview(connection, retention.rules(connection))
    assert [(one["conversations"], one["messages"], one["visitors"]) for one in told["items"]] == [
        (0, 0, 1)
    ]
    await run(full)
    left = ids(full, _v)
    assert old not in left
    assert {1, younger, blocked} <= set(left)
    assert ids(full, _c) == [1, 2, 3]


async def test_sqlite_keeps_the_highest_id_of_visitors(full: Database) -> None:
    """It would give the number to the next visitor, and the old token would speak for that one."""
    highest = add_visitor(full, 401) + 1
    then = clock.now() - timedelta(days=401)
    with full.write() as connection:
        connection.execute(update(_v).where(_v.c.id == highest).values(last_seen_at=then))
    await run(full)
    assert (highest in ids(full, _v)) == (full.primary.dialect.name == "sqlite")


async def test_who_was_merged_goes_with_the_one_it_turned_out_to_be(full: Database) -> None:
    old, young = add_visitor(full, 401), add_visitor(full, 1)
    of_old = add_visitor(full, 500, merged_into_id=old)
    of_young = add_visitor(full, 500, merged_into_id=young)
    await run(full)
    left = ids(full, _v)
    assert not {old, of_old} & set(left)
    assert {young, of_young} <= set(left)


async def test_each_inbox_keeps_its_visitors_and_conversations_as_long_as_it_says(
    full: Database,
) -> None:
    with full.write() as connection:
        connection.execute(
            insert(schema.inboxes).values(
                id=2,
                key="other",
                name="Other",
                greeting="Hi",
                color="#000000",
                languages="en",
                retention_days=1000,
                created_at=clock.now(),
            )
        )
        connection.execute(update(_c).where(_c.c.id == 2).values(inbox_id=2))
    for number in (1, 2):
        resolve(full, number, 401)
    here, there = add_visitor(full, 401), add_visitor(full, 401, inbox_id=2)
    set_rules(full, default_days=30, idle_visitor_days=None)
    await run(full)
    assert ids(full, _c) == [2, 3]
    left = ids(full, _v)
    assert here not in left
    assert there in left


async def test_the_days_of_idle_visitors_can_be_set(full: Database) -> None:
    old, younger = add_visitor(full, 401), add_visitor(full, 31)
    set_rules(full, idle_visitor_days=None)
    await run(full)
    assert {old, younger} <= set(ids(full, _v))
    set_rules(full, idle_visitor_days=30)
    await run(full)
    assert not {old, younger} & set(ids(full, _v))


async def test_the_days_of_conversations_do_not_keep_idle_visitors(full: Database) -> None:
    idle = add_visitor(full, 41)
    set_rules(full, default_days=1000, idle_visitor_days=40)
    await run(full)
    assert idle not in ids(full, _v)


async def test_logs_have_numbers_of_their_own(full: Database) -> None:
    old = clock.now() - timedelta(days=40)
    with full.write() as connection:
        connection.execute(update(schema.webhook_deliveries).values(created_at=old))
        connection.execute(update(schema.audit_log).values(at=old))
        before = connection.execute(select(func.count()).select_from(schema.audit_log)).scalar_one()
    await run(full)
    assert ids(full, schema.webhook_deliveries) == []
    assert len(ids(full, schema.audit_log)) == before + 1  # the run itself
    set_rules(full, audit_days=30)
    await run(full)
    with full.read() as connection:
        actions = connection.execute(select(schema.audit_log.c.action)).scalars().all()
    assert set(actions) == {"retention.run", "retention.updated"}


async def test_a_dry_run_counts_what_then_goes(full: Database) -> None:
    resolve(full, 1, 31)
    resolve(full, 2, 31)
    with full.read() as connection:
        told = retention.preview(connection, retention.Rules(default_days=30))
    (inbox,) = told["items"]
    assert {name: inbox[name] for name in ("conversations", "messages", "attachments")} == {
        "conversations": 2,
        "messages": 10,
        "attachments": 2,
    }
    assert inbox["visitors"] == 2
    assert ids(full, _c) == [1, 2, 3]
    set_rules(full, default_days=30)
    await run(full)
    assert ids(full, _c) == [3]
    assert ids(full, _v) == [3]


async def test_a_run_that_lost_its_lock_removes_nothing(full: Database) -> None:
    resolve(full, 1, 31)
    set_rules(full, default_days=30)
    fake = FakeRun(full)
    fake.lost = True
    with pytest.raises(LostLock):
        await job.remove_old(fake)  # type: ignore[arg-type]
    assert ids(full, _c) == [1, 2, 3]


def add_old(connection: Connection, count: int) -> None:
    then = clock.now() - timedelta(days=100)
    row = {
        "inbox_id": 1,
        "visitor_id": 3,
        "status": "resolved",
        "last_seq_public": 0,
        "last_seq_staff": 0,
        "version": 0,
        "created_at": then,
        "updated_at": then,
        "resolved_at": then,
    }
    connection.execute(insert(_c), [row] * count)


async def test_many_go_page_by_page(full: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "LOOKED_AT", 7)
    with full.write() as connection:
        add_old(connection, 50)
    set_rules(full, default_days=30)
    await run(full)
    assert ids(full, _c) == [1, 2, 3]


async def test_a_long_conversation_goes_in_small_transactions(
    full: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(full, 1, 31)
    with full.write() as connection:
        connection.execute(
            insert(schema.messages),
            [
                {
                    "conversation_id": 1,
                    "stream": 0,
                    "seq": seq,
                    "client_id": str(seq),
                    "sender_type": "visitor",
                    "sender_id": 1,
                    "kind": "text",
                    "body": "x",
                    "created_at": clock.now(),
                }
                for seq in range(10, 2500)
            ],
        )
    set_rules(full, default_days=30)
    sizes: list[int] = []
    remove: Callable[..., Any] = retention.remove_conversation

    def counted(*args: Any) -> Any:
        removed, left = remove(*args)
        sizes.append(removed.total() - removed["conversations"])
        return removed, left

    monkeypatch.setattr(retention, "remove_conversation", counted)
    await run(full)
    assert ids(full, _c) == [2, 3]
    assert set(of_conversation(full, 1).values()) == {0}
    assert sum(sizes) > 2490
    assert max(sizes) <= 1000


async def test_files_go_a_few_at_a_time(full: Database) -> None:
    """Each may have some megabytes."""
    old = resolve(full, 1, 31)
    row = {
        "conversation_id": 1,
        "uploader_type": "visitor",
        "uploader_id": 1,
        "name": "a.txt",
        "content_type": "text/plain",
        "size_bytes": 1,
        "sha256": "0" * 64,
        "scan": "none",
        "created_at": clock.now(),
    }
    with full.write() as connection:
        rows = [{**row, "token": f"token{number}"} for number in range(50)]
        connection.execute(insert(schema.attachments), rows)
    went: list[int] = []
    left = True
    while left:
        with full.write() as connection:
            removed, left = retention.remove_conversation(connection, old, 1000)
        went.append(removed["attachments"])
    assert sum(went) == 51
    assert max(went) <= 20


async def test_one_that_is_reopened_between_two_transactions_is_left(full: Database) -> None:
    old = resolve(full, 1, 31)
    with full.write() as connection:
        assert retention.remove_conversation(connection, old, 2)[1] is True
    with full.write() as connection:
        connection.execute(update(_c).where(_c.c.id == 1).values(status="open"))
    rest = of_conversation(full, 1)
    with full.write() as connection:
        assert retention.remove_conversation(connection, old, 1000)[1] is False
    assert of_conversation(full, 1) == rest


async def test_one_that_cannot_be_removed_does_not_keep_the_rest(
    full: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        resolve(full, number, 40 - number)
    set_rules(full, default_days=30, webhook_delivery_days=1)
    with full.write() as connection:
        before = clock.now() - timedelta(days=2)
        connection.execute(update(schema.webhook_deliveries).values(created_at=before))
    remove: Callable[..., Any] = retention.remove_conversation

    def failing(connection: Connection, old: Old, limit: int) -> Any:
        if old.id == 1:
            raise OperationalError("DELETE", None, TimeoutError("timed out"))
        return remove(connection, old, limit)

    monkeypatch.setattr(retention, "remove_conversation", failing)
    with pytest.raises((OperationalError, Unavailable)):
        await run(full)
    assert ids(full, _c) == [1, 3]
    assert ids(full, schema.webhook_deliveries) == []


async def test_a_database_that_always_fails_is_not_asked_for_ever(
    full: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full.write() as connection:
        add_old(connection, 50)
    set_rules(full, default_days=30)
    asked: list[int] = []

    def failing(_connection: Connection, old: Old, _limit: int) -> Any:
        asked.append(old.id)
        raise OperationalError("DELETE", None, TimeoutError("timed out"))

    monkeypatch.setattr(retention, "remove_conversation", failing)
    with pytest.raises((OperationalError, Unavailable)):
        await run(full)
    assert len(set(asked)) == job.FAILURES_MAX


def test_the_numbers_are_stored(database: Database) -> None:
    set_rules(database, default_days=7)
    set_rules(database, audit_days=90)
    with database.read() as connection:
        assert retention.rules(connection) == retention.Rules(7, 30, 90, 400)
        assert installation.read(connection, retention.SETTING)["default_days"] == 7
