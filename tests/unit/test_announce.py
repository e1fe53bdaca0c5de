"""What changed is announced after the commit, also when the primary went just then."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from app.bus.events import Event
from app.chat import announce, conversations
from app.chat.announce import Announcer
from app.db.engines import Database, Unavailable


class Bus:
    """Takes events, and keeps them."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.enough = asyncio.Event()

    def publish(self, *batch: Event) -> None:
        self.got += batch
        if len(self.got) >= 4:
            self.enough.set()

    def names(self) -> set[str]:
        return {orjson.loads(event.message)["event"] for event in self.got}


class Away:
    """Stands for conversations.for_events; the database is away as often as it is told."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error = times, error
        self.asked: list[set[int]] = []
        self._real = conversations.for_events

    def __call__(self, database: Database, ids: set[int]) -> list[Any]:
        self.asked.append(set(ids))
        if len(self.asked) <= self.times:
            raise self.error
        return self._real(database, ids)


async def test_what_could_not_be_read_is_announced_when_the_database_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(conversations, "for_events", away := Away(2, Unavailable("away")))
    bus = Bus()
    announcer = Announcer(database, bus)
    announcer.conversation_changed(1)
    await asyncio.sleep(0.02)
    announcer.conversation_changed(2)
    async with asyncio.timeout(10):
        await bus.enough.wait()
    await announcer.close()
    assert away.asked == [{1}, {1, 2}, {1, 2}]
    assert announcer.failures == 2
    told = {orjson.loads(orjson.loads(event.message)["data"])["id"] for event in bus.got}
    assert (told, bus.names()) == ({1, 2}, {"conversation.updated"})


async def test_what_can_never_be_read_is_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "for_events", away := Away(1, ValueError("a bad row")))
    bus = Bus()
    announcer = Announcer(database, bus)
    announcer.conversation_changed(1)
    await asyncio.sleep(0.1)
    announcer.conversation_changed(2)
    await announcer.close()
    assert away.asked == [{1}, {2}]
    assert bus.got


async def test_closing_waits_for_no_database_that_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "for_events", Away(1000, Unavailable("away")))
    announcer = Announcer(database, Bus())
    announcer.conversation_changed(1)
    async with asyncio.timeout(2.5):
        await announcer.close()
