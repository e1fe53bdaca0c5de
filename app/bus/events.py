"""Events in the form that the gateway forwards without looking inside.

The message format is that of the Pusher Channels protocol 7: a JSON object whose ``data`` is
itself JSON text. On Redis stands the socket to leave out, a newline, and that message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

# The last event of these channels is kept for those who subscribe later.
CACHE_PREFIXES: Final = ("cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-")
CACHE_SECONDS: Final = 1800
# What the gateways tell each other and are told by the other processes; no client can subscribe.
CONTROL_CHANNEL: Final = "#control"
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


def commands(topic: str, payload: bytes) -> list[tuple[str | bytes, ...]]:
    """The Redis commands that publish ``payload`` on a :func:`redis_channel`.

    The last event of a cache channel is kept before it is published: whoever subscribes in
    between gets it twice rather than never.
    """
    publish = ("PUBLISH", topic, payload)
    app_id, _, channel = topic.removeprefix(_TOPIC_PREFIX).partition(":")
    if not channel.startswith(CACHE_PREFIXES):
        return [publish]
    message = payload.partition(b"\n")[2]
    return [("SET", cache_key(app_id, channel), message, "EX", str(CACHE_SECONDS)), publish]


def cache_key(app_id: str, channel: str) -> str:
    """Where the last event of a cache channel is kept."""
    return f"deskline:cache:{app_id}:{channel}"
