"""Connections to Redis with timeouts short enough that nothing waits for a dead server."""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

TIMEOUT_SECONDS: Final = 0.25
MAX_CONNECTIONS: Final = 16


def connect(url: str) -> Redis:
    """A client for ``url``; it connects at the first command and never retries by itself."""
    return Redis.from_url(
        url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        max_connections=MAX_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
