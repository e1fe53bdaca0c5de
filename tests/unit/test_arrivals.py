"""Waiting for messages: with Redis, without it, and when it comes and goes."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from app.bus import connection, events, publisher, subscriber
from app.chat import arrivals
from app.chat.arrivals import Arrivals, Reached
from app.chat.errors import Busy, Refused
from app.db import schema
from app.db.engines import Database
from tests.conftest import free_port
from tests.unit.conftest import Stand, settings_for

PUBLIC, STAFF = schema.PUBLIC, schema.STAFF
APP = "app1"


@contextmanager
def redis_server(port: int, folder: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port)),
            *("--dir", str(folder), "--save", "", "--appendonly", "no"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        give_up_at = time.monotonic() + 10
        while time.monotonic() < give_up_at:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def port(tmp_path: Path) -> int:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    return free_port()


class Desk:
    """Arrivals over a database, and what makes messages arrive."""

    def __init__(self, stand: Stand, redis: Redis, limit: int = 100) -> None:
        self.database = Database(settings_for(stand.path))
        self.redis = redis
        self.arrivals = Arrivals(self.database, redis, APP, limit=limit)

    def wait(
        self, conversation_id: int, stream: int = PUBLIC, *, seconds: float = 10, after: int = 0
    ) -> asyncio.Task[Reached | None]:
        return asyncio.create_task(
            self.arrivals.wait(
                conversation_id,
                stream,
                after_seq=after,
                after_edit=None,
                caller=f"visitor:{conversation_id}",
                seconds=seconds,
            )
        )

    async def arrive(self, conversation_id: int, *, tell: bool = True, seq: int = 1) -> None:
        def store() -> None:
            with self.database.write() as opened:
                opened.execute(
                    update(schema.conversations)
                    .where(schema.conversations.c.id == conversation_id)
                    .values(last_seq_public=seq)
                )

        await self.database.run(store)
        if tell:
            name = f"private-conversation.{conversation_id}"
            event = events.make(name, "message.created", {"seq": seq})
            await publisher.send(self.redis, APP, [event])

    async def heard(self, *, yes: bool) -> None:
        async with asyncio.timeout(8):
            while self.arrivals.redis_answers is not yes:  # noqa: ASYNC110  a test looks from outside
                await asyncio.sleep(0.02)


@asynccontextmanager
async def desk(stand: Stand, port: int, **more: int) -> AsyncIterator[Desk]:
    redis = connection.connect(f"redis://127.0.0.1:{port}/0")
    made = Desk(stand, redis, **more)
    try:
        yield made
    finally:
        await made.arrivals.close()
        await redis.aclose()
        made.database.close()


async def test_an_event_wakes_those_who_wait_for_it(
    stand: Stand, port: int, tmp_path: Path
) -> None:
    with redis_server(port, tmp_path):
        async with desk(stand, port) as made:
            first, again, other = made.wait(1), made.wait(1), made.wait(2, seconds=2)
            await made.heard(yes=True)
            await asyncio.sleep(0.3)
            looks = made.arrivals.looks
            started = time.monotonic()
            await made.arrive(1)
            assert await first == await again == Reached(1, 0)
            assert time.monotonic() - started < 0.8
            assert made.arrivals.looks == looks + 1
            assert await other is None
            assert made.arrivals.waiting == 0


async def test_what_happened_before_redis_listened_is_seen(
    stand: Stand, port: int, tmp_path: Path
) -> None:
    with redis_server(port, tmp_path):
        async with desk(stand, port) as made:
            await made.arrive(1, tell=False)
            started = time.monotonic()
            assert await made.wait(1) == Reached(1, 0)
            assert time.monotonic() - started < 0.9


async def test_other_events_wake_nobody(stand: Stand, port: int, tmp_path: Path) -> None:
    with redis_server(port, tmp_path):
        async with desk(stand, port) as made:
            waiting = made.wait(1, seconds=1.5)
            await made.heard(yes=True)
            await asyncio.sleep(0.3)
            looks = made.arrivals.looks
            for name in ("read.moved", "client-typing", "conversation.updated"):
                event = events.make("private-conversation.1", name, {"x": "message.created"})
                await publisher.send(made.redis, APP, [event])
            assert await waiting is None
            assert made.arrivals.looks == looks


async def test_without_redis_the_database_is_looked_at_once_a_second_for_all(
    stand: Stand,
) -> None:
    async with desk(stand, 1) as made:
        waits = [made.wait(1 + n % 3, seconds=10, after=n % 2) for n in range(30)]
        await asyncio.sleep(0.5)
        looks = made.arrivals.looks
        await asyncio.sleep(3)
        assert 2 <= made.arrivals.looks - looks <= 5
        await made.arrive(1, tell=False, seq=2)
        await asyncio.sleep(2)
        assert [each.done() for each in waits] == [n % 3 == 0 for n in range(30)]
        made.arrivals.release()
        await asyncio.gather(*waits)


async def test_redis_goes_and_comes_back(stand: Stand, port: int, tmp_path: Path) -> None:
    async with desk(stand, port) as made:
        with redis_server(port, tmp_path):
            waiting = made.wait(1, seconds=20)
            await made.heard(yes=True)
        await made.heard(yes=False)
        await made.arrive(1, tell=False)
        assert await waiting == Reached(1, 0)
        with redis_server(port, tmp_path):
            waiting = made.wait(2, seconds=20)
            await made.heard(yes=True)
            await asyncio.sleep(0.5)
            started = time.monotonic()
            await made.arrive(2)
            assert await waiting == Reached(1, 0)
            assert time.monotonic() - started < 0.8


async def test_a_connection_that_died_silently_is_noticed(
    stand: Stand, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "QUIET_SECONDS", 0.3)
    silent = asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if not silent.is_set():
                writer.write(data)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))

    with redis_server(port, tmp_path):
        proxy = await asyncio.start_server(carry, "127.0.0.1", 0)
        proxy_port = proxy.sockets[0].getsockname()[1]
        async with desk(stand, proxy_port) as made:
            waiting = made.wait(1, seconds=20)
            await made.heard(yes=True)
            await asyncio.sleep(0.5)
            silent.set()
            await made.arrive(1, tell=False)
            assert await waiting == Reached(1, 0)
        proxy.close()


async def test_the_room_is_bounded_and_given_back(stand: Stand) -> None:
    async with desk(stand, 1, limit=2) as made:
        first, second = made.wait(1), made.wait(2)
        await asyncio.sleep(0.05)
        with pytest.raises(Busy):
            await made.wait(3)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        third = made.wait(3, seconds=0.1)
        assert await third is None
        assert made.arrivals.waiting == 1
        made.arrivals.release()
        assert await second is None
        # a process that drains lets nobody wait
        assert await made.wait(1, seconds=10) is None


async def test_one_caller_has_its_share(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "PER_CALLER", 2)
    async with desk(stand, 1) as made:
        waits = [made.wait(1) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refused) as refused:
            await made.wait(1)
        assert refused.value.code == "rate_limited"
        other = made.wait(2, seconds=0.1)
        assert await other is None
        made.arrivals.release()
        await asyncio.gather(*waits)
