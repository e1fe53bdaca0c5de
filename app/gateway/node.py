"""One gateway: its listener, its sockets, its Redis subscription, and what it counts."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
from collections import Counter
from random import SystemRandom
from typing import Final

from app import log, serving
from app.config import Settings
from app.gateway import drain, pusher
from app.gateway.channels import Channels, Fanout
from app.gateway.connection import Connection, State
from app.gateway.frames import Violation
from app.gateway.redis_reader import Address, Batch, RedisReader
from app.gateway.sweep import Sweep

LISTEN_BACKLOG: Final = 4096
# Descriptors that are kept for Redis, the control port, logs and refusing the next client.
RESERVED_DESCRIPTORS: Final = 256
RESYNC_SPREAD_SECONDS: Final = 2.0
RESYNC_STEPS: Final = 40


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; gives the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some kernels cap the number below an unlimited hard limit: then the soft one stays.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    log.get("gateway").info("descriptor limit", soft=soft, hard=hard)
    return soft


class Node:
    """A gateway node. Create it anywhere; :meth:`start` it on the loop that it shall run on."""

    def __init__(self, settings: Settings, *, random: SystemRandom | None = None) -> None:
        self.settings = settings
        self.application = pusher.Application(
            settings.pusher_app_id, settings.pusher_key, settings.pusher_secret.encode()
        )
        self.random = random or SystemRandom()
        self.log = log.get("gateway")
        self.connections: set[Connection] = set()
        self.tick = 0
        self.draining = False
        self.listening = False
        self.capacity = 0
        # counters, read by metrics.py
        self.established_count = 0
        self.closed_count = 0
        self.messages = 0
        self.slow_readers = 0
        self.resyncs = 0
        self.refusals: Counter[int] = Counter()
        self.reader = RedisReader(
            Address.parse(settings.redis_url), self, random=self.random.random
        )
        self.channels = Channels(settings.pusher_app_id, self.reader)
        self._server: asyncio.Server | None = None
        self._resync_queue: list[Connection] = []
        self._resync_timer: asyncio.TimerHandle | None = None

    # --- life

    async def start(self) -> None:
        """Listen for WebSockets and connect to Redis.

        Raises :class:`app.serving.StartError` when the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        settings = self.settings
        sock = serving.open_socket(
            settings.gateway_host, settings.gateway_port, "DESKLINE_GATEWAY_PORT"
        )
        self.capacity = max(1, raise_descriptor_limit() - RESERVED_DESCRIPTORS)
        self.fanout = Fanout(self.channels, loop)
        self._sweep = Sweep(self, loop)
        self._sweep.start()
        self.reader.start()
        self._server = await loop.create_server(
            lambda: Connection(self), sock=sock, backlog=LISTEN_BACKLOG
        )
        self.listening = True
        self.log.info("gateway listening", host=settings.gateway_host, port=settings.gateway_port)

    async def drain(self, seconds: float) -> None:
        """Ask all sockets to reconnect elsewhere, over at most ``seconds``."""
        await drain.drain(self, seconds, self.random.shuffle)

    async def stop(self) -> None:
        """Close the listener, cut what is left, leave Redis."""
        if self._server is None:
            return
        self.draining = True
        self.listening = False
        self._server.close()
        self._server = None
        self._sweep.stop()
        self.fanout.stop()
        if self._resync_timer is not None:
            self._resync_timer.cancel()
        for connection in list(self.connections):
            connection.abort()
        await self.reader.stop()
        self.log_counts()
        self.log.info("gateway stopped")

    @property
    def is_ready(self) -> bool:
        """Whether a balancer may send new clients here."""
        return self.listening and not self.draining and self.reader.ever_connected

    # --- called by connections

    @property
    def is_full(self) -> bool:
        """Whether new clients must be told to try elsewhere."""
        return len(self.connections) > self.capacity

    def make_socket_id(self) -> str:
        """A new socket id."""
        return pusher.make_socket_id(secrets.randbelow)

    def opened(self, connection: Connection) -> None:
        """A client has connected (TCP)."""
        self.connections.add(connection)
        if len(self.connections) > self.capacity + RESERVED_DESCRIPTORS // 2:
            self.refusals[pusher.Code.OVER_CAPACITY] += 1
            connection.abort()

    def established(self) -> None:
        """A client's Pusher connection is established."""
        self.established_count += 1

    def refused(self, status: int) -> None:
        """A client got an HTTP answer instead of an upgrade."""
        self.refusals[status] += 1

    def rejected(self, code: pusher.Code) -> None:
        """A client was upgraded, then closed with a Pusher error."""
        self.refusals[code] += 1

    def failed(self, violation: Violation) -> None:
        """A client broke the WebSocket protocol."""
        self.refusals[violation.code] += 1

    def slow_reader(self, connection: Connection) -> None:
        """Too much is unsent for this client: cut it off in the next turn of the loop."""
        self.slow_readers += 1
        self.log.warning("slow reader cut off", socket_id=connection.socket_id)
        asyncio.get_running_loop().call_soon(connection.abort)

    def closed(self, connection: Connection) -> None:
        """A client's connection has ended."""
        self.connections.discard(connection)
        self.closed_count += 1

    # --- called by the Redis reader

    def topics(self) -> list[bytes]:
        """The Redis channels that have sockets here."""
        return self.channels.topics()

    def received(self, batch: Batch) -> None:
        """Events for the sockets."""
        self.fanout.receive(batch)

    def confirmed(self, topic: bytes) -> None:
        """A channel's events flow from now on."""
        self.channels.confirm(topic)

    def interrupted(self) -> None:
        """Redis is away: who subscribes now waits until it is back."""
        self.channels.interrupt()

    def restored(self) -> None:
        """Tell all who are in a channel to ask for what they missed, spread over some time."""
        concerned = [
            connection
            for connection in self.connections
            if connection.session is not None and connection.session.channels
        ]
        if not concerned:
            return
        self.random.shuffle(concerned)
        self.log.info("resync", sockets=len(concerned), spread_seconds=RESYNC_SPREAD_SECONDS)
        self._resync_queue = concerned
        if self._resync_timer is not None:
            self._resync_timer.cancel()
        self._resync_step(max(1, -(-len(concerned) // RESYNC_STEPS)))

    def _resync_step(self, count: int) -> None:
        self._resync_timer = None
        now, self._resync_queue = self._resync_queue[:count], self._resync_queue[count:]
        for connection in now:
            if connection.state is State.OPEN:
                connection.send(pusher.RESYNC)
                self.resyncs += 1
        if self._resync_queue:
            self._resync_timer = asyncio.get_running_loop().call_later(
                RESYNC_SPREAD_SECONDS / RESYNC_STEPS, self._resync_step, count
            )

    def log_counts(self) -> None:
        """One line with the node's numbers."""
        self.log.info(
            "gateway counts",
            connections=len(self.connections),
            channels=len(self.channels),
            established=self.established_count,
            closed=self.closed_count,
            refused=sum(self.refusals.values()),
            slow_readers=self.slow_readers,
            events=self.fanout.events,
            deliveries=self.fanout.deliveries,
        )
