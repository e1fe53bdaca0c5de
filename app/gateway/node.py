"""One gateway: its listener, its sockets, its Redis subscription, and what it counts."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections import Counter
from random import SystemRandom
from typing import Final

from app import log, serving
from app.bus import events
from app.bus.connection import is_cluster
from app.config import Settings
from app.gateway import applications, drain, pusher
from app.gateway.applications import Application, Applications
from app.gateway.cache import Newcomer
from app.gateway.channels import Channels, Fanout
from app.gateway.cluster import Cluster
from app.gateway.commands import Commands, Then, connect
from app.gateway.connection import Connection, State
from app.gateway.frames import Request, Violation
from app.gateway.garbage import Garbage
from app.gateway.presence import Presence
from app.gateway.pulse import Pulse
from app.gateway.pusher import Code, Rejection
from app.gateway.redis_reader import Address, Batch, Concerns, RedisReader
from app.gateway.sharded_reader import ShardedReader
from app.gateway.sweep import Sweep
from app.proxies import client_address, client_network, is_trusted

# After a balancer or a gateway has failed everybody comes at once; net.core.somaxconn bounds it.
LISTEN_BACKLOG: Final = 16_384
# Descriptors that are kept for Redis, the control port, logs and refusing the next client.
RESERVED_DESCRIPTORS: Final = 256
# Below it the start says how to get more.
SMALL_DESCRIPTOR_LIMIT: Final = 65_536
RESYNC_SPREAD_SECONDS: Final = 2.0
RESYNC_STEPS: Final = 40
# Closing thousands of sockets in one turn of the loop would hold up all the others.
CLOSED_AT_ONCE: Final = 200
CLOSE_INTERVAL_SECONDS: Final = 0.02


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; gives the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some kernels cap the number below an unlimited hard limit: then the soft one stays.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    logger = log.get("gateway")
    logger.info("descriptor limit", soft=soft, hard=hard)
    if soft < SMALL_DESCRIPTOR_LIMIT:
        logger.warning(
            "few sockets are possible",
            sockets=max(1, soft - RESERVED_DESCRIPTORS),
            advice="raise the process's hard limit of open files: LimitNOFILE= in its unit, "
            "or ulimit -Hn before the start",
        )
    return soft


class Node:
    """A gateway node. Create it anywhere; :meth:`start` it on the loop that it shall run on.

    Raises :class:`app.config.ConfigError` when the file of applications is wrong.
    """

    def __init__(self, settings: Settings, *, random: SystemRandom | None = None) -> None:
        self.settings = settings
        self.applications = applications.load(settings)
        # sockets of each application and, where that is limited, of each address
        self.sockets: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        # who has to authorize until which tick, of applications that ask for it, oldest first
        self._unauthorized: dict[int, list[Connection]] = {}
        self.random = random or SystemRandom()
        self._random_below = pusher.random_below()
        self.clock = time.time
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
        self.client_events = 0
        self.slow_readers = 0
        self.resyncs = 0
        self.refusals: Counter[int] = Counter()
        cluster = is_cluster(settings.redis_url)
        self.publish_command = b"SPUBLISH" if cluster else b"PUBLISH"
        self.reader: RedisReader | ShardedReader = (ShardedReader if cluster else RedisReader)(
            Address.parse(settings.redis_url), self, random=self.random.random
        )
        self.channels = Channels(self.reader)
        self.commands = Commands()
        self.cluster = Cluster(self)
        self.presence = Presence(self)
        self.pulse = Pulse(self)
        # set by a process that is nothing but a gateway
        self.garbage: Garbage | None = None
        # those who wait for the last event of a cache channel
        self._newcomers: dict[tuple[bytes, str, Connection], Newcomer] = {}
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
        self.fanout = Fanout(self.channels, loop, self.cluster.receive, self.presence.change)
        self.redis = connect(settings.redis_url)
        self.commands.start(self.redis)
        self._sweep = Sweep(self, loop)
        self._sweep.start()
        self.pulse.start()
        self.reader.start()
        self._server = await loop.create_server(
            lambda: Connection(self), sock=sock, backlog=LISTEN_BACKLOG
        )
        self.listening = True
        self.log.info("gateway listening", host=settings.gateway_host, port=settings.gateway_port)

    async def drain(self, seconds: float) -> None:
        """Ask all sockets to reconnect elsewhere, over at most ``seconds``."""
        await drain.drain(self, seconds, self.settings.gateway_drain_per_second, self.random)

    def reload(self, applications: Applications) -> None:
        """Replace the applications (:func:`app.gateway.applications.load`).

        The sockets of one that is gone or disabled are closed with 4001 or 4003; the others stay
        and fall under the new limits with the next thing that they do.
        """
        before = set(self.cluster.topics())
        self.applications = applications
        after = set(self.cluster.topics())
        for topic in before - after:
            self.reader.unsubscribe(topic)
        for topic in after - before:
            self.reader.subscribe(topic)
        unwanted = []
        for connection in self.connections:
            session = connection.session
            if session is None:
                continue
            application = applications.by_id.get(session.application.id)
            if application is not None and application.enabled:
                session.application = application
            else:
                unwanted.append(connection)
        self.log.info(
            "applications reloaded", applications=len(applications.by_id), closing=len(unwanted)
        )
        self._close_unwanted(unwanted)

    def _close_unwanted(self, connections: list[Connection]) -> None:
        """Close the sockets of applications that are gone or disabled, some in each turn."""
        now, later = connections[:CLOSED_AT_ONCE], connections[CLOSED_AT_ONCE:]
        for connection in now:
            if connection.session is None or connection.state is not State.OPEN:
                continue
            application = self.applications.by_id.get(connection.session.application.id)
            if application is None:
                connection.close(Code.NO_SUCH_APPLICATION, "This application was removed")
            elif not application.enabled:
                connection.close(Code.APPLICATION_DISABLED, "This application is disabled")
        if later:
            loop = asyncio.get_running_loop()
            loop.call_later(CLOSE_INTERVAL_SECONDS, self._close_unwanted, later)

    async def stop(self) -> None:
        """Close the listener, cut what is left, leave Redis."""
        if self._server is None:
            return
        self.draining = True
        self.listening = False
        self._server.close()
        self._server = None
        self._sweep.stop()
        self.pulse.stop()
        self.fanout.stop()
        if self._resync_timer is not None:
            self._resync_timer.cancel()
        for connection in list(self.connections):
            connection.abort()
        await self.reader.stop()
        await self.commands.stop()
        await self.redis.aclose()
        self.log_counts()
        self.log.info("gateway stopped")

    @property
    def is_ready(self) -> bool:
        """Whether a balancer may send new clients here."""
        return self.listening and not self.draining and self.reader.ever_connected

    # --- called by connections

    def admit(self, connection: Connection, request: Request) -> Application | Rejection:
        """The application that a new WebSocket may use, or why it may not be used."""
        found = pusher.check_connect(
            self.applications, request.path, request.query, request.headers.get("origin", "")
        )
        if isinstance(found, Rejection):
            return found
        if found.tls_only and not self._came_by_tls(connection, request):
            return Rejection(Code.TLS_ONLY, "This application takes TLS only: use wss://")
        if len(self.connections) > self.capacity:
            return Rejection(Code.OVER_CAPACITY, "This gateway is full")
        if found.max_connections and self.sockets[found.id] >= found.max_connections:
            return Rejection(Code.OVER_QUOTA, "This application has all sockets that it may have")
        if found.max_connections_per_address:
            place = self._place(connection, request, found)
            if self.places[place] >= found.max_connections_per_address:
                return Rejection(Code.OVER_CAPACITY, "Too many sockets from this address")
            connection.place = place
        return found

    def _place(self, connection: Connection, request: Request, application: Application) -> str:
        """What the sockets of one address are counted under; the same object for all of them."""
        forwarded = request.headers.get("x-forwarded-for")
        address = client_address(connection.peer, forwarded, self.settings.trusted_proxies)
        return sys.intern(f"{application.id} {client_network(address)}")

    def _came_by_tls(self, connection: Connection, request: Request) -> bool:
        """The gateway speaks no TLS itself: a trusted proxy must say that it did."""
        return request.headers.get("x-forwarded-proto") == "https" and is_trusted(
            connection.peer, self.settings.trusted_proxies
        )

    def make_socket_id(self) -> str:
        """A new socket id."""
        return pusher.make_socket_id(self._random_below)

    def join_cache_channel(self, prefix: bytes, name: str, connection: Connection) -> None:
        """Put a socket into a cache channel, with the channel's last event first."""
        key = prefix, name, connection
        application_id = prefix.split(b":")[2].decode()

        def read(answer: Then) -> None:
            self.commands.send(b"GET", events.cache_key(application_id, name).encode(), then=answer)

        def tell(last: bytes | None) -> None:
            self.channels.replace(prefix, name, self._newcomers.pop(key), connection)
            connection.subscribed(name)
            if last is None:
                connection.send(pusher.cache_miss(name))
            else:
                connection.writer.write(last)

        newcomer = self._newcomers[key] = Newcomer(connection, read, tell)
        self.channels.join(prefix, name, newcomer)

    def leave(self, prefix: bytes, name: str, connection: Connection) -> None:
        """Take a socket out of a channel."""
        if pusher.is_presence(name):
            self.presence.leave(prefix, name, connection)
            return
        if self._newcomers:
            newcomer = self._newcomers.pop((prefix, name, connection), None)
            if newcomer is not None:
                newcomer.cancel()
                self.channels.leave(prefix, name, newcomer)
                return
        self.channels.leave(prefix, name, connection)

    def publish(self, prefix: bytes, channel: str, socket_id: str, message: bytes) -> None:
        """Give a client's event to all nodes. It is lost while Redis is away."""
        self.client_events += 1
        self.commands.send(
            self.publish_command,
            prefix + channel.encode(),
            b"%b\n%b" % (socket_id.encode(), message),
        )

    def opened(self, connection: Connection) -> None:
        """A client has connected (TCP)."""
        self.connections.add(connection)
        if len(self.connections) > self.capacity + RESERVED_DESCRIPTORS // 2:
            self.refusals[Code.OVER_CAPACITY] += 1
            connection.abort()

    def established(self, connection: Connection, application: Application) -> None:
        """A client's Pusher connection is established."""
        self.established_count += 1
        self.sockets[application.id] += 1
        if connection.place:
            self.places[connection.place] += 1
        if application.authorize_seconds:
            deadline = self.tick + application.authorize_seconds
            self._unauthorized.setdefault(deadline, []).append(connection)

    def close_unauthorized(self) -> None:
        """Close those whose time to authorize is over in this tick."""
        for connection in self._unauthorized.pop(self.tick, ()):
            session = connection.session
            if session is not None and not session.authorized:
                connection.close(Code.UNAUTHORIZED, "Connection not authorized within the time")

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
        asyncio.get_running_loop().call_soon(connection.cut_off)

    def closed(self, connection: Connection) -> None:
        """A client's connection has ended."""
        self.connections.discard(connection)
        self.closed_count += 1
        if connection.session is not None:
            _count_down(self.sockets, connection.session.application.id)
            if connection.place:
                _count_down(self.places, connection.place)

    # --- called by the Redis reader

    def topics(self) -> list[bytes]:
        """The Redis channels that have sockets here, and those that the nodes talk on."""
        return self.cluster.topics() + self.channels.topics()

    def received(self, batch: Batch) -> None:
        """Events for the sockets."""
        self.fanout.receive(batch)

    def confirmed(self, topic: bytes) -> None:
        """A channel's events flow from now on."""
        self.channels.confirm(topic)
        self.presence.confirmed(topic)

    def interrupted(self, concerns: Concerns | None = None) -> None:
        """Redis is away, or the shard of the topics that ``concerns`` knows: who subscribes to
        them now waits until it is back."""
        self.channels.interrupt(concerns)
        self.cluster.interrupted()
        self.presence.interrupted(concerns)

    def restored(self, concerns: Concerns | None = None) -> None:
        """Tell all who are in a channel to ask for what they missed, spread over some time."""
        self.cluster.restored()
        concerned = [
            connection
            for connection in self.connections
            if connection.session is not None
            and connection.session.channels
            and (concerns is None or any(map(concerns, connection.session.topics())))
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

    def each_second(self) -> None:
        """What the sweep's timer does besides the sockets."""
        self.presence.tick()
        self.pulse.tick()
        if self.garbage is not None:
            self.garbage.tick(len(self.connections))

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


def _count_down(counter: Counter[str], name: str) -> None:
    """One less; a name with none left is forgotten, so that the counter does not grow for ever."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
