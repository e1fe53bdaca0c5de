"""Publishing, the outbox, limits and fenced locks, over the fakeredis server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import insert, select, text

from app import clock, embedded
from app.bus import connection, events
from app.bus import publisher as publishing
from app.bus.events import Event
from app.bus.limits import AttemptLimit
from app.bus.locks import FencedLock
from app.bus.publisher import Publisher
from app.bus.subscriber import Subscriber
from app.db import outbox, schema
from app.db.engines import Database
from app.db.writer import Stored
from app.worker import jobs
from app.worker.jobs import Job, LostLock, Run, Runner, Tools


class Silent:
    """Announces nothing."""

    def messages_stored(self, stored: Sequence[Stored]) -> None:
        return

    def conversation_changed(self, conversation_id: int) -> None:
        return


DEAD_REDIS = "redis://127.0.0.1:1/0"


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
async def dead_redis() -> AsyncIterator[Redis]:
    client = connection.connect(DEAD_REDIS)
    yield client
    await client.aclose()


def an_event(number: int = 1) -> Event:
    return events.make("private-conversation.7", "message.created", {"seq": number, "body": "é\n"})


def test_the_form_of_an_event() -> None:
    event = an_event()
    assert event.message == (
        '{"event":"message.created","channel":"private-conversation.7",'
        '"data":"{\\"seq\\":1,\\"body\\":\\"é\\\\n\\"}"}'
    )
    assert events.redis_payload(event) == b"\n" + event.message.encode()
    assert events.redis_payload(event, "1.2").startswith(b"1.2\n{")
    assert events.redis_channel("a", "c") == "deskline:ch:a:c"


async def test_events_are_published_in_their_order(redis: Redis) -> None:
    kept: list[Event] = []

    async def keep(batch: Sequence[Event]) -> None:
        kept.extend(batch)

    listener = redis.pubsub()
    await listener.subscribe("deskline:ch:app1:private-conversation.7")
    await listener.get_message(timeout=2)
    publisher = Publisher(redis, "app1", keep)
    publisher.publish(*(an_event(n) for n in range(1200)))
    await publisher.close()
    assert publisher.statistics.published == 1200
    assert kept == []
    heard = []
    while len(heard) < 1200:
        message = await listener.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message is not None
        heard.append(message["data"])
    assert heard == [events.redis_payload(an_event(n)) for n in range(1200)]
    await listener.aclose()


async def test_without_redis_events_go_to_the_outbox_and_nobody_waits(dead_redis: Redis) -> None:
    kept: list[Event] = []
    first_kept = asyncio.Event()

    async def keep(batch: Sequence[Event]) -> None:
        kept.extend(batch)
        first_kept.set()

    publisher = Publisher(dead_redis, "app1", keep)
    publisher.publish(an_event(0))
    async with asyncio.timeout(5):
        await first_kept.wait()
    started = time.monotonic()
    for n in range(1, 100):
        publisher.publish(an_event(n))
    assert time.monotonic() - started < 0.1
    await publisher.close()
    assert kept == [an_event(n) for n in range(100)]
    assert publisher.redis_answers is False
    # it was not asked again for each event
    assert publisher.statistics.failures == 1


async def test_what_waits_at_the_end_goes_to_the_outbox_in_its_order(dead_redis: Redis) -> None:
    kept: list[Event] = []
    asked = asyncio.Event()

    async def keep(batch: Sequence[Event]) -> None:
        if not asked.is_set():
            asked.set()
            await asyncio.sleep(60)
        kept.extend(batch)

    publisher = Publisher(dead_redis, "app1", keep)
    publisher.publish(*(an_event(n) for n in range(1200)))
    await asked.wait()
    await publisher.close(timeout_seconds=0.1)
    assert kept == [an_event(n) for n in range(1200)]
    assert publisher.statistics.lost == 0


async def test_the_queue_is_bounded_and_the_oldest_give_way(
    dead_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "QUEUE_EVENTS", 10)
    kept: list[Event] = []

    async def keep(batch: Sequence[Event]) -> None:
        kept.extend(batch)

    publisher = Publisher(dead_redis, "app1", keep)
    publisher.publish(*(an_event(n) for n in range(25)))
    assert (publisher.queued, publisher.statistics.lost) == (10, 15)
    await publisher.close()
    assert kept == [an_event(n) for n in range(15, 25)]


async def test_with_redis_and_the_database_away_events_are_counted_as_lost(
    dead_redis: Redis,
) -> None:
    async def keep(_batch: Sequence[Event]) -> None:
        raise OSError

    publisher = Publisher(dead_redis, "app1", keep)
    publisher.publish(an_event(), an_event())
    await publisher.close()
    assert publisher.statistics.lost == 2


@pytest.mark.parametrize("alive", [True, False])
async def test_attempts_are_limited_with_and_without_redis(
    redis: Redis, dead_redis: Redis, alive: bool
) -> None:
    client = redis if alive else dead_redis
    limit = AttemptLimit(client, "login", attempts=3, window_seconds=60)
    assert [await limit.take("a") for _ in range(3)] == [0, 0, 0]
    assert 0 < await limit.take("a") <= 60
    assert await limit.take("b") == 0
    await limit.give_back("a")
    assert await limit.take("a") == 0
    assert await limit.take("a") > 0
    await limit.forget("a")
    assert await limit.take("a") == 0


@pytest.mark.parametrize("alive", [True, False])
async def test_many_attempts_at_once_find_no_more_places(
    redis: Redis, dead_redis: Redis, alive: bool
) -> None:
    client = redis if alive else dead_redis
    limit = AttemptLimit(client, "login", attempts=10, window_seconds=60)
    waits = await asyncio.gather(*(limit.take("a") for _ in range(50)))
    assert waits.count(0) == 10


async def test_nothing_is_given_back_twice(redis: Redis) -> None:
    limit = AttemptLimit(redis, "login", attempts=1, window_seconds=60)
    for _ in range(3):
        await limit.give_back("a")
    assert await limit.take("a") == 0
    assert await limit.take("a") > 0


async def test_limits_are_shared_by_the_nodes(redis: Redis) -> None:
    one, two = (AttemptLimit(redis, "login", attempts=2, window_seconds=60) for _ in range(2))
    assert await one.take("a") == 0
    assert await two.take("a") == 0
    assert await one.take("a") > 0
    assert not [key for key in await redis.keys() if b"a@" in key]


async def test_one_holds_the_lock_and_tokens_only_grow(redis: Redis) -> None:
    lock = FencedLock(redis, "job", seconds=10)
    first = await lock.take(floor=0)
    assert first is not None
    assert await lock.take(floor=0) is None
    assert await lock.extend(first)
    await lock.release(first)
    second = await lock.take(floor=0)
    assert second is not None
    assert second.token > first.token
    # who lost the lock cannot give away or prolong that of another
    await lock.release(first)
    assert not await lock.extend(first)
    assert await lock.extend(second)


async def test_a_lock_that_was_given_back_may_rest(redis: Redis) -> None:
    lock = FencedLock(redis, "job", seconds=10)
    first = await lock.take(floor=0)
    assert first is not None
    await lock.release(first, rest_seconds=0.3)
    assert await lock.is_taken()
    assert await lock.take(floor=0) is None
    await asyncio.sleep(0.4)
    assert not await lock.is_taken()
    second = await lock.take(floor=0)
    assert second is not None
    # who had it before cannot make it rest
    await lock.release(first, rest_seconds=0.01)
    assert await lock.extend(second)


async def test_tokens_grow_even_when_redis_lost_its_data(redis: Redis) -> None:
    lock = FencedLock(redis, "job", seconds=10)
    await redis.flushall()
    held = await lock.take(floor=41)
    assert held is not None
    assert held.token == 42


async def test_the_lock_ends_by_itself(redis: Redis) -> None:
    lock = FencedLock(redis, "job", seconds=0.1)
    assert await lock.take(floor=0)
    await asyncio.sleep(0.2)
    assert await lock.take(floor=0)


def outbox_rows(database: Database) -> int:
    with database.read() as opened:
        return outbox.waiting(opened)


async def a_run(database: Database, redis: Redis, job: str) -> Run:
    floor = await database.run(jobs.read_fence, database, job)
    lock = FencedLock(redis, job, seconds=10)
    held = await lock.take(floor)
    assert held is not None
    return Run(Tools(database, redis, "app1", Silent()), lock, held)


async def test_the_outbox_is_relayed_in_order_and_emptied(database: Database, redis: Redis) -> None:
    batch = [an_event(n) for n in range(1100)]
    outbox.keep(database, [(event.channel, event.message) for event in batch])
    listener = redis.pubsub()
    await listener.subscribe("deskline:ch:app1:private-conversation.7")
    await listener.get_message(timeout=2)
    run = await a_run(database, redis, "outbox-relay")
    assert await jobs.relay_outbox(run) == 1100
    assert outbox_rows(database) == 0
    for event in batch:
        message = await listener.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message is not None
        assert message["data"] == events.redis_payload(event)
    await listener.aclose()


async def test_events_that_nobody_waits_for_any_more_are_dropped(
    database: Database, redis: Redis
) -> None:
    outbox.keep(database, [("c", "old")])
    with database.write() as opened:
        opened.execute(text("UPDATE outbox SET created_at = '2020-01-01 00:00:00.000000'"))
    with database.read() as opened:
        assert [row.message for row in outbox.oldest(opened, 10)] == [None]
    assert await jobs.relay_outbox(await a_run(database, redis, "outbox-relay")) == 0
    assert outbox_rows(database) == 0


async def test_what_is_said_to_the_gateways_does_not_expire(
    database: Database, redis: Redis
) -> None:
    event = events.access_changed("user.7")
    with database.write() as opened:
        outbox.add(opened, [(event.channel, event.message)])
        opened.execute(text("UPDATE outbox SET created_at = '2020-01-01 00:00:00.000000'"))
    outbox.keep(database, [("c", "m")])
    assert await jobs.relay_outbox(await a_run(database, redis, "outbox-relay")) == 2
    kept = await redis.zrange(events.control_key("app1"), 0, -1)
    assert kept == [event.message.encode()]


def test_the_last_event_of_a_cache_channel_is_kept_before_it_is_published() -> None:
    topic = events.redis_channel("app1", "private-cache-a")
    assert events.commands(topic, b"1.2\nmessage") == [
        ("SET", "deskline:cache:app1:private-cache-a", b"message", "EX", "1800"),
        ("PUBLISH", topic, b"1.2\nmessage"),
    ]
    topic = events.redis_channel("app1", "private-a")
    assert events.commands(topic, b"\nmessage") == [("PUBLISH", topic, b"\nmessage")]


def test_what_nobody_waits_for_any_more_makes_room_without_redis(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "EXPIRED_ROWS", 3)
    outbox.keep(database, [("c", f"old {n}") for n in range(4)])
    with database.write() as opened:
        opened.execute(text("UPDATE outbox SET created_at = '2020-01-01 00:00:00.000000'"))
    for left in (["old 3", "new 0"], ["new 0", "new 1"], ["new 0", "new 1", "new 2"]):
        outbox.keep(database, [("c", f"new {left[-1][-1]}")])
        with database.read() as opened:
            query = select(schema.outbox.c.message).order_by(schema.outbox.c.id)
            assert opened.execute(query).scalars().all() == left


async def test_a_worker_that_was_overtaken_writes_nothing(database: Database, redis: Redis) -> None:
    outbox.keep(database, [("c", "m")])
    run = await a_run(database, redis, "outbox-relay")
    with database.write() as opened:
        opened.execute(text("UPDATE job_fences SET token = 1000000"))
    with pytest.raises(LostLock):
        await jobs.relay_outbox(run)
    assert outbox_rows(database) == 1


async def test_expired_sessions_are_purged(database: Database, redis: Redis) -> None:
    now = clock.now()
    with database.write() as opened:
        for name, year in (("old", 2020), ("valid", 2999)):
            opened.execute(
                insert(schema.sessions).values(
                    token_hash=name, user_id=1, created_at=now, expires_at=now.replace(year=year)
                )
            )
    run = await a_run(database, redis, "session-purge")
    assert await jobs.purge_sessions(run) == 1
    with database.read() as opened:
        assert opened.execute(select(schema.sessions.c.token_hash)).scalars().all() == ["valid"]


async def test_two_workers_share_the_jobs_and_never_run_one_at_once(
    database: Database, redis: Redis
) -> None:
    running, seen = 0, []

    async def work(_run: Run) -> int:
        nonlocal running
        running += 1
        seen.append(running)
        await asyncio.sleep(0.02)
        running -= 1
        return 1

    job = Job("test", 0.01, work)
    tools = Tools(database, redis, "app1", Silent())
    runners = [Runner(tools, (job,)) for _ in range(2)]
    await asyncio.sleep(0.6)
    for runner in runners:
        await runner.close()
    assert len(seen) >= 3
    assert set(seen) == {1}


async def test_many_workers_run_a_job_no_more_often_than_one_does(
    database: Database, redis: Redis
) -> None:
    runs: list[float] = []

    async def work(_run: Run) -> int:
        runs.append(time.monotonic())
        return 0

    tools = Tools(database, redis, "app1", Silent())
    runners = [Runner(tools, (Job("test", 0.3, work),)) for _ in range(4)]
    await asyncio.sleep(2.0)
    for runner in runners:
        await runner.close()
    gaps = [later - earlier for earlier, later in pairwise(runs)]
    assert len(runs) >= 3
    assert min(gaps) >= 0.3 * jobs.REST_PART - 0.02


async def test_a_job_goes_on_after_redis_was_away(database: Database, dead_redis: Redis) -> None:
    async def work(_run: Run) -> int:
        return 1

    runner = Runner(Tools(database, dead_redis, "app1", Silent()), (Job("test", 0.01, work),))
    await asyncio.sleep(0.3)
    assert runner.statistics["test"].failures >= 2
    await runner.close()


def test_secrets_of_the_embedded_mode_are_made_once(tmp_path: Path) -> None:
    place = embedded.Place(tmp_path, 1, 2)
    first = embedded.environment(place, "redis://x", {})
    again = embedded.environment(place, "redis://x", {})
    assert first == again
    assert len(first["DESKLINE_SECRET_KEY"]) >= 32
    assert (tmp_path / "secrets.env").stat().st_mode & 0o777 == 0o600


async def test_in_a_cluster_events_go_to_the_shards_and_waiting_requests_look_now_and_then() -> (
    None
):
    client = connection.connect("redis+cluster://user:p%2Fw@127.0.0.1:1")
    assert connection.plain("rediss+cluster://host:1") == "rediss://host:1"
    assert connection.is_cluster("rediss+cluster://host:1")
    assert not connection.is_cluster("redis://host:1/0")
    assert connection.publish_command(client) == "SPUBLISH"
    assert events.commands("deskline:ch:1:a", b"\n{}", "SPUBLISH")[-1][0] == "SPUBLISH"
    subscriber = Subscriber(client, "1", "message.", lambda _channel: None)
    assert await subscriber.add("a") is False
    assert not subscriber.connected
    subscriber.remove("a")
    await subscriber.close()
    await client.aclose()
