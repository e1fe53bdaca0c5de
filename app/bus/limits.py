"""Counting in a window of time: in Redis, and in this process while Redis is away.

:class:`AttemptLimit` counts the tries of logins, few and precious: it asks Redis. For
:class:`RateLimits` every request counts: it decides by itself and compares notes with the other
nodes in the background (docs/adr/0004-rate-limits.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from app import log
from app.bus.connection import TIMEOUT_SECONDS

MAX_LOCAL_KEYS: Final = 10_000
REST_SECONDS: Final = 1.0

Traffic = Literal["sends", "reads", "writes", "uploads", "logins", "sessions", "exports"]
TRAFFIC: Final[tuple[Traffic, ...]] = get_args(Traffic)
Scope = Literal["address", "caller"]

WINDOW_SECONDS: Final = 10
EXCHANGE_SECONDS: Final = 0.2
# a count below this part of its limit is not told to the other nodes: nearly all of them are, and
# with up to ten nodes they cannot pass the limit together
QUIET_PART: Final = 10
EXCHANGE_KEYS: Final = 500
MAX_COUNTS: Final = 100_000

# requests a minute of one account, API key or visitor; logins and sessions have no caller yet
PER_CALLER: Final[Mapping[Traffic, int]] = {
    "sends": 1200,
    "reads": 12_000,
    "writes": 6000,
    "uploads": 600,
    "exports": 300,
}


# counted and compared in one step: many at once cannot all find the last place free
_TAKE: Final = """
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return math.max(redis.call('TTL', KEYS[1]), 1)
end
redis.call('SET', KEYS[1], 0, 'EX', ARGV[2], 'NX')
redis.call('INCR', KEYS[1])
return 0
"""
_GIVE_BACK: Final = """
if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end
return 0
"""


@dataclass(slots=True)
class Pause:
    """Until when (monotonic seconds) a Redis that did not answer is left alone."""

    until: float = 0.0


class AttemptLimit:
    """At most ``attempts`` per key in ``window_seconds``.

    An attempt is counted before it is made, and given back when it was no failure. Limits that
    share a ``pause`` wait for a silent Redis only once together.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        *,
        attempts: int,
        window_seconds: int,
        pause: Pause | None = None,
    ) -> None:
        self._redis = redis
        self._name = name
        self._attempts = attempts
        self._window_seconds = window_seconds
        self._pause = pause or Pause()
        self._local: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def take(self, key: str) -> int:
        """Count an attempt of ``key``; gives 0, or how many seconds to wait when it is one too
        many, and then it is not counted."""
        name = self._redis_key(key)
        if seconds := self._take_locally(name):
            return seconds
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.eval(_TAKE, 1, name, str(self._attempts), str(self._window_seconds))
        answer = await self._ask(pipeline)
        if answer is not None and answer[0]:
            self._give_back_locally(name)
            return int(answer[0])
        return 0

    async def give_back(self, key: str) -> None:
        """Count the attempt no more: it was no failure, or it was not made."""
        name = self._redis_key(key)
        self._give_back_locally(name)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.eval(_GIVE_BACK, 1, name)
        await self._ask(pipeline)

    async def forget(self, key: str) -> None:
        """Begin anew with ``key``."""
        name = self._redis_key(key)
        self._local.pop(name, None)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.delete(name)
        await self._ask(pipeline)

    async def _ask(self, pipeline: Pipeline) -> list[Any] | None:
        """What Redis says, within :data:`TIMEOUT_SECONDS`; None when it says nothing, and then it
        is not asked again for a moment: a login asks several times."""
        if time.monotonic() < self._pause.until:
            return None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer: list[Any] = await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            self._pause.until = time.monotonic() + REST_SECONDS
            return None
        return answer

    def _redis_key(self, key: str) -> str:
        # hashed: the key holds an e-mail address, which need not stand in Redis
        return f"deskline:limit:{self._name}:{_hidden(key)}"

    def _take_locally(self, name: str) -> int:
        now = time.monotonic()
        count, until = self._local.get(name, (0, 0.0))
        if until <= now:
            count, until = 0, now + self._window_seconds
        if count >= self._attempts:
            return int(until - now) + 1
        self._local.pop(name, None)
        self._local[name] = (count + 1, until)
        while len(self._local) > MAX_LOCAL_KEYS:
            self._local.popitem(last=False)
        return 0

    def _give_back_locally(self, name: str) -> None:
        count, until = self._local.get(name, (0, 0.0))
        if count > 0:
            self._local[name] = (count - 1, until)


