"""Listening to Redis: one connection per process, for the channels on which somebody waits.

What is heard is only that something happened on a channel, never what: whoever waits looks into
the database, which knows. So nothing is lost when Redis is: the listener is told when anything may
have been missed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import log
from app.bus import events
from app.bus.connection import TIMEOUT_SECONDS, publish_command

QUIET_SECONDS: Final = 5.0
REST_SECONDS: Final = 0.5
COMMAND_CHANNELS: Final = 200


@dataclass(slots=True)
class _Listening:
    """A channel that is wanted; ``commands`` are the SUBSCRIBEs that Redis has not confirmed."""

    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    commands: int = 0


class Subscriber:
    """Tells ``heard`` on which Channels channel an event came whose name starts with ``prefix``.

    ``heard`` gets None when events may have been missed on all of them; it must neither block nor
    raise. Made, used and closed on one event loop; connects when the first channel is wanted. In a
    Redis Cluster it listens to nothing, since events are on the shards there: whoever waits looks
    into the database now and then, as when Redis is away.
    """

    def __init__(
        self, redis: Redis, app_id: str, prefix: str, heard: Callable[[str | None], None]
    ) -> None:
        self.connected = False
        self._redis = redis
        self._can_listen = publish_command(redis) == "PUBLISH"
        self._channel_prefix = events.redis_channel(app_id, "")
        # the message of events.redis_payload, up to the name
        self._event_prefix = b'{"event":"' + prefix.encode()
        self._heard = heard
        self._wanted: dict[str, _Listening] = {}
        self._commands: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def add(self, channel: str) -> bool:
        """Listen to a channel; returns when Redis does, or with False when it does not answer."""
        if not self._can_listen:
            return False
        listening = self._wanted.get(channel)
        if listening is None:
            listening = self._wanted[channel] = _Listening()
            if self.connected:
                self._ask(listening, channel)
            if self._task is None:
                self._task = asyncio.create_task(self._work(), name="subscriber")
            self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await listening.confirmed.wait()
        return listening.confirmed.is_set()

    def remove(self, channel: str) -> None:
        """Listen no longer."""
        if self._wanted.pop(channel, None) is not None and self.connected:
            self._commands.put_nowait(("UNSUBSCRIBE", channel))

    async def close(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ask(self, listening: _Listening, channel: str) -> None:
        listening.commands += 1
        self._commands.put_nowait(("SUBSCRIBE", channel))

    async def _work(self) -> None:
        failing = False
        while True:
            while not self._wanted:
                self._wake.clear()
                await self._wake.wait()
            pool: Any = self._redis.connection_pool
            connection = pool.make_connection()
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS * 2):
                    await connection.connect()
                failing = False
                await self._serve(connection)
            except (RedisError, OSError, TimeoutError) as error:
                if not failing:  # once per outage
                    log.get("subscriber").warning(
                        "Redis is away; waiting requests look into the database",
                        reason=type(error).__name__,
                    )
                failing = True
            finally:
                was_connected, self.connected = self.connected, False
                for listening in self._wanted.values():
                    listening.confirmed.clear()
                await connection.disconnect(nowait=True)
            if was_connected:
                self._heard(None)
            # spread the processes over time
            await asyncio.sleep(REST_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311  no secret

    async def _serve(self, connection: Any) -> None:
        """Send and read on an open connection until it breaks. Raises what it broke with."""
        self._commands = asyncio.Queue()
        self.connected = True
        for channel, listening in self._wanted.items():
            listening.commands = 0
            self._ask(listening, channel)
        tasks = [
            asyncio.create_task(self._send(connection), name="subscriber-send"),
            asyncio.create_task(self._read(connection), name="subscriber-read"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, connection: Any) -> None:
        while True:
            kind, channel = await self._commands.get()
            channels = [self._channel_prefix + channel]
            # in the order in which they were asked for, for the last word on a channel counts
            while not self._commands.empty() and len(channels) < COMMAND_CHANNELS:
                next_kind, channel = self._commands.get_nowait()
                if next_kind != kind:
                    await connection.send_command(kind, *channels)
                    kind, channels = next_kind, []
                channels.append(self._channel_prefix + channel)
            await connection.send_command(kind, *channels)

    async def _read(self, connection: Any) -> None:
        asked = False
        while True:
            answer = await connection.read_response(
                timeout=QUIET_SECONDS, disconnect_on_error=False, push_request=True
            )
            if answer is None:
                if asked:
                    raise TimeoutError
                # a connection that nobody closed may be dead all the same
                await connection.send_command("PING")
                asked = True
                continue
            asked = False
            if isinstance(answer, list) and len(answer) == 3:
                self._take(answer)

    def _take(self, answer: list[Any]) -> None:
        kind, name, payload = answer
        channel = name.decode().removeprefix(self._channel_prefix)
        if kind == b"message":
            _, _, message = payload.partition(b"\n")
            if message.startswith(self._event_prefix):
                self._heard(channel)
        elif kind == b"subscribe":
            listening = self._wanted.get(channel)
            if listening is not None:
                listening.commands -= 1
                if listening.commands == 0:
                    listening.confirmed.set()
