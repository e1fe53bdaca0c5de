"""Counting attempts in a window of time: in Redis, and in this process while Redis is away."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

MAX_LOCAL_KEYS: Final = 10_000


class AttemptLimit:
    """At most ``attempts`` failures per key in ``window_seconds``."""

    def __init__(self, redis: Redis, name: str, *, attempts: int, window_seconds: int) -> None:
        self._redis = redis
        self._name = name
        self._attempts = attempts
        self._window_seconds = window_seconds
        self._local: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def blocked_seconds(self, key: str) -> int:
        """How long ``key`` must wait before its next attempt; 0 when it may try now."""
        name = self._redis_key(key)
        try:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.get(name)
            pipeline.ttl(name)
            count, ttl_seconds = await pipeline.execute()
            if count is not None and int(count) >= self._attempts:
                return max(int(ttl_seconds), 1)
        except (RedisError, OSError, TimeoutError):
            pass
        count, until = self._local.get(name, (0, 0.0))
        left = until - time.monotonic()
        return int(left) + 1 if left > 0 and count >= self._attempts else 0

    async def failed(self, key: str) -> None:
        """Count one failure of ``key``."""
        name = self._redis_key(key)
        self._count_locally(name)
        try:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.set(name, 0, ex=self._window_seconds, nx=True)
            pipeline.incr(name)
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            return

    async def succeeded(self, key: str) -> None:
        """Forget the failures of ``key``."""
        name = self._redis_key(key)
        self._local.pop(name, None)
        try:
            await self._redis.delete(name)
        except (RedisError, OSError, TimeoutError):
            return

    def _redis_key(self, key: str) -> str:
        # hashed: the key holds an e-mail address, which need not stand in Redis
        return f"deskline:limit:{self._name}:{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def _count_locally(self, name: str) -> None:
        now = time.monotonic()
        count, until = self._local.pop(name, (0, 0.0))
        if until <= now:
            count, until = 0, now + self._window_seconds
        self._local[name] = (count + 1, until)
        while len(self._local) > MAX_LOCAL_KEYS:
            self._local.popitem(last=False)
