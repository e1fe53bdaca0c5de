"""Connections to Redis with timeouts short enough that nothing waits for a dead server."""

from __future__ import annotations

from typing import Final, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

TIMEOUT_SECONDS: Final = 0.25
MAX_CONNECTIONS: Final = 16
_CLUSTER_SUFFIX: Final = "+cluster"


def is_cluster(url: str) -> bool:
    """Whether ``url`` is that of a Redis Cluster: redis+cluster:// or rediss+cluster://."""
    return url.partition("://")[0].endswith(_CLUSTER_SUFFIX)


def plain(url: str) -> str:
    """The same address as a redis:// or rediss:// URL."""
    scheme, separator, rest = url.partition("://")
    return scheme.removesuffix(_CLUSTER_SUFFIX) + separator + rest


def publish_command(redis: Redis) -> str:
    """How events are published: in a cluster on the shard that has the channel's slot only."""
    return "SPUBLISH" if isinstance(redis, RedisCluster) else "PUBLISH"


def connect_cluster(url: str, *, timeout_seconds: float, max_connections: int) -> Redis:
    """A client for all nodes of a cluster. What a node did not answer is not sent again, or an
    event could come twice; what it sent elsewhere (MOVED) is."""
    client = RedisCluster.from_url(
        plain(url),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    # redis-py has no type for what both have in common
    return cast(Redis, client)


def connect(url: str) -> Redis:
    """A client for ``url``; it connects at the first command and never retries by itself."""
    if is_cluster(url):
        return connect_cluster(
            url, timeout_seconds=TIMEOUT_SECONDS, max_connections=MAX_CONNECTIONS
        )
    return Redis.from_url(
        url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        max_connections=MAX_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
