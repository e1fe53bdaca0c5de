"""Which processes are alive: each tells Redis so every few seconds.

Nothing depends on it: it is for people who look at the system. While Redis is away nobody tells.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import clock
from app.bus.connection import TIMEOUT_SECONDS

EVERY_SECONDS: Final = 5.0
# who was not heard for so long is told as not alive, and after a day not at all
ALIVE_SECONDS: Final = 20.0
FORGOTTEN_SECONDS: Final = 24 * 3600.0
NODES_KEY: Final = "deskline:nodes"
JOBS_KEY: Final = "deskline:jobs"

_ERRORS: Final = (RedisError, OSError, TimeoutError)


class Beat:
    """Tells that this process is alive, as long as it is not closed. Lives on one event loop."""

    def __init__(self, redis: Redis, *, process: str, node: str, version: str) -> None:
        self._redis = redis
        self._field = f"{process}:{node}"
        self._about = {
            "process": process,
            "node": node,
            "version": version,
            "started_at": _now(),
        }
        self._task = asyncio.create_task(self._work(), name="beat")

    async def close(self) -> None:
        """End, and tell that this process is gone."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        with suppress(*_ERRORS):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await _done(self._redis.hdel(NODES_KEY, self._field))

    async def _work(self) -> None:
        while True:
            with suppress(*_ERRORS):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    told = orjson.dumps({**self._about, "seen_at": _now()})
                    await _done(self._redis.hset(NODES_KEY, self._field, told))
            await asyncio.sleep(EVERY_SECONDS)


async def job_done(redis: Redis, job: str, node: str, items: int) -> None:
    """Tell that a job ended well just now. Never raises."""
    with suppress(*_ERRORS):
        async with asyncio.timeout(TIMEOUT_SECONDS):
            told = orjson.dumps({"node": node, "items": items, "at": _now()})
            await _done(redis.hset(JOBS_KEY, job, told))


async def nodes(redis: Redis) -> list[dict[str, Any]]:
    """The processes that were heard within a day; ``alive`` within :data:`ALIVE_SECONDS`.

    Times are Unix seconds. Raises RedisError, OSError or TimeoutError.
    """
    found = []
    for field, about in (await _whole(redis, NODES_KEY)).items():
        silent_seconds = _now() - about["seen_at"]
        if silent_seconds > FORGOTTEN_SECONDS:
            await _done(redis.hdel(NODES_KEY, field))
            continue
        found.append({**about, "alive": silent_seconds < ALIVE_SECONDS})
    return sorted(found, key=lambda about: (about["process"], about["node"]))


async def jobs(redis: Redis) -> dict[str, dict[str, Any]]:
    """When each job last ended well (``at``, Unix seconds), and where. Raises as :func:`nodes`."""
    return await _whole(redis, JOBS_KEY)


async def _whole(redis: Redis, key: str) -> dict[str, dict[str, Any]]:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        stored = await _done(redis.hgetall(key))
    return {name.decode(): orjson.loads(value) for name, value in stored.items()}


async def _done(command: Any) -> Any:
    # redis-py types the commands of both its clients as one
    return await command


def _now() -> float:
    return clock.now_source().timestamp()
