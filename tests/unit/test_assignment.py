"""Automatic assignment and presence, over a real Redis where one is installed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import delete, insert, select, update

from app import clock, embedded
from app.bus import connection, presence
from app.bus.locks import FencedLock
from app.bus.presence import Presence
from app.chat import assignment, conversation_state
from app.chat.assignment import Candidate, Turn, Waiting, share_out
from app.chat.conversation_state import Caller
from app.chat.errors import AlreadyClaimed
from app.chat.permissions import Actor, Agent
from app.db import schema
from app.db.engines import Database
from app.db.writer import Stored
from app.worker import conversations as work
from app.worker import jobs
from app.worker.jobs import Job, LostLock, Run, Runner, Tools

_c, _u, _m = schema.conversations, schema.users, schema.messages


class Heard:
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.changed: list[int] = []

    def messages_stored(self, stored: Sequence[Stored]) -> None:
        self.stored.extend(stored)

    def conversation_changed(self, conversation_id: int) -> None:
        self.changed.append(conversation_id)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded.private_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connection.connect(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def busy(database: Database) -> Database:
    """An inbox with automatic assignment, three waiting visitors, and three agents: 1, 2, 3."""
    now = clock.now()
    with database.write() as opened:
        opened.execute(update(schema.inboxes).values(auto_assign=True))
        for number in (2, 3):
            opened.execute(
                insert(_u).values(
                    id=number,
                    email=f"{number}@example.com",
                    name=f"Agent {number}",
                    role="agent",
                    password_hash="x",
                    active=True,
                    created_at=now,
                )
            )
        for number in (1, 2, 3):
            waiting_since = now - timedelta(minutes=number)
            opened.execute(update(_c).where(_c.c.id == number).values(waiting_since=waiting_since))
    return database


async def a_run(
    database: Database, redis: Redis, heard: Heard, *, job: str = "auto-assign", seconds: float = 10
) -> Run:
    floor = await database.run(jobs.read_fence, database, job)
    lock = FencedLock(redis, job, seconds=seconds)
    held = await lock.take(floor)
    assert held is not None
    return Run(Tools(database, redis, "app1", heard), lock, held)


async def are_present(redis: Redis, *user_ids: int) -> None:
    noted = Presence(redis)
    for user_id in user_ids:
        noted.note(user_id)
    for _ in range(500):
        if set(user_ids) <= await presence.present(redis):
            break
        await asyncio.sleep(0.01)
    await noted.close()


def assignees(database: Database) -> dict[int, int | None]:
    with database.read() as opened:
        return dict(opened.execute(select(_c.c.id, _c.c.assignee_id).order_by(_c.c.id)).all())


def change_user(database: Database, user_id: int, **values: Any) -> None:
    with database.write() as opened:
        opened.execute(update(_u).where(_u.c.id == user_id).values(**values))


# --- the decision -----------------------------------------------------------------------------


def candidate(number: int, *, room: int = 9, last: int = 0, **more: Any) -> Candidate:
    turn = datetime(2026, 1, 1) + timedelta(minutes=last)
    return Candidate(number, f"Agent {number}", room, turn, more.pop("inbox_ids", None), **more)


def shared(waiting: list[Waiting], candidates: list[Candidate]) -> list[tuple[int, int]]:
    return [(turn.conversation_id, turn.user_id) for turn in share_out(waiting, candidates)]


def test_everybody_has_a_turn_and_the_longest_without_one_is_first() -> None:
    waiting = [Waiting(n, 1) for n in (11, 12, 13, 14)]
    candidates = [candidate(1, last=3), candidate(2, last=1), candidate(3, last=2)]
    assert shared(waiting, candidates) == [(11, 2), (12, 3), (13, 1), (14, 2)]


def test_nobody_gets_more_than_the_room_for_it() -> None:
    waiting = [Waiting(n, 1) for n in range(1, 6)]
    candidates = [candidate(1, room=1), candidate(2, room=2)]
    assert shared(waiting, candidates) == [(1, 1), (2, 2), (3, 2)]


def test_only_who_sees_the_inbox_and_is_in_the_team() -> None:
    waiting = [
        Waiting(1, 7),
        Waiting(2, 8),
        Waiting(3, 8, 5, team_exists=True),
        Waiting(4, 8, 6, team_exists=False),
    ]
    candidates = [
        candidate(1, inbox_ids=frozenset({7})),
        candidate(2, last=1, team_ids=frozenset({5})),
    ]
    assert shared(waiting, candidates) == [(1, 1), (2, 2), (3, 2), (4, 2)]
    assert shared(waiting, candidates[:1]) == [(1, 1)]


# --- carried out ------------------------------------------------------------------------------


async def test_waiting_conversations_go_to_those_who_are_present(
    busy: Database, redis: Redis
) -> None:
    await are_present(redis, 1, 2)
    heard = Heard()
    assert await work.assign_waiting(await a_run(busy, redis, heard)) == 3
    # 3 waits longest; 1 and 2 take turns, 3 is not there
    assert assignees(busy) == {3: 1, 2: 2, 1: 1}
    assert sorted(heard.changed) == [1, 2, 3]
    assert [(event.kind, event.seq) for event in heard.stored] == [("event", 1)] * 3
    with busy.read() as opened:
        events = opened.execute(select(_m).where(_m.c.kind == "event")).all()
        took_part = opened.execute(
            select(schema.participants.c.conversation_id, schema.participants.c.user_id)
        ).all()
        turns = opened.execute(select(_u.c.id).where(_u.c.last_assigned_at.is_not(None))).scalars()
        assert sorted(turns) == [1, 2]
    assert len(events) == 3
    assert all('"type":"assigned"' in row.event and '"system"' in row.event for row in events)
    assert sorted(map(tuple, took_part)) == [(1, 1), (2, 2), (3, 1)]


async def test_the_next_round_goes_on_where_the_last_one_ended(
    busy: Database, redis: Redis
) -> None:
    await are_present(redis, 1, 2, 3)
    with busy.write() as opened:
        opened.execute(update(_c).where(_c.c.id != 3).values(waiting_since=None))
    run = await a_run(busy, redis, Heard())
    assert await work.assign_waiting(run) == 1
    assert assignees(busy)[3] == 1
    with busy.write() as opened:
        opened.execute(update(_c).where(_c.c.id == 2).values(waiting_since=clock.now()))
    assert await work.assign_waiting(run) == 1
    assert assignees(busy)[2] == 2


@pytest.mark.parametrize(
    "values",
    [{"availability": "away"}, {"active": False}, {"capacity": 0}, {"all_inboxes": False}],
)
async def test_who_cannot_take_it_gets_nothing(
    busy: Database, redis: Redis, values: dict[str, Any]
) -> None:
    await are_present(redis, 1)
    change_user(busy, 1, **values)
    assert await work.assign_waiting(await a_run(busy, redis, Heard())) == 0
    assert set(assignees(busy).values()) == {None}


async def test_open_conversations_use_up_the_capacity(busy: Database, redis: Redis) -> None:
    await are_present(redis, 1)
    change_user(busy, 1, capacity=2)
    run = await a_run(busy, redis, Heard())
    assert await work.assign_waiting(run) == 2
    assert await work.assign_waiting(run) == 0
    with busy.write() as opened:
        opened.execute(update(_c).where(_c.c.id == 3).values(status="resolved"))
    assert await work.assign_waiting(run) == 1


@pytest.mark.parametrize(
    "values", [{"status": "snoozed"}, {"status": "resolved"}, {"waiting_since": None}]
)
async def test_only_open_conversations_that_wait(
    busy: Database, redis: Redis, values: dict[str, Any]
) -> None:
    await are_present(redis, 1)
    with busy.write() as opened:
        opened.execute(update(_c).values(**values))
    assert await work.assign_waiting(await a_run(busy, redis, Heard())) == 0


async def test_only_inboxes_that_ask_for_it(busy: Database, redis: Redis) -> None:
    await are_present(redis, 1)
    with busy.write() as opened:
        opened.execute(update(schema.inboxes).values(auto_assign=False))
    assert await work.assign_waiting(await a_run(busy, redis, Heard())) == 0


async def test_a_teams_conversation_goes_to_a_member_until_the_team_is_deleted(
    busy: Database, redis: Redis
) -> None:
    with busy.write() as opened:
        opened.execute(insert(schema.teams).values(id=5, name="Billing", created_at=clock.now()))
        opened.execute(update(_c).where(_c.c.id == 3).values(team_id=5))
        opened.execute(update(_c).where(_c.c.id != 3).values(waiting_since=None))
    await are_present(redis, 1, 2)
    run = await a_run(busy, redis, Heard())
    assert await work.assign_waiting(run) == 0
    with busy.write() as opened:
        opened.execute(insert(schema.team_members).values(team_id=5, user_id=2))
    assert await work.assign_waiting(run) == 1
    assert assignees(busy)[3] == 2
    with busy.write() as opened:
        opened.execute(update(_c).where(_c.c.id == 3).values(assignee_id=None))
        opened.execute(delete(schema.team_members))
        opened.execute(delete(schema.teams))
    assert await work.assign_waiting(run) == 1


def test_a_claim_at_the_same_moment_wins_or_loses_cleanly(busy: Database) -> None:
    ann = Agent(1, "Ann", "ann@example.com", "agent", None)
    caller = Caller(ann, Actor("agent", 1, "Ann"))
    first, second, _ = assignment.plan(busy, {2})
    conversation_state.claim(busy, caller, first.conversation_id)
    assert assignment.take_turn(busy, first, lambda _connection: None) is None
    assert assignment.take_turn(busy, second, lambda _connection: None) is not None
    with pytest.raises(AlreadyClaimed) as lost:
        conversation_state.claim(busy, caller, second.conversation_id)
    assert lost.value.holder["name"] == "Agent 2"
    with busy.read() as opened:
        assert opened.execute(select(_m.c.seq).where(_m.c.kind == "event")).all() == [(1,), (1,)]


def test_an_agent_who_went_away_meanwhile_gets_nothing(busy: Database) -> None:
    first, *_ = assignment.plan(busy, {2})
    change_user(busy, 2, availability="away")
    assert assignment.take_turn(busy, first, lambda _connection: None) is None
    assert set(assignees(busy).values()) == {None}
    with busy.read() as opened:
        assert opened.execute(select(_m)).all() == []


def test_a_conversation_that_was_passed_on_meanwhile_is_left_alone(busy: Database) -> None:
    first, *_ = assignment.plan(busy, {2})
    with busy.write() as opened:
        opened.execute(update(_c).values(team_id=5))
    assert assignment.take_turn(busy, first, lambda _connection: None) is None


async def test_a_worker_that_was_paused_beyond_its_lock_assigns_nothing(
    busy: Database, redis: Redis
) -> None:
    paused = await a_run(busy, redis, Heard(), seconds=0.2)
    old: list[Turn] = await busy.run(assignment.plan, busy, {1})
    await asyncio.sleep(0.4)

    await are_present(redis, 2)
    heard = Heard()
    other = await a_run(busy, redis, heard)
    assert other.held.token > paused.held.token
    assert await work.assign_waiting(other) == 3
    # the conversations are free again, so that only the fence keeps the paused worker out
    with busy.write() as opened:
        opened.execute(update(_c).values(assignee_id=None))
    for turn in old:
        with pytest.raises(LostLock):
            await busy.run(assignment.take_turn, busy, turn, paused.check_fence)
    with pytest.raises(LostLock):
        await work.assign_waiting(paused)
    assert set(assignees(busy).values()) == {None}


async def test_without_redis_nothing_is_assigned_and_the_metric_says_so(busy: Database) -> None:
    dead = connection.connect("redis://127.0.0.1:1/0")
    job = Job("auto-assign", 0.01, work.assign_waiting)
    runner = Runner(Tools(busy, dead, "app1", Heard()), (job,))
    await asyncio.sleep(0.3)
    assert runner.statistics["auto-assign"].paused
    await runner.close()
    await dead.aclose()
    assert set(assignees(busy).values()) == {None}


# --- presence ---------------------------------------------------------------------------------


async def test_presence_ends_by_itself(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    await are_present(redis, 1, 2)
    assert await presence.present(redis) == {1, 2}
    later = datetime.now(UTC) + timedelta(seconds=presence.LIFETIME_SECONDS + 1)
    monkeypatch.setattr(clock, "now_source", lambda: later)
    assert await presence.present(redis) == set()
    await are_present(redis, 3)
    # who is gone does not stay in Redis either
    assert await redis.zcard("deskline:presence") == 1


async def test_presence_is_noted_without_waiting_for_redis() -> None:
    dead = connection.connect("redis://127.0.0.1:1/0")
    noted = Presence(dead)
    started = time.monotonic()
    for number in range(1000):
        noted.note(number)
        noted.note(number)
    assert time.monotonic() - started < 0.1
    for _ in range(500):
        if noted.failures:
            break
        await asyncio.sleep(0.01)
    assert noted.failures == 1
    await noted.close()
    with pytest.raises((RedisError, OSError, TimeoutError)):
        await presence.present(dead)
    await dead.aclose()


# --- those who left ----------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{"active": False}, {"all_inboxes": False}])
async def test_who_cannot_answer_any_more_keeps_no_open_conversation(
    busy: Database, redis: Redis, values: dict[str, Any]
) -> None:
    with busy.write() as opened:
        opened.execute(update(_c).values(assignee_id=2))
        opened.execute(update(_c).where(_c.c.id == 1).values(assignee_id=1))
        opened.execute(update(_c).where(_c.c.id == 3).values(status="resolved"))
    heard = Heard()
    run = await a_run(busy, redis, heard, job="orphans")
    assert await work.free_orphans(run) == 0
    change_user(busy, 2, **values)
    assert await work.free_orphans(run) == 1
    assert await work.free_orphans(run) == 0
    # what is resolved keeps the name of who resolved it
    assert assignees(busy) == {1: 1, 2: None, 3: 2}
    assert heard.changed == [2]
    with busy.write() as opened:
        opened.execute(insert(schema.inbox_members).values(inbox_id=1, user_id=2))
        opened.execute(update(_c).where(_c.c.id == 2).values(assignee_id=2))
    assert await work.free_orphans(run) == (0 if values.get("active", True) else 1)


# --- waking -----------------------------------------------------------------------------------


async def test_a_snoozed_conversation_wakes_when_its_time_has_come(
    busy: Database, redis: Redis
) -> None:
    now = clock.now()
    with busy.write() as opened:
        for number, minutes in ((1, -5), (2, 5), (3, -1)):
            until = now + timedelta(minutes=minutes)
            opened.execute(
                update(_c)
                .where(_c.c.id == number)
                .values(status="snoozed" if number < 3 else "resolved", snoozed_until=until)
            )
    heard = Heard()
    run = await a_run(busy, redis, heard, job="snooze-wake")
    assert await work.wake_snoozed(run) == 1
    assert await work.wake_snoozed(run) == 0
    assert heard.changed == [1]
    with busy.read() as opened:
        states = opened.execute(select(_c.c.status, _c.c.snoozed_until).order_by(_c.c.id)).all()
    assert states[0] == ("open", None)
    assert [row.status for row in states] == ["open", "snoozed", "resolved"]
    with busy.write() as opened:
        opened.execute(update(schema.job_fences).values(token=10**6))
        opened.execute(update(_c).where(_c.c.id == 2).values(snoozed_until=now))
    with pytest.raises(LostLock):
        await work.wake_snoozed(run)
