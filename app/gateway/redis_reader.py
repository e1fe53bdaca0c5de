"""The Redis subscription: a raw ``hiredis.Reader`` fed by an ``asyncio.Protocol``.

redis-py's own pub/sub reader costs more per event than all of the WebSocket side, and it
re-subscribes after an interruption without telling anybody that something was missed. Here an
interruption is told: the listener gets ``interrupted``, then, when every topic is subscribed
again, ``restored``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote, urlsplit

import hiredis

from app import log
from app.bus import connection

CONNECT_TIMEOUT_SECONDS: Final = 5.0
PING_INTERVAL_SECONDS: Final = 5.0
SILENCE_LIMIT_SECONDS: Final = 15.0
FIRST_RETRY_SECONDS: Final = 0.1
MAX_RETRY_SECONDS: Final = 5.0
WRITE_DELAY_SECONDS: Final = 0.001
_TOPICS_PER_COMMAND: Final = 500

Batch = list[tuple[bytes, bytes]]
# Whether a topic is among those that something happened to.
Concerns = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Verbs:
    """The words of a kind of pub/sub: the two commands, and what Redis calls its answers.

    In Redis Cluster the topics of one command must be of one slot, so that there is one a command.
    """

    subscribe: bytes
    unsubscribe: bytes
    subscribed: bytes
    unsubscribed: bytes
    message: bytes
    topics_per_command: int


PLAIN: Final = Verbs(
    b"SUBSCRIBE", b"UNSUBSCRIBE", b"subscribe", b"unsubscribe", b"message", _TOPICS_PER_COMMAND
)
SHARDED: Final = Verbs(
    b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"ssubscribe", b"sunsubscribe", b"smessage", 1
)


class RedisError(Exception):
    """Redis cannot be used as it is set up; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is and who we are there."""

    host: str
    port: int
    username: str
    password: str
    tls: bool

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``redis://[USER:PASSWORD@]HOST[:PORT][/DB]``; pub/sub knows no database number.

        ``redis+cluster://`` is a node of a Redis Cluster.

        ``rediss://`` is TLS. ValueError for another scheme: ``embedded://`` must have been
        replaced by the address of the Redis that was started for it.
        """
        parts = urlsplit(connection.plain(url))
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError("the gateway needs a redis:// or rediss:// address")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            tls=parts.scheme == "rediss",
        )


