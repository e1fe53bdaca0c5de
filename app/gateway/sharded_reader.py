"""The subscription in Redis Cluster: sharded pub/sub, one connection to each primary.

A message published with ``SPUBLISH`` stays on the shard that has its channel's slot, where plain
``PUBLISH`` would go to every node of the cluster. Public source:
https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub and
https://redis.io/docs/latest/commands/cluster-slots/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from app import log
from app.gateway.redis_reader import (
    FIRST_RETRY_SECONDS,
    MAX_RETRY_SECONDS,
    SHARDED,
    Address,
    Batch,
    Concerns,
    Listener,
    RedisReader,
)

# Slots move when an operator moves them and at a fail-over; a broken connection asks at once.
LOOK_INTERVAL_SECONDS: Final = 10.0
TIMEOUT_SECONDS: Final = 3.0

# (first slot, last slot, address), in their order
Slots = list[tuple[int, int, Address]]


class _Shard:
    """Passes on what the connection to one primary brings; the listener of its reader."""

    def __init__(self, owner: ShardedReader, address: Address) -> None:
        self._owner = owner
        self.address = address
        self.reader = RedisReader(address, self, random=owner.random, verbs=SHARDED)

    def has(self, topic: bytes) -> bool:
        """Whether the slot of ``topic`` is on this shard."""
        return self._owner.shard_of(topic) is self

    def topics(self) -> list[bytes]:
        """Those of all wanted topics that are here."""
        return [topic for topic in self._owner.listener.topics() if self.has(topic)]

    def received(self, batch: Batch) -> None:
        """Events."""
        self._owner.listener.received(batch)

    def confirmed(self, topic: bytes) -> None:
        """The events of ``topic`` flow."""
        self._owner.listener.confirmed(topic)

    def interrupted(self, _concerns: Concerns | None = None) -> None:
        """Of this shard no events flow any more; perhaps because its slots are elsewhere now."""
        self._owner.listener.interrupted(self.has)
        self._owner.look()

    def restored(self, _concerns: Concerns | None = None) -> None:
        """The events of this shard flow again."""
        self._owner.listener.restored(self.has)


class ShardedReader:
    """Does what a RedisReader does, on all shards. ``random`` gives 0.0 to 1.0."""

    def __init__(
        self, address: Address, listener: Listener, *, random: Callable[[], float]
    ) -> None:
        self.listener = listener
        self.random = random
        self._address = address
        self._slots: Slots = []
        self._owners: list[_Shard] = []
        self._shards: dict[Address, _Shard] = {}
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = log.get("gateway.redis")
        self._replaced = 0

    @property
    def is_up(self) -> bool:
        """Whether every shard is connected."""
        return bool(self._shards) and all(each.reader.is_up for each in self._shards.values())

    @property
    def ever_connected(self) -> bool:
        """Whether every shard was reached at least once."""
        return bool(self._shards) and all(
            shard.reader.ever_connected for shard in self._shards.values()
        )

    @property
    def reconnects(self) -> int:
        """How often a shard was reached again."""
        return self._replaced + sum(shard.reader.reconnects for shard in self._shards.values())

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="redis-shards")

    async def stop(self) -> None:
        """Close the connections and end the background task."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for shard in self._shards.values():
            await shard.reader.stop()

    def look(self) -> None:
        """Ask the cluster soon where the slots are."""
        self._look.set()

    def shard_of(self, topic: bytes) -> _Shard | None:
        """The shard that has the slot of a topic; None while the cluster is not known."""
        return self._owners[key_slot(topic)] if self._owners else None

    def subscribe(self, topic: bytes) -> None:
        """Ask for the events of ``topic``. While its shard is away, reconnecting will do it."""
        shard = self.shard_of(topic)
        if shard is not None:
            shard.reader.subscribe(topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Give up the events of ``topic``."""
        shard = self.shard_of(topic)
        if shard is not None:
            shard.reader.unsubscribe(topic)

    async def _run(self) -> None:
        delay, failed = FIRST_RETRY_SECONDS, ""
        while True:
            self._look.clear()
            try:
                slots = await self._ask()
            except (RedisError, OSError, TimeoutError, ValueError) as error:
                text = str(error) or type(error).__name__
                if text != failed:
                    self._log.warning("redis cluster unreachable", error=text)
                failed = text
                await asyncio.sleep(delay * (0.5 + self.random() / 2))
                delay = min(delay * 2, MAX_RETRY_SECONDS)
                continue
            delay, failed = FIRST_RETRY_SECONDS, ""
            if slots != self._slots:
                await self._arrange(slots)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_SECONDS):
                    await self._look.wait()
                    # a fail-over takes a moment; and what is broken must not be asked in a loop
                    await asyncio.sleep(0.5 + self.random() / 2)

    async def _ask(self) -> Slots:
        """Where the slots are, from the first node that knows. Raises what the last one raised."""
        error: Exception = RedisError("no node of the cluster is known")
        for address in (self._address, *self._shards):
            try:
                return await self._ask_one(address)
            except (RedisError, OSError, TimeoutError, ValueError) as failure:
                error = failure
        raise error

    async def _ask_one(self, address: Address) -> Slots:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            Redis(
                host=address.host,
                port=address.port,
                username=address.username or None,
                password=address.password or None,
                ssl=address.tls,
                socket_connect_timeout=TIMEOUT_SECONDS,
                socket_timeout=TIMEOUT_SECONDS,
            ) as client,
        ):
            command: Any = client.execute_command
            answer = await command("CLUSTER", "SLOTS")
        slots: Slots = []
        for first, last, primary, *_ in sorted(answer, key=lambda entry: int(entry[0])):
            # a node that knows no name for itself is the one that was asked
            host = primary[0].decode() if primary[0] else address.host
            slots.append((first, last, replace(address, host=host, port=primary[1])))
        if sum(last - first + 1 for first, last, _ in slots) != 16_384:
            raise ValueError("the cluster does not have all its slots")
        return slots

    async def _arrange(self, slots: Slots) -> None:
        """Connect to the primaries of ``slots``; whoever subscribes meanwhile waits."""
        before, self._shards = self._shards, {}
        self._slots, self._owners = slots, []
        for old in before.values():
            self._replaced += old.reader.reconnects + 1
            await old.reader.stop()
        if before:
            self.listener.interrupted()
        for first, last, address in slots:
            shard = self._shards.get(address)
            if shard is None:
                shard = self._shards[address] = _Shard(self, address)
            self._owners += [shard] * (last - first + 1)
        self._log.info("redis cluster", shards=len(self._shards))
        for shard in self._shards.values():
            shard.reader.start()
