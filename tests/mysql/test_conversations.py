"""Conversations on MySQL: acts that meet, and lists that stay cheap when there are many."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select, text, update

from app import clock, config
from app.chat import assignment, conversations
from app.chat import conversation_state as state
from app.chat.conversation_state import Caller
from app.chat.conversations import Filters
from app.chat.errors import AlreadyClaimed, Refused
from app.chat.permissions import Actor, Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database
from app.db.writer import NewMessage, Writer
from tests.mysql.conftest import environment
from tools.private_mysql import Servers

_c, _m, _u = schema.conversations, schema.messages, schema.users
MANY = 20_000


@pytest.fixture
def database(mysql: Servers) -> Iterator[Database]:
    opened = Database(config.load("web", environment(mysql, "redis://127.0.0.1:1/0")))
    yield opened
    opened.close()


def an_inbox(database: Database, agents: int) -> tuple[int, int, list[Agent]]:
    """A new inbox with automatic assignment, one visitor and some agents who see only it."""
    now, mark = clock.now(), uuid.uuid4().hex[:12]
    with database.write() as opened:

        def add(table: Any, **values: Any) -> int:
            key = opened.execute(insert(table).values(**values)).inserted_primary_key
            assert key is not None
            return int(key[0])

        inbox_id = add(
            schema.inboxes,
            key=mark,
            name=mark,
            greeting="",
            color="#000000",
            languages="en",
            created_at=now,
            auto_assign=True,
        )
        visitor_id = add(
            schema.visitors, inbox_id=inbox_id, name="V", first_seen_at=now, last_seen_at=now
        )
        staff = []
        for number in range(agents):
            user_id = add(
                _u,
                email=f"{number}@{mark}.example",
                name=f"Agent {number}",
                role="agent",
                password_hash="x",
                active=True,
                created_at=now,
                all_inboxes=False,
                capacity=1000,
            )
            opened.execute(insert(schema.inbox_members).values(inbox_id=inbox_id, user_id=user_id))
            staff.append(
                Agent(user_id, f"Agent {number}", "", "agent", None, frozenset({inbox_id}))
            )
    return inbox_id, visitor_id, staff


def add_conversations(database: Database, inbox_id: int, visitor_id: int, count: int) -> list[int]:
    """Waiting conversations, the longest waiting first; gives their ids."""
    now = clock.now()
    with database.write() as opened:
        opened.execute(
            insert(_c),
            [
                {
                    "inbox_id": inbox_id,
                    "visitor_id": visitor_id,
                    "status": "open",
                    "last_seq_public": 0,
                    "last_seq_staff": 0,
                    "version": 0,
                    "created_at": now,
                    "updated_at": now - timedelta(seconds=number),
                    "waiting_since": now - timedelta(seconds=count - number),
                }
                for number in range(count)
            ],
        )
        ids = select(_c.c.id).where(_c.c.inbox_id == inbox_id).order_by(_c.c.waiting_since)
        return list(opened.execute(ids).scalars())


@pytest.mark.timeout(120)
async def test_acts_messages_and_assignment_at_once(database: Database) -> None:
    """Nothing deadlocks for good, no seq is missing, and the timeline explains every version."""
    inbox_id, visitor_id, staff = an_inbox(database, 5)
    ids = add_conversations(database, inbox_id, visitor_id, 4)
    chance = random.Random(5)
    who = VisitorIdentity(visitor_id, inbox_id)
    writer = Writer(database.primary)

    def act() -> Callable[[], Any]:
        agent = chance.choice(staff)
        caller, one = Caller(agent, Actor("agent", agent.id, agent.name)), chance.choice(ids)
        other = chance.choice(staff).id
        later = clock.now() + timedelta(hours=1, seconds=chance.randrange(999))
        acts: list[Callable[[], Any]] = [
            lambda: state.claim(database, caller, one),
            lambda: state.release(database, caller, one),
            lambda: state.assign(database, caller, one, user_id=other),
            lambda: state.transfer(
                database, caller, one, user_id=other, team_id=None, note="please"
            ),
            lambda: state.snooze(database, caller, one, until=later),
            lambda: state.resolve(database, caller, one),
            lambda: state.reopen(database, caller, one),
            lambda: state.set_priority(
                database, caller, one, priority=chance.choice(conversations.PRIORITIES)
            ),
            lambda: state.end(database, who, one),
            lambda: [
                assignment.take_turn(database, turn, lambda _connection: None)
                for turn in assignment.plan(database, {agent.id for agent in staff})
            ],
        ]
        return chance.choice(acts)

    async def carry_out(work: Callable[[], Any]) -> None:
        try:
            await database.run(work)
        except (AlreadyClaimed, Refused):
            return

    async def write(number: int) -> None:
        agent = staff[number % 5] if number % 2 else None
        await writer.store(
            NewMessage(
                conversation_id=ids[number % 4],
                visitor_id=None if agent else visitor_id,
                client_id=str(uuid.uuid4()),
                stream=schema.STAFF if number % 3 == 0 and agent else schema.PUBLIC,
                sender_type="agent" if agent else "visitor",
                sender_id=agent.id if agent else visitor_id,
                kind="text",
                body="x",
            )
        )

    await asyncio.gather(
        *(carry_out(act()) for _ in range(300)), *(write(number) for number in range(300))
    )
    await writer.close()
    with database.read() as opened:
        for row in opened.execute(select(_c).where(_c.c.id.in_(ids))):
            for stream, last in ((0, row.last_seq_public), (1, row.last_seq_staff)):
                seqs = opened.execute(
                    select(_m.c.seq)
                    .where(_m.c.conversation_id == row.id, _m.c.stream == stream)
                    .order_by(_m.c.seq)
                ).scalars()
                assert list(seqs) == list(range(1, last + 1))
            assert (row.status == "resolved") == (row.resolved_at is not None)
            assert (row.status == "snoozed") == (row.snoozed_until is not None)


async def test_workers_and_agents_want_the_same_conversations(database: Database) -> None:
    inbox_id, visitor_id, staff = an_inbox(database, 4)
    ids = add_conversations(database, inbox_id, visitor_id, 20)
    turns = assignment.plan(database, {staff[0].id})
    turns = [turn for turn in turns if turn.conversation_id in ids]
    assert [turn.conversation_id for turn in turns] == ids

    def claim(number: int) -> int:
        agent = staff[1 + number % 3]
        caller = Caller(agent, Actor("agent", agent.id, agent.name))
        try:
            state.claim(database, caller, ids[number % 20])
        except AlreadyClaimed:
            return 0
        return 1

    def give(number: int) -> int:
        turn = turns[number % 20]
        return assignment.take_turn(database, turn, lambda _connection: None) is not None

    # as in the processes: run() repeats a transaction that lost a fight for a lock
    works = [(claim if n % 2 else give, n // 2) for n in range(80)]
    won = await asyncio.gather(*(database.run(work, number) for work, number in works))
    with database.read() as opened:
        events = opened.execute(
            select(_m.c.conversation_id, func.count())
            .where(_m.c.conversation_id.in_(ids), _m.c.kind == "event")
            .group_by(_m.c.conversation_id)
        ).all()
    assert sorted(map(tuple, events)) == [(one, 1) for one in sorted(ids)]
    assert sum(won) >= 20  # a repeated claim of the holder counts as won too


def test_lists_and_the_queue_read_little_of_much(database: Database) -> None:
    """MySQL touches fewer rows for a page than there are conversations: the indexes are used."""
    inbox_id, visitor_id, (agent, *_) = an_inbox(database, 1)
    ids = add_conversations(database, inbox_id, visitor_id, MANY)
    with database.write() as opened:
        opened.execute(text("ANALYZE TABLE conversations"))
        labels = [
            opened.execute(
                insert(schema.labels).values(
                    name=f"{inbox_id} {number}", color="#000000", created_at=clock.now()
                )
            ).lastrowid
            for number in range(60)
        ]
        links = [{"conversation_id": one, "label_id": labels[0]} for one in ids[: MANY // 2]]
        opened.execute(insert(schema.conversation_labels), links)
    everyone = Agent(agent.id, agent.name, "", "admin", None, None)
    touched: list[int] = []

    def count(connection: Any) -> None:
        rows = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
        touched.append(sum(int(value) for _, value in rows))

    def measured(work: Callable[[], Any]) -> int:
        """The rows read by ``work``, which is one transaction."""
        work()  # opening a table for the first time reads the dictionary too
        touched.clear()
        event.listen(database.primary, "begin", count)
        event.listen(database.primary, "commit", count)
        try:
            work()
        finally:
            event.remove(database.primary, "begin", count)
            event.remove(database.primary, "commit", count)
        before, after = touched
        return after - before

    def page(filters: Filters, sort: conversations.Sort) -> Callable[[], Any]:
        return lambda: conversations.staff_list(
            database, everyone, filters, sort=sort, cursor=None, limit=200
        )

    for filters, sort in (
        (Filters(), "updated"),
        (Filters(inbox_id=inbox_id), "updated"),
        (Filters(view="unassigned"), "updated"),
        (Filters(view="mine"), "updated"),
        (Filters(status="open"), "updated"),
        (Filters(status="open"), "waiting"),
        (Filters(view="unassigned", status="open", inbox_id=inbox_id), "waiting"),
        (Filters(team_id=1), "updated"),
    ):
        # 14 tables are asked for each of 200, and small ones may be read whole: nothing that grows
        rows_read = measured(page(filters, sort))
        assert rows_read < 200 * 20, (filters, sort, rows_read)
    assert measured(lambda: conversations.of_visitor(database, ids[50], visitor_id)) < 500
    with database.read() as opened:
        seen = conversations.visitor_now(opened, ids[50], visitor_id)
        far = conversations.visitor_now(opened, ids[5000], visitor_id)
    assert (seen["queue_position"], far["queue_position"]) == (51, 101)


def test_who_was_disabled_keeps_no_open_conversation(database: Database) -> None:
    inbox_id, visitor_id, (agent, *_) = an_inbox(database, 1)
    (one,) = add_conversations(database, inbox_id, visitor_id, 1)
    state.claim(database, Caller(agent, Actor("agent", agent.id, agent.name)), one)
    assert one not in state.orphans(database, 1000)
    with database.write() as opened:
        opened.execute(update(_u).where(_u.c.id == agent.id).values(active=False))
    assert one in state.orphans(database, 1000)
    with database.write() as opened:
        freed = state.set_free(opened, one)
        assert state.set_free(opened, one) is None
    assert freed is not None
    assert freed.seq == 2
    assert one not in state.orphans(database, 1000)