def command(*words: bytes) -> bytes:
    """One command as Redis reads it (RESP, array of bulk strings)."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def commands(name: bytes, topics: Iterable[bytes], a_command: int = _TOPICS_PER_COMMAND) -> bytes:
    """``name`` for all topics, some hundred to a command."""
    listed = list(topics)
    return b"".join(
        command(name, *listed[start : start + a_command])
        for start in range(0, len(listed), a_command)
    )


class _Stream(asyncio.Protocol):
    """One connection to Redis."""

    def __init__(self, owner: RedisReader) -> None:
        self._owner = owner
        self._verbs = owner.verbs
        self._reader = hiredis.Reader()
        self.transport: asyncio.WriteTransport | None = None
        self.greeting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.pending: Counter[bytes] = Counter()
        self.leaving: Counter[bytes] = Counter()
        self.heard = 0.0
        self._reason = "Redis closed the connection"
        self._unsent: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        batch: Batch = []
        message, subscribed = self._verbs.message, self._verbs.subscribed
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, list):
                    kind = reply[0]
                    if kind == message:
                        batch.append((reply[1], reply[2]))
                    elif kind == subscribed:
                        # in order: what came before the confirmation goes out before it
                        self._confirm(reply[1])
                    elif kind == self._verbs.unsubscribed:
                        self._owner.unsubscribed(reply[1])
                else:
                    self._reply(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"Redis sent what is not its protocol ({error})")
        if batch:
            self._owner.received(batch)

    def _confirm(self, topic: bytes) -> None:
        if self.pending[topic] > 1:
            self.pending[topic] -= 1  # left and joined again: an older answer means nothing
            return
        del self.pending[topic]
        self._owner.confirmed(topic)

    def _reply(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            text = f"Redis refused: {reply}"
            if not self.greeting.done():
                self.greeting.set_exception(RedisError(text))
            else:
                self.abort(text)
        elif reply == b"PONG" and not self.greeting.done():
            self.greeting.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else self._reason
        if not self.closed.done():
            self.closed.set_result(reason)
        if not self.greeting.done():
            self.greeting.set_exception(RedisError(reason))

    def write(self, data: bytes) -> None:
        """Send in WRITE_DELAY_SECONDS, together with what else there is till then.

        When thousands of sockets subscribe, a system call for each (which wakes Redis as well)
        would be a tenth of their cost. No event waits for this, only a subscription.
        """
        if not self._unsent:
            asyncio.get_running_loop().call_later(WRITE_DELAY_SECONDS, self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self, reason: str) -> None:
        self._reason = reason
        if self.transport is not None:
            self.transport.abort()


class Listener(Protocol):
    """Who the reader works for."""

    def topics(self) -> list[bytes]:
        """All topics that are wanted now; asked after each connect."""

    def received(self, batch: Batch) -> None:
        """The (topic, payload) pairs that one read brought, in their order."""

    def confirmed(self, topic: bytes) -> None:
        """The events of ``topic`` flow from now on."""

    def interrupted(self, concerns: Concerns | None = None) -> None:
        """No events flow any more, and some may be lost; of all topics or of ``concerns``."""

    def restored(self, concerns: Concerns | None = None) -> None:
        """The events of all wanted topics, or ``concerns``, flow (also after the first connect)."""


class RedisReader:
    """Keeps one subscribed connection to Redis, for ever. ``random`` gives 0.0 to 1.0."""

    def __init__(
        self,
        address: Address,
        listener: Listener,
        *,
        random: Callable[[], float],
        verbs: Verbs = PLAIN,
    ) -> None:
        self.verbs = verbs
        self._address = address
        self._listener = listener
        self._random = random
        self._stream: _Stream | None = None
        self._missing: set[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = log.get("gateway.redis")
        self.ever_connected = False
        self.reconnects = 0

    @property
    def is_up(self) -> bool:
        """Whether there is an authenticated connection now."""
        return self._stream is not None

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="redis-reader")

    async def stop(self) -> None:
        """Close the connection and end the background task."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def subscribe(self, topic: bytes) -> None:
        """Ask for the events of ``topic``. While Redis is away, reconnecting will do it."""
        if self._stream is not None:
            self._stream.pending[topic] += 1
            self._stream.write(command(self.verbs.subscribe, topic))

    def unsubscribe(self, topic: bytes) -> None:
        """Give up the events of ``topic``."""
        if self._missing is not None:
            self._missing.discard(topic)
        if self._stream is not None:
            self._stream.leaving[topic] += 1
            self._stream.write(command(self.verbs.unsubscribe, topic))
            self._check_restored()

    def received(self, batch: Batch) -> None:
        """One read has brought ``batch``."""
        self._listener.received(batch)

    def confirmed(self, topic: bytes) -> None:
        """Redis has answered the (last) SUBSCRIBE to ``topic``."""
        self._listener.confirmed(topic)
        if self._missing is not None:
            self._missing.discard(topic)
            self._check_restored()

    def unsubscribed(self, topic: bytes) -> None:
        """Redis sends the events of ``topic`` no longer."""
        stream = self._stream
        if stream is None:
            return
        if stream.leaving[topic]:
            stream.leaving[topic] -= 1
            if not stream.leaving[topic]:
                del stream.leaving[topic]
        else:
            stream.abort("the slot has moved to another shard")

    def _check_restored(self) -> None:
        if self._missing is not None and not self._missing:
            self._missing = None
            self._listener.restored()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_RETRY_SECONDS
        failed = ""
        while True:
            try:
                stream = await self._connect()
            except (OSError, TimeoutError, RedisError) as error:
                text = str(error) or type(error).__name__
                if text != failed:
                    self._log.warning("redis unreachable", address=repr(self._address), error=text)
                failed = text
            else:
                failed = ""
                began = loop.time()
                try:
                    reason = await self._serve(stream)
                finally:
                    self._stream = None
                    self._missing = None
                    stream.abort("the gateway stops")
                self._log.warning("redis down", address=repr(self._address), reason=reason)
                self._listener.interrupted()
                # a connection that never lasts (no right to subscribe) must not spin
                if loop.time() - began > MAX_RETRY_SECONDS:
                    delay = FIRST_RETRY_SECONDS
            # jitter: the gateways must not come back all at the same moment
            await asyncio.sleep(delay * (0.5 + self._random() / 2))
            delay = min(delay * 2, MAX_RETRY_SECONDS)

    async def _connect(self) -> _Stream:
        loop = asyncio.get_running_loop()
        address = self._address
        stream = _Stream(self)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await loop.create_connection(
                    lambda: stream,
                    address.host,
                    address.port,
                    ssl=ssl.create_default_context() if address.tls else None,
                )
                if address.password:
                    words = [address.username, address.password] if address.username else []
                    login = words or [address.password]
                    stream.write(command(b"AUTH", *(word.encode() for word in login)))
                stream.write(command(b"PING"))
                await stream.greeting
        except BaseException:
            stream.abort("the connection could not be set up")
            stream.greeting.cancel()
            raise
        return stream

    async def _serve(self, stream: _Stream) -> str:
        """Subscribe to everything, then watch until the connection ends; gives the reason."""
        loop = asyncio.get_running_loop()
        self._stream = stream
        self.reconnects += self.ever_connected
        self.ever_connected = True
        wanted = self._listener.topics()
        self._log.info("redis up", address=repr(self._address), topics=len(wanted))
        self._missing = set(wanted)
        stream.pending.update(wanted)
        stream.write(commands(self.verbs.subscribe, wanted, self.verbs.topics_per_command))
        self._check_restored()
        while True:
            done, _ = await asyncio.wait({stream.closed}, timeout=PING_INTERVAL_SECONDS)
            if done:
                return stream.closed.result()
            if loop.time() - stream.heard > SILENCE_LIMIT_SECONDS:
                stream.abort("Redis is silent")
            else:
                stream.write(command(b"PING"))
