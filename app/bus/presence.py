"""Which agents are present: those whose browser said something within the last minute.

A sorted set in Redis holds for each agent the time at which its presence ends. Nothing waits for
Redis: while it is away nobody is known to be present.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import clock, log
from app.bus.connection import TIMEOUT_SECONDS

# two heartbeats of the dashboard (30 s) and some delay
LIFETIME_SECONDS: Final = 75
NOTED_EVERY_SECONDS: Final = 20.0
_KEY: Final = "deskline:presence"


async def present(redis: Redis) -> set[int]:
    """The ids of the agents that are present. Raises RedisError, OSError or TimeoutError."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        members: Any = await redis.zrangebyscore(_KEY, f"({_now()}", "+inf")
    return {int(member) for member in members}


class Presence:
    """Notes who is present, in the background. Made, used and closed on one event loop."""

    def __init__(self, redis: Redis) -> None:
        self.failures = 0
        self._redis = redis
        # when each agent was last noted; bounded by the number of accounts
        self._noted: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._work(), name="presence")

    def note(self, user_id: int) -> None:
        """The agent has just talked to us. Never blocks, never raises."""
        now = time.monotonic()
        if now - self._noted.get(user_id, -NOTED_EVERY_SECONDS) < NOTED_EVERY_SECONDS:
            return
        self._noted[user_id] = now
        self._waiting.add(user_id)
        self._wake.set()

    async def close(self) -> None:
        """End; what was not noted yet is noted by the next request."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            noted, self._waiting = self._waiting, set()
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS * 2):
                    pipeline = self._redis.pipeline(transaction=False)
                    ends = _now() + LIFETIME_SECONDS
                    pipeline.zadd(_KEY, {str(user_id): ends for user_id in noted})
                    pipeline.zremrangebyscore(_KEY, "-inf", _now())
                    await pipeline.execute()
            except (RedisError, OSError, TimeoutError) as error:
                self.failures += 1
                log.get("presence").warning(
                    "presence not noted", agents=len(noted), reason=type(error).__name__
                )


def _now() -> float:
    return clock.now_source().timestamp()
