"""Waiting for messages: requests that are answered when something arrives.

However many requests wait, a process has one connection to Redis for them, and looks into the
database once for all that an event has woken. When Redis is away it looks about once a second, in
one statement for everything that is waited for.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from sqlalchemy import bindparam, select

from app import log
from app.bus.subscriber import Subscriber
from app.chat.channels import conversation_channel, staff_channel
from app.chat.errors import Busy, Refused
from app.db import schema
from app.db.engines import Database

WAIT_MAX_SECONDS: Final = 25
PER_CALLER: Final = 20
LOOK_SECONDS: Final = 1.0
LOOK_CONVERSATIONS: Final = 500
RETRY_SECONDS: Final = 5

_c = schema.conversations

_LASTS: Final = select(
    _c.c.id,
    _c.c.last_seq_public,
    _c.c.last_seq_staff,
    _c.c.last_edit_public,
    _c.c.last_edit_staff,
).where(_c.c.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class Reached:
    """The last numbers of a stream on the primary."""

    seq: int
    edit: int


@dataclass(slots=True, eq=False)
class _Waiter:
    conversation_id: int
    stream: int
    after_seq: int
    after_edit: int | None
    future: asyncio.Future[Reached | None]

    @property
    def channel(self) -> str:
        name = staff_channel if self.stream == schema.STAFF else conversation_channel
        return name(self.conversation_id)

    def look(self, reached: Reached) -> None:
        more = reached.seq > self.after_seq
        changed = self.after_edit is not None and reached.edit > self.after_edit
        if (more or changed) and not self.future.done():
            self.future.set_result(reached)


class Arrivals:
    """The waiting requests of a web process. Made, used and closed on one event loop.

    At most ``limit`` wait at the same time.
    """

    def __init__(self, database: Database, redis: Redis, app_id: str, *, limit: int) -> None:
        self.looks = 0
        self._database = database
        self._limit = limit
        self._subscriber = Subscriber(redis, app_id, "message.", self._heard)
        self._waiting: dict[str, set[_Waiter]] = {}
        self._count = 0
        self._callers: Counter[str] = Counter()
        self._channels_to_look_at: set[str] = set()
        self._wake = asyncio.Event()
        self._released = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._count

    @property
    def redis_answers(self) -> bool:
        """Whether events are heard; without, the database is looked at once a second."""
        return self._subscriber.connected

    def release(self) -> None:
        """Answer all that wait and let nobody wait any more: the process drains."""
        self._released = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.future.done():
                    waiter.future.set_result(None)

    async def close(self) -> None:
        """Release what waits, and end."""
        self.release()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._subscriber.close()

    async def wait(
        self,
        conversation_id: int,
        stream: int,
        *,
        after_seq: int,
        after_edit: int | None,
        caller: str,
        seconds: float,
    ) -> Reached | None:
        """Wait until the stream has a message after ``after_seq``, or an edit after ``after_edit``.

        Gives None when ``seconds`` have passed or the process drains. Raises :class:`Busy` when
        too many wait, and :class:`Refused` when too many of them are ``caller``'s.
        """
        if self._released:
            return None
        future: asyncio.Future[Reached | None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(conversation_id, stream, after_seq, after_edit, future)
        with self._place(waiter, caller), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._subscriber.add(waiter.channel)
                # something may have arrived before Redis told us of it
                self._heard(waiter.channel)
                return await future
        return None

    @contextmanager
    def _place(self, waiter: _Waiter, caller: str) -> Iterator[None]:
        if self._count >= self._limit:
            raise Busy(RETRY_SECONDS)
        if self._callers[caller] >= PER_CALLER:
            raise Refused(
                "rate_limited",
                f"{PER_CALLER} requests of yours wait already: use /sync for many conversations.",
                retry_seconds=RETRY_SECONDS,
            )
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="arrivals")
        self._count += 1
        self._callers[caller] += 1
        self._waiting.setdefault(waiter.channel, set()).add(waiter)
        try:
            yield
        finally:
            self._count -= 1
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
            others = self._waiting[waiter.channel]
            others.discard(waiter)
            if not others:
                del self._waiting[waiter.channel]
                self._subscriber.remove(waiter.channel)

    def _heard(self, channel: str | None) -> None:
        self._channels_to_look_at.update(self._waiting if channel is None else (channel,))
        self._wake.set()

    async def _work(self) -> None:
        while True:
            if not self._channels_to_look_at:
                self._wake.clear()
                with suppress(TimeoutError):
                    # spread the looks of many processes; no secret
                    pause_seconds = LOOK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311  see above
                    async with asyncio.timeout(pause_seconds):
                        await self._wake.wait()
                if not self._subscriber.connected:
                    self._channels_to_look_at.update(self._waiting)
                if not self._channels_to_look_at:
                    continue
            channels, self._channels_to_look_at = self._channels_to_look_at, set()
            waiters = [one for name in channels for one in self._waiting.get(name, ())]
            if not await self._look(waiters):
                # the database is away: its waiters are looked at again, not at once
                self._channels_to_look_at.update(channels & self._waiting.keys())
                await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, waiters: Collection[_Waiter]) -> bool:
        ids = sorted({waiter.conversation_id for waiter in waiters})
        found: dict[int, tuple[Reached, Reached]] = {}
        for start in range(0, len(ids), LOOK_CONVERSATIONS):
            some = ids[start : start + LOOK_CONVERSATIONS]
            try:
                found |= await self._database.run(_lasts, self._database, some)
            except Exception as error:  # noqa: BLE001  the task must survive; it is tried again
                log.get("arrivals").warning("look failed", reason=type(error).__name__)
                return False
            self.looks += 1
        for waiter in waiters:
            if waiter.conversation_id in found:
                waiter.look(found[waiter.conversation_id][waiter.stream])
        return True


def _lasts(database: Database, ids: Collection[int]) -> dict[int, tuple[Reached, Reached]]:
    with database.read() as connection:
        return {
            row.id: (
                Reached(row.last_seq_public, row.last_edit_public),
                Reached(row.last_seq_staff, row.last_edit_staff),
            )
            for row in connection.execute(_LASTS, {"ids": list(ids)})
        }
