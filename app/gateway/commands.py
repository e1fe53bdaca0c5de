"""Commands to Redis that no caller waits for: in their order, many in one round trip.

The subscription is another connection (:mod:`app.gateway.redis_reader`), because a connection that
is subscribed takes no other commands (RESP2).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError

from app import log
from app.bus.connection import connect_cluster, is_cluster

TIMEOUT_SECONDS: Final = 3.0
CONNECTIONS: Final = 8
PIPELINE_COMMANDS: Final = 500
QUEUE_COMMANDS: Final = 20_000
# After a failure everything fails at once for so long: nothing piles up behind a dead Redis.
REST_SECONDS: Final = 0.5

# A reply, or the exception instead of one.
Then = Callable[[Any], None]


def connect(url: str) -> Redis:
    """A client for single commands; who finds all connections in use waits for one."""
    if is_cluster(url):
        return connect_cluster(url, timeout_seconds=TIMEOUT_SECONDS, max_connections=CONNECTIONS)
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=TIMEOUT_SECONDS,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
    )
    return Redis.from_pool(pool)


class Commands:
    """Sends queued commands from one task. Made anywhere, started and used on one event loop."""

    def __init__(self) -> None:
        self.failed = 0
        self._redis: Redis | None = None
        self._queue: deque[tuple[tuple[bytes, ...], Then | None]] = deque()
        self._wake = asyncio.Event()
        self._rest_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self, redis: Redis) -> None:
        """Begin to send."""
        self._redis = redis
        self._task = asyncio.get_running_loop().create_task(self._work(), name="redis-commands")

    async def stop(self) -> None:
        """End; what was not sent yet is dropped."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def send(self, *words: bytes, then: Then | None = None) -> None:
        """Queue one command; ``then`` gets its reply, or the exception instead of one.

        Never blocks and never raises; ``then`` must not raise either. A command that does not fit
        into the queue, because Redis is slower than we are, fails at once.
        """
        if len(self._queue) >= QUEUE_COMMANDS:
            self._settle((words, then), RedisError("too many commands wait"))
            return
        self._queue.append((words, then))
        self._wake.set()

    def _settle(self, entry: tuple[tuple[bytes, ...], Then | None], reply: object) -> None:
        self.failed += isinstance(reply, Exception)
        if entry[1] is not None:
            entry[1](reply)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                count = min(len(self._queue), PIPELINE_COMMANDS)
                batch = [self._queue.popleft() for _ in range(count)]
                resting = loop.time() < self._rest_until
                replies = (
                    [RedisError("Redis does not answer")] * count
                    if resting
                    else await self._execute([words for words, _ in batch])
                )
                for entry, reply in zip(batch, replies, strict=True):
                    self._settle(entry, reply)

    async def _execute(self, batch: list[tuple[bytes, ...]]) -> list[Any]:
        """The replies to some commands, exceptions among them."""
        assert self._redis is not None  # noqa: S101  start() has set it
        error: Exception
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                pipeline = self._redis.pipeline(transaction=False)
                for words in batch:
                    # a cluster's client looks the name up as text
                    pipeline.execute_command(words[0].decode(), *words[1:])
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as failure:
            error = failure
            replies = [failure] * len(batch)
            self._rest_until = asyncio.get_running_loop().time() + REST_SECONDS
        else:
            refused = [reply for reply in replies if isinstance(reply, ResponseError)]
            if not refused:
                return replies
            error = refused[0]
        log.get("gateway.commands").warning(
            "redis commands failed", commands=len(batch), error=type(error).__name__
        )
        return replies