@dataclass(slots=True)
class _Count:
    """One key in one window: ``mine`` was counted here, ``told`` of it went to Redis, where
    ``shared`` was the sum of all nodes."""

    limit: int
    mine: int = 0
    told: int = 0
    shared: int = 0

    @property
    def total(self) -> int:
        # Redis may have lost its sum, but what was counted here was counted
        return max(self.mine, self.shared + self.mine - self.told)


@dataclass(slots=True)
class RateStatistics:
    """What the limits did; read by the metrics. ``refused`` counts by (traffic, scope)."""

    refused: dict[tuple[Traffic, Scope], int] = field(default_factory=dict)
    failures: int = 0


class RateLimits:
    """Requests per window of :data:`WINDOW_SECONDS`, by address and by caller.

    ``per_address`` gives the requests a minute of one address for each kind of traffic; 0 stands
    for no limit. With ``enforce`` False, what would be refused is only counted. Made, used and
    closed on one event loop.
    """

    def __init__(
        self,
        redis: Redis,
        per_address: Mapping[Traffic, int],
        *,
        per_caller: Mapping[Traffic, int] = PER_CALLER,
        enforce: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.statistics = RateStatistics()
        self._redis = redis
        self._enforce = enforce
        self._clock = clock
        self._limits: Mapping[Scope, dict[Traffic, int]] = {
            "address": {name: _per_window(count) for name, count in per_address.items()},
            "caller": {name: _per_window(count) for name, count in per_caller.items()},
        }
        self._window = 0
        self._counts: dict[tuple[Scope, Traffic, str], _Count] = {}
        self._changed: set[tuple[Scope, Traffic, str]] = set()
        self._task = asyncio.create_task(self._exchange_for_ever(), name="rate-limits")

    def spend(self, scope: Scope, traffic: Traffic, who: str) -> int:
        """Count one request; gives 0, or after how many seconds to try again when it is one too
        many. Never waits."""
        limit = self._limits[scope].get(traffic, 0)
        if limit == 0:
            return 0
        now = self._clock()
        window = int(now // WINDOW_SECONDS)
        if window != self._window:
            self._window = window
            self._counts, self._changed = {}, set()
        key = (scope, traffic, who)
        count = self._counts.get(key)
        if count is None:
            if len(self._counts) >= MAX_COUNTS:
                # the memory is bounded: the count that has been there longest gives way
                self._counts.pop(next(iter(self._counts)))
            count = self._counts[key] = _Count(limit)
        if count.total >= limit:
            refused = self.statistics.refused
            refused[(traffic, scope)] = refused.get((traffic, scope), 0) + 1
            if self._enforce:
                return math.ceil((window + 1) * WINDOW_SECONDS - now) or 1
        count.mine += 1
        if count.mine * QUIET_PART >= limit:
            self._changed.add(key)
        return 0

    async def exchange(self) -> None:
        """Tell Redis what was counted here and read the sums of all nodes. Raises RedisError,
        OSError or TimeoutError; what was told then may not have arrived and is not told again."""
        window, counts = self._window, self._counts
        while self._changed and window == self._window:
            keys = [self._changed.pop() for _ in range(min(len(self._changed), EXCHANGE_KEYS))]
            told = [(key, counts[key]) for key in keys if key in counts]
            await self._tell(window, told)

    async def _tell(
        self, window: int, told: Sequence[tuple[tuple[Scope, Traffic, str], _Count]]
    ) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        sums = []
        for (scope, traffic, who), count in told:
            name = f"deskline:rate:{scope}:{traffic}:{window}:{_hidden(who)}"
            pipeline.incrby(name, count.mine - count.told)
            pipeline.expire(name, 2 * WINDOW_SECONDS)
            count.told = count.mine
            sums.append(count)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            answers = await pipeline.execute()
        for count, shared in zip(sums, answers[::2], strict=True):
            count.shared = int(shared)

    async def close(self) -> None:
        """End the exchange."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _exchange_for_ever(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(REST_SECONDS if failing else EXCHANGE_SECONDS)
            try:
                await self.exchange()
            except (RedisError, OSError, TimeoutError) as error:
                self.statistics.failures += 1
                if not failing:  # once per outage
                    log.get("limits").warning(
                        "rate limits count on this node only", reason=type(error).__name__
                    )
                failing = True
            else:
                failing = False


def _per_window(per_minute: int) -> int:
    return math.ceil(per_minute * WINDOW_SECONDS / 60)


def _hidden(who: str) -> str:
    # e-mail addresses and client addresses need not stand in Redis
    return hashlib.sha256(who.encode()).hexdigest()[:32]
