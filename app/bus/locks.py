"""Fenced locks in Redis: one holder at a time, and a token that only grows.

The lock alone cannot stop a holder that was paused beyond its time; the token can: the holder
writes it together with its work and gives up when it finds a higher one (Kleppmann, "How to do
distributed locking", 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from app import clock

# KEYS: lock, fence counter; ARGV: holder, time in ms, the highest token that the database knows.
# Gives the new token, or 0 when somebody else holds the lock. The third argument keeps the token
# growing after Redis lost its data.
_TAKE: Final = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local last = tonumber(redis.call('GET', KEYS[2]) or '0')
  local floor = tonumber(ARGV[3])
  if floor > last then last = floor end
  redis.call('SET', KEYS[2], last + 1)
  return last + 1
end
return 0
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_EXTEND: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that was taken; ``token`` is the fence."""

    name: str
    holder: str
    token: int


class FencedLock:
    """The lock ``name``, held for at most ``seconds`` unless it is extended."""

    def __init__(self, redis: Redis, name: str, *, seconds: float) -> None:
        self._redis = redis
        self._name = name
        self._milliseconds = int(seconds * 1000)
        self._keys = (f"deskline:lock:{name}", f"deskline:lock:{name}:fence")

    async def take(self, floor: int) -> Held | None:
        """Take the lock; None when somebody else holds it. ``floor``: the highest token used."""
        holder = clock.token(16)
        token = await self._redis.eval(
            _TAKE, 2, *self._keys, holder, str(self._milliseconds), str(floor)
        )
        return Held(self._name, holder, int(token)) if token else None

    async def is_taken(self) -> bool:
        """Whether somebody holds the lock now, or it rests."""
        return bool(await self._redis.exists(self._keys[0]))

    async def extend(self, held: Held) -> bool:
        """Hold on for another period; False when the lock was lost."""
        return bool(
            await self._redis.eval(_EXTEND, 1, self._keys[0], held.holder, str(self._milliseconds))
        )

    async def release(self, held: Held, *, rest_seconds: float = 0.0) -> None:
        """Give the lock back, unless it was lost; nobody gets it before ``rest_seconds``."""
        rest = str(int(rest_seconds * 1000))
        await self._redis.eval(_RELEASE, 1, self._keys[0], held.holder, rest)
