"""What the Python peers have in common: signatures, channels, the Redis subscription.

So only the WebSocket side differs. Redis is read with a raw ``hiredis.Reader``, as the gateway
does: redis-py's pub/sub reader would make every peer a good deal slower.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import hiredis
import orjson

BACKLOG = 4096


@dataclass(frozen=True)
class Arguments:
    """PORT REDIS_PORT KEY SECRET TOPIC_PREFIX of the command line."""

    port: int
    redis_port: int
    key: str
    secret: str
    prefix: str

    @classmethod
    def read(cls) -> Arguments:
        """Those of this process; raises its descriptor limit as well."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        port, redis_port, key, secret, prefix = sys.argv[1:6]
        return cls(int(port), int(redis_port), key, secret, prefix)


class Hub(asyncio.Protocol):
    """The connection to Redis and the channels.

    ``deliver(members, text)`` is called for every event; ``members`` are what was given to
    :meth:`receive`.
    """

    def __init__(self, arguments: Arguments, deliver: Callable[[set[Any], bytes], None]) -> None:
        self._arguments = arguments
        self._deliver = deliver
        self._reader = hiredis.Reader()
        self._members: dict[str, set[Any]] = {}
        self._waiting: dict[str, list[Callable[[str], None]]] = {}
        self._channel_of: dict[Any, str] = {}
        self._ids = count(1)

    async def start(self) -> None:
        """Connect to Redis."""
        await asyncio.get_running_loop().create_connection(
            lambda: self, "127.0.0.1", self._arguments.redis_port
        )

    def greet(self) -> tuple[str, str]:
        """A new socket id and the first message of its connection."""
        socket_id = f"1.{next(self._ids)}"
        data = orjson.dumps({"socket_id": socket_id, "activity_timeout": 120}).decode()
        event = {"event": "pusher:connection_established", "data": data}
        return socket_id, orjson.dumps(event).decode()

    def receive(
        self, member: Any, socket_id: str, text: str | bytes, tell: Callable[[str], None]
    ) -> None:
        """A client's message; ``tell`` sends it a text."""
        message = orjson.loads(text)
        if message["event"] != "pusher:subscribe":
            return
        channel, auth = message["data"]["channel"], message["data"]["auth"]
        digest = hmac.new(
            self._arguments.secret.encode(), f"{socket_id}:{channel}".encode(), hashlib.sha256
        ).hexdigest()
        if not hmac.compare_digest(auth, f"{self._arguments.key}:{digest}"):
            return
        self._channel_of[member] = channel
        members = self._members.get(channel)
        if members is None:
            self._members[channel] = {member}
            self._waiting[channel] = [tell]
            self._ask(b"SUBSCRIBE", channel)
            return
        members.add(member)
        if channel in self._waiting:
            self._waiting[channel].append(tell)
        else:
            tell(_succeeded(channel))

    def leave(self, member: Any) -> None:
        """A client is gone."""
        channel = self._channel_of.pop(member, None)
        if channel is None:
            return
        members = self._members[channel]
        members.discard(member)
        if not members:
            del self._members[channel]
            self._waiting.pop(channel, None)
            self._ask(b"UNSUBSCRIBE", channel)

    def _ask(self, command: bytes, channel: str) -> None:
        topic = f"{self._arguments.prefix}{channel}".encode()
        self._redis.write(
            b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(command), command, len(topic), topic)
        )

    # --- called by the transport

    def connection_made(self, transport: Any) -> None:
        """Connected to Redis."""
        self._redis = transport

    def data_received(self, data: bytes) -> None:
        """Events and confirmations."""
        self._reader.feed(data)
        skip = len(self._arguments.prefix)
        while (reply := self._reader.gets()) is not False:
            channel = reply[1][skip:].decode()
            if reply[0] == b"message":
                members = self._members.get(channel)
                if members:
                    self._deliver(members, reply[2].partition(b"\n")[2])
            elif reply[0] == b"subscribe":
                for tell in self._waiting.pop(channel, ()):
                    tell(_succeeded(channel))

    def connection_lost(self, exc: Exception | None) -> None:
        """Without Redis there is nothing to measure."""
        raise SystemExit(f"Redis is gone: {exc}")


def _succeeded(channel: str) -> str:
    event = {
        "event": "pusher_internal:subscription_succeeded",
        "channel": channel,
        "data": "{}",
    }
    return orjson.dumps(event).decode()
