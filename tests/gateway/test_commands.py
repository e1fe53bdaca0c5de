"""Commands that nobody waits for: their order, their replies, and a Redis that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError

from app.config import Settings
from app.gateway import cluster, commands
from app.gateway.commands import Commands
from app.gateway.node import Node
from tests.gateway.conftest import RedisServer, until


@asynccontextmanager
async def sending(url: str) -> AsyncIterator[Commands]:
    redis, sender = commands.connect(url), Commands()
    sender.start(redis)
    yield sender
    await sender.stop()
    await redis.aclose()


async def test_replies_come_in_order(redis_server: RedisServer) -> None:
    replies: list[Any] = []
    async with sending(redis_server.url) as sender:
        for number in range(1200):
            sender.send(b"ECHO", b"%d" % number, then=replies.append)
        sender.send(b"PUBLISH", b"nobody", b"x")
        sender.send(b"NONSENSE", then=replies.append)
        sender.send(b"ECHO", b"end", then=replies.append)
        await until(lambda: len(replies) == 1202)
    assert replies[:1200] == [b"%d" % number for number in range(1200)]
    assert isinstance(replies[1200], ResponseError)
    assert replies[1201] == b"end"
    assert sender.failed == 1


async def test_a_dead_redis_fails_them_and_nothing_piles_up() -> None:
    replies: list[Any] = []
    async with sending("redis://127.0.0.1:1/0") as sender:
        sender.send(b"PING", then=replies.append)
        await until(lambda: len(replies) == 1)
        sender.send(b"PING", then=replies.append)
        sender.send(b"PING")
        await until(lambda: sender.failed == 3, 2)
    assert all(isinstance(reply, (RedisError, OSError)) for reply in replies)


async def test_what_does_not_fit_into_the_queue_fails_at_once(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "QUEUE_COMMANDS", 2)
    replies: list[Any] = []
    async with sending(redis_server.url) as sender:
        for _ in range(3):
            sender.send(b"PING", then=replies.append)
        assert len(replies) == 1
        assert isinstance(replies[0], RedisError)
        await until(lambda: len(replies) == 3)


async def test_missed_control_messages_are_asked_for_until_they_are_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ASK_AGAIN_SECONDS", 0.01)
    node = Node(settings)
    node.listening = True
    asked: list[tuple[tuple[bytes, ...], Callable[[Any], None]]] = []
    monkeypatch.setattr(node.commands, "send", lambda *words, then: asked.append((words, then)))
    node.cluster.restored()
    assert asked == []  # nothing was interrupted
    node.clock = lambda: 1000.0
    node.cluster.interrupted()
    node.clock = lambda: 1010.0
    node.cluster.interrupted()
    node.cluster.restored()
    (words, then), *_ = asked
    assert words[:2] == (b"ZRANGEBYSCORE", b"deskline:control:app1")
    assert float(words[2]) == 1000 - 15 - 60
    then(OSError("away"))
    await asyncio.sleep(0.05)
    assert len(asked) == 2
    assert asked[1][0] == words
    asked[1][1]([b'{"do":"reauthorize","owner":"user.7"}'])
    assert list(node.cluster.changed) == ["app1 user.7"]
