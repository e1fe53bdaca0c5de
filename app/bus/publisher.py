"""Publishes events after the commit, without anybody waiting for it.

Events are queued and sent by one task in their order, many in one pipeline. When Redis does not
take them they go to the ``outbox`` table through ``keep``, and for a moment Redis is not asked
again; the worker relays the outbox once Redis is back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import log
from app.bus import events
from app.bus.connection import TIMEOUT_SECONDS, publish_command
from app.bus.events import Event

PIPELINE_EVENTS: Final = 500
QUEUE_EVENTS: Final = 20_000
REST_SECONDS: Final = 1.0
KEEP_TIMEOUT_SECONDS: Final = 10.0

Keep = Callable[[Sequence[Event]], Awaitable[None]]


@dataclass(slots=True)
class Statistics:
    """What became of the events; read by the metrics."""

    published: int = 0
    kept: int = 0
    lost: int = 0
    failures: int = 0


async def send(redis: Redis, app_id: str, batch: Sequence[Event]) -> None:
    """Publish a batch in one round trip. Raises RedisError, OSError or TimeoutError."""
    async with asyncio.timeout(TIMEOUT_SECONDS * 2):
        pipeline = redis.pipeline(transaction=False)
        publish = publish_command(redis)
        for event in batch:
            topic = events.redis_channel(app_id, event.channel)
            for words in events.commands(topic, events.redis_payload(event), publish):
                pipeline.execute_command(*words)
        await pipeline.execute()


class Publisher:
    """Publishes in the background. Made, used and closed on one event loop."""

    def __init__(self, redis: Redis, app_id: str, keep: Keep) -> None:
        self.statistics = Statistics()
        self._redis = redis
        self._app_id = app_id
        self._keep = keep
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._rest_until = 0.0
        self._closing = False
        self._task = asyncio.create_task(self._work(), name="publisher")

    @property
    def queued(self) -> int:
        """How many events wait."""
        return len(self._queue)

    @property
    def redis_answers(self) -> bool:
        """Whether the last try to publish went well."""
        return time.monotonic() >= self._rest_until

    def publish(self, *batch: Event) -> None:
        """Queue events. Never blocks and never raises.

        When both Redis and the database hang, the queue fills; the oldest events are then dropped
        and counted: the clients notice the hole by seq and fetch what they miss (P4).
        """
        self._queue.extend(batch)
        while len(self._queue) > QUEUE_EVENTS:
            self._queue.popleft()
            self.statistics.lost += 1
        self._wake.set()

    async def close(self, timeout_seconds: float = 3.0) -> None:
        """Send what waits, then end; what could not be sent in time goes to the outbox."""
        self._closing = True
        self._wake.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._task, timeout_seconds)
        if self._queue:
            left, self._queue = list(self._queue), deque()
            await self._store(left)

    async def _work(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            size = min(len(self._queue), PIPELINE_EVENTS)
            batch = [self._queue.popleft() for _ in range(size)]
            try:
                if not await self._publish(batch):
                    await self._store(batch)
            except asyncio.CancelledError:  # close() keeps them; who hears one twice knows its seq
                self._queue.extendleft(reversed(batch))
                raise

    async def _publish(self, batch: Sequence[Event]) -> bool:
        if time.monotonic() < self._rest_until:
            return False
        try:
            await send(self._redis, self._app_id, batch)
        except (RedisError, OSError, TimeoutError) as error:
            self._rest_until = time.monotonic() + REST_SECONDS
            self.statistics.failures += 1
            log.get("publisher").warning(
                "publish failed; events go to the outbox",
                events=len(batch),
                reason=type(error).__name__,
            )
            return False
        self.statistics.published += len(batch)
        return True

    async def _store(self, batch: Sequence[Event]) -> None:
        try:
            async with asyncio.timeout(KEEP_TIMEOUT_SECONDS):
                await self._keep(batch)
        except Exception as error:  # noqa: BLE001  the task must survive; clients find the hole by seq
            self.statistics.lost += len(batch)
            log.get("publisher").error(
                "events lost", events=len(batch), reason=type(error).__name__
            )
        else:
            self.statistics.kept += len(batch)
