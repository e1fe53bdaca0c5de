"""Events in the form that the gateway forwards without looking inside.

The message format is that of the Pusher Channels protocol 7: a JSON object whose ``data`` is
itself JSON text. On Redis stands the socket to leave out, a newline, and that message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from app import clock

# The last event of these channels is kept for those who subscribe later.
CACHE_PREFIXES: Final = ("cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-")
CACHE_SECONDS: Final = 1800
# What the gateways tell each other and are told by the other processes; no client can subscribe.
CONTROL_CHANNEL: Final = "#control"
CONTROL_SECONDS: Final = 3600
_TOPIC_PREFIX: Final = "deskline:ch:"


@dataclass(frozen=True, slots=True)
class Event:
    """A ready-made message for one channel; ``message`` is the JSON text."""

    channel: str
    message: str


def make(channel: str, name: str, data: dict[str, Any]) -> Event:
    """The event ``name`` with ``data`` for the Channels channel ``channel``."""
    inner = orjson.dumps(data).decode()
    return Event(channel, orjson.dumps({"event": name, "channel": channel, "data": inner}).decode())


def redis_channel(app_id: str, channel: str) -> str:
    """The Redis channel that carries a Channels channel."""
    return f"{_TOPIC_PREFIX}{app_id}:{channel}"


def redis_payload(event: Event, socket_id: str = "") -> bytes:
    """What is published: the socket to leave out (or nothing), a newline, the message."""
    return f"{socket_id}\n{event.message}".encode()


def access_changed(owner: str) -> Event:
    """Tells all gateways to close the sockets of ``owner``, who may no longer hear everything.

    Its clients reconnect at once and are refused what they lost. ``owner`` is what the signed
    channel data of a subscription names, as ``user.7``.
    """
    return Event(CONTROL_CHANNEL, orjson.dumps({"do": "reauthorize", "owner": owner}).decode())


def commands(topic: str, payload: bytes, publish: str = "PUBLISH") -> list[tuple[str | bytes, ...]]:
    """The Redis commands that publish ``payload`` on a :func:`redis_channel`; the last of them is
    ``publish`` (:func:`app.bus.connection.publish_command`).

    What somebody may ask for who was not listening is kept before it is published, so that it is
    heard twice rather than never: the last event of a cache channel, and for an hour the control
    messages, for gateways that were cut off.
    """
    made: list[tuple[str | bytes, ...]] = [(publish, topic, payload)]
    app_id, _, channel = topic.removeprefix(_TOPIC_PREFIX).partition(":")
    message = payload.partition(b"\n")[2]
    if channel.startswith(CACHE_PREFIXES):
        made.insert(0, ("SET", cache_key(app_id, channel), message, "EX", str(CACHE_SECONDS)))
    elif channel == CONTROL_CHANNEL:
        key, now = control_key(app_id), clock.now_source().timestamp()
        made = [
            ("ZADD", key, str(now), message),
            ("ZREMRANGEBYSCORE", key, "-inf", str(now - CONTROL_SECONDS)),
            ("EXPIRE", key, str(CONTROL_SECONDS)),
            *made,
        ]
    return made


def control_key(app_id: str) -> str:
    """Where the control messages of the last hour are kept, by Unix time."""
    return f"deskline:control:{app_id}"


def cache_key(app_id: str, channel: str) -> str:
    """Where the last event of a cache channel is kept."""
    return f"deskline:cache:{app_id}:{channel}"
