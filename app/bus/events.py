"""Events in the form that the gateway forwards without looking inside.

The message format is that of the Pusher Channels protocol 7: a JSON object whose ``data`` is
itself JSON text. On Redis stands the socket to leave out, a newline, and that message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


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
    return f"deskline:ch:{app_id}:{channel}"


def redis_payload(event: Event, socket_id: str = "") -> bytes:
    """What is published: the socket to leave out (or nothing), a newline, the message."""
    return f"{socket_id}\n{event.message}".encode()
